"""Files beside the code that must agree with it: the environment for conda, the workflow, the Makefile."""

import re
from configparser import ConfigParser
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini")
PYTHONS = SETTINGS["DEFAULT"]["python_versions"].split()


def test_the_environment_for_conda_agrees_with_the_settings():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    allowed = SpecifierSet(python.removeprefix("python"))
    newer = f"3.{Version(PYTHONS[-1]).minor + 1}"
    assert [version for version in ("3.10", *PYTHONS, newer) if version in allowed] == PYTHONS
    assert PYTHONS[0] == SETTINGS["DEFAULT"]["min_python"]
    assert pip == "pip" and packages["pip"] == ["--constraint constraints.txt", "--editable .[dev]"]
    assert environment["name"] == SETTINGS["DEFAULT"]["lib_name"] and (ROOT / "constraints.txt").is_file()


def test_what_is_published_is_what_the_tests_saw():
    workflows = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    assert list(workflows) == ["test"]
    test, publish = workflows["test"]["jobs"]["test"], workflows["test"]["jobs"]["publish"]
    steps = [step.get("run") or step["uses"].split("@")[0] for step in test["steps"]]
    assert steps.index("bash .ci/run") < steps.index("actions/upload-pages-artifact")
    kept, = (step for step in test["steps"] if "upload-pages-artifact" in step.get("uses", ""))
    assert kept["with"]["path"] == "_docs"
    assert sum(bool(job.get("site")) for job in test["strategy"]["matrix"]["include"]) == 1
    assert publish["needs"] == "test" and "refs/heads/main" in publish["if"]
    assert [step["uses"].split("@")[0] for step in publish["steps"]] == ["actions/deploy-pages"]


def test_every_tested_python_is_named():
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert sorted(job["python"] for job in matrix["include"]) == PYTHONS


def test_the_makefile_names_its_targets():
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split())
    assert phony == set(re.findall(r"^([a-z]+):", text, re.M)) >= {"lab", "demo", "check", "test", "coverage", "docs", "readme"}
    described = set(re.findall(r"make (\w+)", text.split("SHELL")[0]))
    assert phony - {"clean"} <= described


def test_no_program_but_sphinx_builds_the_site():
    for name in ("docs/build_site.py", "Makefile", ".github/workflows/test.yml"):
        assert "nbdev_docs" not in (ROOT / name).read_text() and "quarto render" not in (ROOT / name).read_text()
