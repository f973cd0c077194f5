"""The bug museums: each wrong solution is caught with its own message, each right one passes."""

import os
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import nbformat
import pytest

import geminiq.course
from geminiq.course.exercises import Museum, Progress, complaint, note, progress_file, read_progress, title

ROOT = Path(__file__).parents[1]
MUSEUMS = [module.museum for name in iter_modules(geminiq.course.__path__)
           if isinstance(getattr(module := import_module(f"geminiq.course.{name.name}"), "museum", None), Museum)]
EXERCISES = [pytest.param(museum, exercise, id=f"{museum.topic}-{exercise}")
             for museum in MUSEUMS for exercise in museum.tests]
EXHIBITS = [pytest.param(museum, exhibit, id=f"{museum.topic}-{exhibit.name}")
            for museum in MUSEUMS for exhibit in museum.exhibits]
SOLUTIONS = [pytest.param(museum, exercise, solution, id=f"{museum.topic}-{exercise}-{solution.__name__}")
             for museum in MUSEUMS for exercise, solutions in museum.solutions.items() for solution in solutions]


@pytest.mark.parametrize(("museum", "exhibit"), EXHIBITS)
def test_each_exhibit_earns_its_own_message(museum: Museum, exhibit):
    assert exhibit.earns in museum.mistake(exhibit.exercise, exhibit.solution)


@pytest.mark.parametrize("museum", MUSEUMS, ids=lambda museum: museum.topic)
def test_no_two_exhibits_earn_the_same_message(museum: Museum):
    messages = [(exhibit.exercise, museum.mistake(exhibit.exercise, exhibit.solution)) for exhibit in museum.exhibits]
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize(("museum", "exercise", "solution"), SOLUTIONS)
def test_each_right_solution_passes(museum: Museum, exercise: str, solution):
    assert museum.mistake(exercise, solution) is None


@pytest.mark.parametrize(("museum", "exercise"), EXERCISES)
def test_an_exercise_has_solutions_in_three_styles_and_no_idle_test(museum: Museum, exercise: str):
    assert len(museum.solutions[exercise]) >= 3
    first = {next(test for test in museum.tests[exercise] if complaint(test, exhibit.solution))
             for exhibit in museum.exhibits if exhibit.exercise == exercise}
    assert first == set(museum.tests[exercise]), "every test should be the first to catch some exhibit"


@pytest.mark.parametrize("museum", MUSEUMS, ids=lambda museum: museum.topic)
def test_the_table_of_exhibits_and_tests(museum: Museum):
    "Print which test catches which exhibit, and keep it among the artifacts."
    lines = [f"The museum of {museum.topic}: ✗ caught, · not noticed by this test"]
    for exercise, tests in museum.tests.items():
        lines += ["", f"{exercise}: " + "; ".join(f"{i} {test.__doc__}" for i, test in enumerate(tests, 1))]
        rows = [(exhibit.name, exhibit.solution) for exhibit in museum.exhibits if exhibit.exercise == exercise]
        rows += [(f"right: {title(solution)}", solution) for solution in museum.solutions[exercise]]
        for name, solution in rows:
            marks = " ".join("✗" if complaint(test, solution) else "·" for test in tests)
            lines.append(f"  {name:45} {marks}   {museum.mistake(exercise, solution) or 'passes'}")
    table = "\n".join(lines)
    print(table)
    artifacts = Path(__file__).parents[1] / "test-artifacts"
    artifacts.mkdir(exist_ok=True)
    (artifacts / f"museum-{museum.topic}.txt").write_text(table + "\n", encoding="utf-8")
    assert table.count("passes") == sum(map(len, museum.solutions.values()))


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A place for the progress of one test."
    monkeypatch.setenv("GEMINIQ_PROGRESS", str(tmp_path / "deep" / "progress.json"))
    return progress_file()


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'{"a": 3}', b'{"a": {"tries": "many"}}', b"\xff\xfe", b"null"])
def test_a_broken_file_is_put_aside_and_the_lesson_goes_on(own_file: Path, content: bytes):
    own_file.parent.mkdir()
    own_file.write_bytes(content)
    assert read_progress() == {}
    note("attention/softmax", passed=True)
    assert read_progress() == {"attention/softmax": Progress(tries=1, passed=True)}
    assert own_file.with_name("progress.json.broken").read_bytes() == content
    assert len(list(own_file.parent.iterdir())) == 2


def test_a_read_only_place_is_said(own_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def refuse(*paths):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)    # a folder's mode does not stop root, under whom tests may run
    note("attention/softmax", passed=True)
    assert "could not be kept: Permission denied" in capsys.readouterr().out
    assert list(own_file.parent.iterdir()) == []


def test_a_place_that_is_no_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEMINIQ_PROGRESS", str(tmp_path / "file" / "progress.json"))
    note("attention/softmax", passed=True)
    assert "could not be kept" in capsys.readouterr().out
    assert read_progress() == {}


def test_the_file_is_the_learners_own_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GEMINIQ_PROGRESS")
    assert progress_file().name == "progress.json" and progress_file().is_absolute()
    assert Path(geminiq.course.__path__[0]).parents[1] not in progress_file().parents


@pytest.mark.parametrize("name", ["01_first_model", "04_tokenizer", "06_embeddings", "07_attention", "08_feedforward",
                                  "09_transformer_block", "10_transformer", "11_losses", "12_metrics", "13_optimizer"])
def test_who_fails_is_sent_to_a_line_that_stands_in_the_lesson(name: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("GEMINIQ_PROGRESS", str(tmp_path / "progress.json"))
    museum = import_module(f"geminiq.course.{name[3:]}").museum
    lesson = "\n".join(cell.source for cell in nbformat.read(ROOT / "nbs" / f"{name}.ipynb", 4).cells)
    assert museum.symptoms.keys() == museum.tests.keys()
    for exercise, lines in museum.symptoms.items():
        wrong = [exhibit for exhibit in museum.exhibits if exhibit.exercise == exercise]
        shown = set()
        for exhibit in wrong:
            museum.check(exercise, exhibit.solution)
            shown.update(re.findall("under “(.+?)”", " ".join(capsys.readouterr().out.split())))
        assert all(f"- *{line}*" in lesson for line in lines)
        assert len(shown) >= len(lines) - 1, (exercise, shown)      # a loop that takes minutes is no exhibit
