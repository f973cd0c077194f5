"""Small models are fastest on one thread, side by side; and nobody's own progress is touched."""

import os
import sys
from pathlib import Path
from tempfile import gettempdir

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ["GEMINIQ_PROGRESS"] = str(Path(gettempdir()) / f"geminiq-test-{os.getpid()}" / "progress.json")
sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))   # for the report on lessons
