"""What is printed is one line where that is promised, and can do nothing to a terminal."""

import io
import sys

import pytest
import torch

from geminiq.utils.terminal import forgiving_streams, is_out_of_memory, memory_in_words, say, say_error


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


@pytest.mark.parametrize("error", [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
                 "4000000000000 bytes. Error code 12 (Cannot allocate memory)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8"),
    RuntimeError("unable to mmap 8 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("Storage size calculation overflowed with sizes=[4611686018427387904]")], ids=str)
def test_too_little_memory_is_known_by_what_is_said(error: Exception):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("an illegal memory access"), ValueError("out of memory")], ids=str)
def test_other_errors_are_not_taken_for_it(error: Exception):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(("n_bytes", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 KB"), (999_999, "1 MB"),
                                                (2.346e9, "2.35 GB"), (10**12, "1 TB"), (768 * 10**15, "768,000 TB")])
def test_memory_is_a_short_number(n_bytes: float, words: str):
    assert memory_in_words(n_bytes) == words
