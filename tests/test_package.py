"""The wheel: built, installed into an empty environment, used from another folder."""

import os
import subprocess
import sys
import venv
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SMALL = ["--set", "model.vocab_size=500", "--set", "model.d_model=24", "--set", "model.n_layers=1", "--set", "model.n_heads=2",
         "--set", "model.max_seq_len=32", "--max_steps", "3", "--batch_size", "2", "--set", "training.eval_batches=1"]


def run(*command: str | Path, folder: Path) -> str:
    "What a command prints; the error stream is shown if it fails."
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run([str(part) for part in command], cwd=folder, env=clean, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The scripts' folder of an environment that holds the wheel and what it needs, and nothing else."
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    wheel, = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, folder=folder)
    return scripts


def test_the_wheel_works_on_its_own(installed: Path, tmp_path: Path):
    where = run(installed / "python", "-c", "import geminiq; print(geminiq.__file__)", folder=tmp_path)
    assert str(ROOT / "geminiq") not in where
    code = "from geminiq.utils.config import *; print([load_config(name).model.d_model for name in preset_names()])"
    presets = run(installed / "python", "-c", code, folder=tmp_path)
    assert presets.strip() == "[1024, 768, 384, 192, 192]"
    run(installed / "geminiq", "train", "--config", "tiny", *SMALL, folder=tmp_path)
    written = run(installed / "geminiq", "generate", "--checkpoint", "runs/tiny", "--prompt", "The ", folder=tmp_path)
    assert written.startswith("The ")
    assert "train" in run(installed / "python", "-m", "geminiq", "--help", folder=tmp_path)


def test_the_environment_check_says_what_is_missing(installed: Path, tmp_path: Path):
    result = subprocess.run([installed / "geminiq", "verify"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1 and 'pip install "geminiq[course]"' in result.stdout


def test_importing_brings_in_only_what_is_needed(tmp_path: Path):
    unwanted = "{'nbdev', 'fastcore', 'transformers', 'IPython', 'jupyter_core', 'matplotlib', 'ipywidgets', 'sklearn'}"
    for modules in ("geminiq", "geminiq.training.trainer, geminiq.generation.chat, geminiq.cli",
                    "geminiq.models.vision, geminiq.models.moe, geminiq.models.efficient_attention"):
        code = f"import sys, {modules}; print(sorted({unwanted} & sys.modules.keys()))"
        brought = run(sys.executable, "-c", code, folder=tmp_path)
        assert brought.strip() == "[]", modules


def test_every_requirement_is_pinned_to_a_version_it_allows():
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    keys = ("requirements", "course_requirements", "dev_requirements")
    for requirement in map(Requirement, " ".join(settings["DEFAULT"][key] for key in keys).split()):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), requirement
