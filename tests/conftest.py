"""Small models are fastest on one thread, side by side; and nobody's own progress is touched."""

import os
import sys
from pathlib import Path
from tempfile import gettempdir

import pytest

SLOW_FILES = {"test_checkpointing.py", "test_cli.py", "test_distributed.py", "test_pretrained_files.py"}   # start many processes
SLOW_FIXTURES = {"browser", "installed", "site"}

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ["GEMINIQ_PROGRESS"] = str(Path(gettempdir()) / f"geminiq-test-{os.getpid()}" / "progress.json")
sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))   # for the report on lessons


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    "Mark what `make check` leaves out: other processes, browsers, installed wheels."
    for item in items:
        if item.path.name in SLOW_FILES or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
