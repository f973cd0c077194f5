"""One thread for each test, no network for models, a home of their own; and what counts as slow."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")      # small models are fastest on one thread, side by side
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")       # all models are built from their configurations
os.environ.setdefault("PIP_CACHE_DIR", os.path.expanduser("~/.cache/pip"))
HOME = TemporaryDirectory(prefix="geminiq-home-")  # nobody's own files are read or touched, and the real one may be read-only
os.environ["HOME"] = HOME.name
for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
    os.environ.pop(name, None)                     # they would lead elsewhere
os.environ["GEMINIQ_PROGRESS"] = str(Path(HOME.name) / "progress.json")
sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))   # for the report on lessons
pytest.register_assert_rewrite("helpers")

SLOW_FIXTURES = {"browser", "installed", "site"}
FAMILIES = ("gpt2", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    "What needs a browser, the whole site or an installed wheel counts as slow: `make check` leaves it out."
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    "Let the references compute in float64 where they say float32: formulas are compared, not rounding."
    # Norms, rotary angles, routers and some softmaxes have a float32 of their own, whatever the model has.
    from helpers import lift_casts  # here, so that PyTorch sees the environment above
    lift_casts(monkeypatch, FAMILIES)
