"""Files are seen complete or not at all, whatever happens; and what strangers wrote is read, or refused in a line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geminiq.utils.device import UserError
from geminiq.utils.files import (
    check_file,
    clear_leftovers,
    decode_text,
    lock_folder,
    new_file,
    new_folder,
    parse_json,
    parse_yaml,
    read_json,
    read_text,
    read_yaml,
    remove_folder,
    wait_for_disk,
    write_file,
)

WRITER = """
import sys
from geminiq.utils.files import write_file
for letter in sys.argv[2] * 40:
    write_file(sys.argv[1], letter * 100_000)
"""


def names(folder: Path) -> list[str]:
    "What is in a folder."
    return sorted(path.name for path in folder.iterdir())


def test_who_reads_while_two_write_sees_one_version_whole(tmp_path: Path):
    path = tmp_path / "file"
    write_file(path, "a" * 100_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, letters]) for letters in ("ab", "cd")]
    while any(writer.poll() is None for writer in writers):
        text = path.read_text()
        assert len(text) == 100_000 and len(set(text)) == 1
    assert [writer.returncode for writer in writers] == [0, 0] and names(tmp_path) == ["file"]


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt, OSError(28, "No space left on device"), SystemExit])
def test_an_interruption_leaves_the_old_version_and_nothing_else(tmp_path: Path, interruption):
    write_file(tmp_path / "file", "old")
    expected = UserError if isinstance(interruption, OSError) else interruption
    with pytest.raises(expected), new_file(tmp_path / "file") as file:
        file.write(b"half")
        raise interruption
    with pytest.raises(expected), new_folder(tmp_path / "folder") as folder:
        (folder / "part").write_text("half")
        raise interruption
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"file cannot be written \(No space left on device\): make room"), \
            new_file(tmp_path / "file"):
        raise OSError(28, "No space left on device")


def test_a_link_stays_a_link_and_what_it_means_is_written(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    write_file(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_text() == "text"


def test_neighbours_with_similar_names_are_left_alone(tmp_path: Path):
    mine = [f"file.{os.getpid()}-00000000.geminiq-unfinished", "file.backup", "file.999999999-x.txt",
            "other.1-0.geminiq-unfinished"]
    for name in mine:
        (tmp_path / name).write_text("keep")
    (tmp_path / "file.999999999-00000000.geminiq-unfinished").mkdir()      # of a process that is no more
    write_file(tmp_path / "file", "text")
    assert names(tmp_path) == sorted([*mine, "file"])


def test_leftovers_are_cleared_without_writing_and_the_disk_is_waited_for(tmp_path: Path):
    (tmp_path / "run.999999999-0.geminiq-unfinished").mkdir()
    (tmp_path / "run.txt").write_text("text")
    clear_leftovers(tmp_path / "run")
    assert names(tmp_path) == ["run.txt"]
    for path in (tmp_path, tmp_path / "run.txt"):
        wait_for_disk(path)
    with pytest.raises(FileNotFoundError):
        wait_for_disk(tmp_path / "missing")


def test_a_folder_is_new_and_goes_at_once(tmp_path: Path):
    for taken in ("file", "folder", "link"):
        {"file": Path.touch, "folder": Path.mkdir, "link": lambda path: path.symlink_to("nowhere")}[taken](tmp_path / taken)
        with pytest.raises(UserError, match="exists already"), new_folder(tmp_path / taken):
            pass
    with new_folder(tmp_path / "new") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("text")
        (folder / "inner" / "own").touch(0o600)      # as safetensors writes
    assert (tmp_path / "new" / "inner" / "file").read_text() == "text"
    assert (tmp_path / "new" / "inner" / "own").stat().st_mode == (tmp_path / "new" / "inner" / "file").stat().st_mode
    remove_folder(tmp_path / "new")
    assert names(tmp_path) == ["file", "folder", "link"]


def test_a_name_that_is_taken_by_no_file_is_refused(tmp_path: Path):
    (tmp_path / "a file").touch()
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a link to nothing").symlink_to(tmp_path / "gone")
    for name in ("a file", "nothing"):
        check_file(tmp_path / name)
    for name in ("a folder", "a link to nothing"):
        with pytest.raises(UserError, match=f"{name} is not a file"):
            check_file(tmp_path / name)


def test_a_lock_is_given_back_by_an_error_too(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(RuntimeError), lock_folder(tmp_path / "run"):
            raise RuntimeError


@pytest.mark.parametrize(("content", "why"), [
    (b"\xff\xfea\0", "UTF-16"), (b"\xfe\xff\0a", "UTF-16"), (b"caf\xe9", "byte 0xe9 at position 3"), (b"\x89PNG\0", "a byte 0"),
])
def test_what_is_no_text_is_said(tmp_path: Path, content: bytes, why: str):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match=why):
        read_text(tmp_path / "file")
    for reader in (read_text, read_json, read_yaml):
        with pytest.raises(UserError, match="is a folder"):
            reader(tmp_path)
        with pytest.raises(UserError, match="there is no file"):
            reader(tmp_path / "missing")
        with pytest.raises(UserError, match="is no file"):
            reader("/dev/zero")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_text_comes_back_without_the_mark_before_it(text: str):
    assert decode_text(("\ufeff" + text).encode(), "here") == text


@given(st.binary())
def test_bytes_are_text_or_one_line(content: bytes):
    try:
        assert decode_text(content, "here").encode() in (content, content[3:])
    except UserError as error:
        assert "\n" not in str(error)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc:-#é \n"),
                      lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner), max_leaves=8)


@given(VALUES)
def test_what_was_written_is_read(value):
    assert parse_yaml(yaml.safe_dump(value), "here") == value


@given(st.text("ab:-[]{}&*!|>'\"#%@?,<~\n\t 0x_1e.\0\x1b\ufeff", max_size=30))
def test_any_text_is_yaml_or_one_line(text: str):
    try:
        parse_yaml(text, "here")
    except UserError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nul", "[" * 10**5, "1" * 5000])
def test_what_is_no_json_is_one_line_that_names_the_place(text: str):
    assert parse_json(' {"a": [1, "ü"]} ', "here") == {"a": [1, "ü"]}
    with pytest.raises(UserError, match=r"^line 7 is damaged: ") as caught:
        parse_json(text, "line 7")
    assert "\n" not in str(caught.value)


def test_json_nested_without_end_or_with_a_huge_number_is_one_line(tmp_path: Path):
    for text in ("[" * 100_000, "9" * 5000, json.dumps({"a": 1})[:-1]):
        (tmp_path / "file.json").write_text(text)
        with pytest.raises(UserError, match=r"file\.json is damaged"):
            read_json(tmp_path / "file.json")
