"""The fuzzers' own harness: each kind of end is told apart."""

import os
import time

import pytest
import torch
from harness import n_cases, run_case

from geminiq.utils.device import UserError


def refuse(text: str) -> None:
    "Raise what a user would see."
    raise UserError(text)


def loop() -> None:
    "Compute without end."
    while True:
        pass


@pytest.mark.parametrize(("kind", "function"), [
    ("right", lambda: torch.ones(3) @ torch.ones(3)),
    ("refused", lambda: refuse("size 0: use 1 or more")),
    ("fault", lambda: refuse("two\nlines")),
    ("fault", lambda: refuse("a bell \a")),
    ("fault", lambda: {}["missing"]),
    ("fault", lambda: bytearray(2 * 10**9)),
    ("fault", loop),
    ("fault", lambda: time.sleep(100)),
    ("fault", os.abort),
    ("fault", lambda: os._exit(0)),
])
def test_every_end_is_told_apart(kind, function):
    assert run_case(function, seconds=0.5).kind == kind


def test_the_number_of_cases_follows_the_environment(monkeypatch):
    monkeypatch.delenv("GEMINIQ_FUZZ", raising=False)
    assert n_cases(20) == 20
    monkeypatch.setenv("GEMINIQ_FUZZ", "10")
    assert n_cases(20) == 200
