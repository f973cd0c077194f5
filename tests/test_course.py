"""The course in a folder of the learner's: copied, brought up to date, and never overwritten."""

import os
import sys
from pathlib import Path

import pytest

from geminiq.course import lessons
from geminiq.course.lessons import MANIFEST, copy_course, describe, lab_command, lessons_folder, open_lab
from geminiq.utils.device import UserError

FIRST, SECOND, PICTURE = "01_first.ipynb", "workshop/second.ipynb", "images/dot.png"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    "A course of two notebooks and a picture, and files that are none."
    folder = tmp_path / "source"
    for name in (FIRST, SECOND, PICTURE, "_quarto.yml", ".ipynb_checkpoints/01_first-checkpoint.ipynb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}, version 1")
    return folder


@pytest.fixture
def mine(tmp_path: Path, source: Path) -> Path:
    "A learner's folder, with version 1 in it."
    copy_course(tmp_path / "mine", source)
    return tmp_path / "mine"


def publish(source: Path, version: int) -> None:
    "Bring out a new version of the notebooks."
    for name in (FIRST, SECOND):
        (source / name).write_text(f"{name}, version {version}")


def contents(folder: Path) -> dict[str, str]:
    "What the files in a folder say."
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*")
            if path.is_file() and path.name != MANIFEST}


def outcomes(folder: Path, source: Path) -> dict[str, str]:
    "What happens to each file when the course is copied."
    return {file.name: file.outcome for file in copy_course(folder, source)}


def test_the_first_copy_brings_notebooks_and_pictures_and_nothing_else(tmp_path: Path, source: Path):
    assert outcomes(tmp_path / "a" / "b", source) == dict.fromkeys((FIRST, SECOND, PICTURE), "new")
    assert contents(tmp_path / "a" / "b") == {name: f"{name}, version 1" for name in (FIRST, SECOND, PICTURE)}


def test_a_second_run_changes_nothing(mine: Path, source: Path):
    before = {path: path.stat().st_mtime_ns for path in mine.rglob("*") if path.name != MANIFEST and path.is_file()}
    assert set(outcomes(mine, source).values()) == {"same"}
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_is_unchanged_is_brought_up_to_date_in_place(mine: Path, source: Path):
    publish(source, 2)
    assert outcomes(mine, source) == {FIRST: "updated", SECOND: "updated", PICTURE: "same"}
    assert contents(mine)[FIRST] == f"{FIRST}, version 2"


def test_what_the_learner_changed_stays_and_the_new_version_stands_beside_it(mine: Path, source: Path):
    (mine / SECOND).write_text("my own")
    assert outcomes(mine, source)[SECOND] == "yours"
    publish(source, 2)
    placed = copy_course(mine, source)
    assert describe(placed, mine)[1:] == [
        "workshop/second.ipynb is changed by you and stays; this version's is workshop/second.new.ipynb"]
    assert contents(mine)[SECOND] == "my own"
    assert contents(mine)["workshop/second.new.ipynb"] == f"{SECOND}, version 2"
    assert outcomes(mine, source)[SECOND] == "yours"    # said once
    publish(source, 3)
    copy_course(mine, source)                           # nobody has written into the one beside
    assert contents(mine)["workshop/second.new.ipynb"] == f"{SECOND}, version 3"


def test_even_a_changed_new_version_is_kept(mine: Path, source: Path):
    (mine / FIRST).write_text("my own")
    publish(source, 2)
    copy_course(mine, source)
    (mine / "01_first.new.ipynb").write_text("my own too")
    publish(source, 3)
    copy_course(mine, source)
    said = contents(mine)
    assert (said[FIRST], said["01_first.new.ipynb"]) == ("my own", "my own too")
    assert said["01_first.new.new.ipynb"] == f"{FIRST}, version 3"


def test_a_file_that_was_there_before_the_course_is_the_learners(tmp_path: Path, source: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / FIRST).write_text("something else")
    assert outcomes(tmp_path / "mine", source)["01_first.new.ipynb"] == "beside"
    assert contents(tmp_path / "mine")[FIRST] == "something else"


@pytest.mark.parametrize("damage", ["", "{", "[1", "[1]"])
def test_without_a_manifest_nothing_is_overwritten(mine: Path, source: Path, damage: str):
    (mine / FIRST).write_text("my own")
    (mine / MANIFEST).write_text(damage)
    publish(source, 2)
    assert set(outcomes(mine, source).values()) == {"beside", "same"}
    assert contents(mine)[FIRST] == "my own"


def test_a_file_is_no_folder(mine: Path, source: Path):
    with pytest.raises(UserError, match="is a file: name a folder"):
        copy_course(mine / FIRST, source)
    assert contents(mine)[FIRST] == f"{FIRST}, version 1"


def test_a_folder_that_cannot_be_written_is_named(mine: Path, source: Path):
    with pytest.raises(UserError, match=r"cannot write the lessons to .*01_first.ipynb.below .*: name another folder"):
        copy_course(mine / FIRST / "below", source)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path, source: Path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied"):
        copy_course(tmp_path / "closed" / "mine", source)


@pytest.mark.parametrize("when", [0, 1, 2])
def test_an_interruption_leaves_whole_files_and_the_next_run_goes_on(
        when: int, mine: Path, source: Path, monkeypatch: pytest.MonkeyPatch):
    publish(source, 2)
    before, replaced, replace = contents(mine), [], os.replace

    def interrupted(path: Path, target: Path) -> None:
        replaced.append(target)
        if len(replaced) == when + 1:
            raise KeyboardInterrupt
        replace(path, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy_course(mine, source)
    monkeypatch.undo()
    after = contents(mine)
    assert after.keys() == before.keys() and all(after[name] in (before[name], (source / name).read_text()) for name in after)
    assert not {"yours", "beside"} & set(outcomes(mine, source).values())
    assert contents(mine)[SECOND] == f"{SECOND}, version 2"


def test_a_checkout_has_the_lessons_in_nbs():
    assert lessons_folder() == Path(__file__).parents[1] / "nbs"


def test_jupyterlab_opens_the_first_lesson(mine: Path):
    command = lab_command(mine, browser=False)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"] and "--no-browser" in command
    assert f"--ServerApp.root_dir={mine}" in command and f"--LabApp.default_url=/lab/tree/{FIRST}" in command


def test_without_jupyterlab_the_command_says_what_to_install(mine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lessons, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "geminiq\[course\]"'):
        lab_command(mine)


def test_the_process_becomes_jupyterlab(mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    became = []
    monkeypatch.setattr(os, "execv", lambda program, command: became.append((program, command)))
    open_lab(mine, ["--port=8899"], browser=False)
    (program, command), = became
    assert program == sys.executable and command == [*lab_command(mine, browser=False), "--port=8899"]
    assert capsys.readouterr().out.startswith("Open one of the addresses")
