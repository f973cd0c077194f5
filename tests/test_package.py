"""The wheel: built, installed into an empty environment, used from another folder; and what the package offers."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import venv
from configparser import ConfigParser
from pathlib import Path

import jedi
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import geminiq

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
    assert presets == run(sys.executable, "-c", code, folder=ROOT) and presets.count(",") >= 4
    run(installed / "geminiq", "train", "--config", "tiny", *SMALL, folder=tmp_path)
    written = run(installed / "geminiq", "generate", "--checkpoint", "runs/tiny", "--prompt", "The ", folder=tmp_path)
    assert written.startswith("The ")
    assert "train" in run(installed / "python", "-m", "geminiq", "--help", folder=tmp_path)


def test_the_environment_check_is_green_and_says_what_the_extras_bring(installed: Path, tmp_path: Path):
    said = run(installed / "geminiq", "verify", folder=tmp_path)
    assert 'for the course: pip install "geminiq[course]"' in said
    assert 'for the hub: pip install "geminiq[hub]"' in said
    assert "gradient right" in said and "missing" not in said


def test_the_front_door_without_any_extra(installed: Path, tmp_path: Path):
    code = """
import sys, geminiq
offered = dir(geminiq)
assert "torch" not in sys.modules
for name in offered:
    try: getattr(geminiq, name)
    except ModuleNotFoundError as error: print(name, error)
"""
    said = run(installed / "python", "-c", code, folder=tmp_path)
    assert said.strip() == 'explore_attention interactive pictures need anywidget: pip install "geminiq[course]"'


def test_the_wheel_brings_the_course(installed: Path, tmp_path: Path):
    said = run(installed / "geminiq", "course", "mine", "--no-lab", folder=tmp_path)
    here = {path.relative_to(ROOT / "nbs"): path.read_bytes() for path in (ROOT / "nbs").rglob("*.ipynb")
            if ".ipynb_checkpoints" not in path.parts}
    copied = {path.relative_to(tmp_path / "mine"): path.read_bytes() for path in (tmp_path / "mine").rglob("*.ipynb")}
    assert copied == here and said.startswith("the course in mine: ")
    assert "nothing to do" in run(installed / "geminiq", "course", "mine", "--no-lab", folder=tmp_path)
    result = subprocess.run([installed / "geminiq", "course", "mine"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.endswith('to open them: pip install "geminiq[course]"\n')


def test_the_page_on_a_package_index_has_no_link_into_a_folder(installed: Path, tmp_path: Path):
    code = "from importlib.metadata import metadata; print(metadata('geminiq').as_string())"
    page = run(installed / "python", "-c", code, folder=tmp_path)
    targets = re.findall(r"\]\(([^)\s]+)", page)
    assert targets and [target for target in targets if not re.match("https://|#", target)] == []
    assert "](https://github.com/geminiq/geminiq/raw/main/nbs/images/index-1.png)" in page
    for kind in ("Documentation", "Source", "Issues", "Changelog"):
        assert f"Project-URL: {kind}, https://" in page


def test_links_of_a_readme_become_absolute():
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    text = "![a](x/y.png) [c](LICENSE#top) [d](https://e.example) [f](#here) [g](mailto:h)"
    assert setup.absolute_links(text, "https://r", "main") == (
        "![a](https://r/raw/main/x/y.png) [c](https://r/blob/main/LICENSE#top) [d](https://e.example) [f](#here) [g](mailto:h)")


UNWANTED = {"nbdev", "fastcore", "transformers", "IPython", "jupyter_core", "ipywidgets", "anywidget", "traitlets", "sklearn"}
IMPORTS = {  # what is imported: what must not come along
    "geminiq": UNWANTED | {"torch", "numpy", "matplotlib", "pydantic"},
    "geminiq.training.trainer, geminiq.generation.chat, geminiq.cli": UNWANTED | {"matplotlib"},
    "geminiq.models.vision, geminiq.models.moe, geminiq.models.efficient_attention": UNWANTED | {"matplotlib"},
    "geminiq.utils.visualization": UNWANTED,
}


@pytest.mark.parametrize("modules", IMPORTS)
def test_importing_brings_in_only_what_is_needed(modules: str):
    code = f"import sys, {modules}; print(sorted({IMPORTS[modules]} & sys.modules.keys()))"
    assert run(sys.executable, "-c", code, folder=ROOT).strip() == "[]"


def test_the_front_door_offers_what_it_says_and_nothing_else():
    code = "import sys, geminiq; print(*dir(geminiq), 'torch' in sys.modules)"
    offered = run(sys.executable, "-c", code, folder=ROOT).split()
    assert offered == [*sorted([*geminiq.__all__, "__version__"]), "False"] and len(geminiq.__all__) == 20
    for name in geminiq.__all__:
        value = getattr(geminiq, name)
        assert value.__name__ == name and getattr(geminiq, name) is value
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = geminiq.nothing


def test_editors_and_type_checkers_see_the_names_that_python_finds():
    tree = ast.parse((ROOT / "geminiq" / "__init__.py").read_text())
    seen = {alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1
            for alias in node.names if alias.asname == alias.name}
    assert seen == geminiq._HOME
    completed = {name.name for name in jedi.Script("import geminiq\ngeminiq.").complete(2, 8)}
    assert set(geminiq.__all__) <= completed


def test_every_requirement_is_pinned_to_a_version_it_allows():
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    keys = ("requirements", "course_requirements", "hub_requirements", "dev_requirements")
    for requirement in map(Requirement, " ".join(settings["DEFAULT"][key] for key in keys).split()):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), requirement


SHORTER = """#!/bin/sh
if [ "$1" = train ]; then exec {python} -m geminiq "$@" --max_steps 2 --set training.eval_batches=1; fi
exec {python} -m geminiq "$@"
"""


@pytest.mark.slow
def test_the_examples_of_the_readme_run_as_they_are_written(tmp_path: Path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "geminiq"      # training stops early, and the text of the examples stays
    program.write_text(SHORTER.format(python=sys.executable))
    program.chmod(0o755)
    where = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    commands = re.findall(r"^\$ (.+)$", readme, re.M)
    programs = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    assert len(commands) >= 4 and len(programs) >= 2
    for command in commands:
        result = subprocess.run(command, shell=True, cwd=tmp_path, env=where, capture_output=True, text=True)
        wrong = re.search(rf"^\$ {re.escape(command)}\nerror: (.+)$", readme, re.M)     # as the README shows it
        assert result.returncode == (2 if wrong else 0), f"{command}\n{result.stderr}"
        assert not wrong or wrong[1] in result.stderr
    result = subprocess.run([sys.executable, "-c", "\n".join(programs)], cwd=tmp_path, env=where, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
