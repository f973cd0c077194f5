"""What is printed is one line where that is promised, and can do nothing to a terminal."""

import io
import sys

import pytest

from geminiq.utils.terminal import forgiving_streams, say, say_error


def test_what_is_said_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]):
    say("a\x1b]0;title\x07b", end="")
    say_error("first\nsecond \x1b[2J")
    said = capsys.readouterr()
    assert said.out == r"a\x1b]0;title\x07b" and said.err == "error: first second \\x1b[2J\n"


def test_letters_that_a_console_does_not_know_are_replaced(monkeypatch: pytest.MonkeyPatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    with pytest.raises(UnicodeEncodeError):
        console.write("→")
    forgiving_streams()
    console.write("→ é")
    console.flush()
    assert console.buffer.getvalue() == "? é".encode("cp1252")
