"""The model that lesson 10 hands out with five bugs: whichever of them are mended, the check tells one that is still there."""

import ast
from collections.abc import Callable
from inspect import getsource
from itertools import combinations
from pathlib import Path

import nbformat
import pytest
import torch

from geminiq.course import transformer
from geminiq.course.transformer import broken, make_weights, museum

TEXT = getsource(broken)
BUGS = {   # in the order in which they are told: the symptom, the bug and how it is mended
    "norm": ("in a batch gets other predictions than alone", "x.square().mean()", "x.square().mean(-1, keepdim=True)"),
    "mask": ("somebody looks ahead", ".triu(2)", ".triu(1)"),
    "scale": ("how long the text is", "key.shape[-2]", "key.shape[-1]"),
    "positions": ("nobody knows where words stand", "weights.positions[tokens]", "weights.positions[:T]"),
    "norm_2": ("`norm_2` of layer 0 gets no gradient", "layer.norm_1) @ layer.up", "layer.norm_2) @ layer.up")}
SUBSETS = [bugs for n in range(6) for bugs in combinations(BUGS, n)]


def with_bugs(*bugs: str) -> Callable:
    "The model with these bugs, and all others mended."
    text, names = TEXT, {"torch": torch}
    for bug, (_, wrong, right) in BUGS.items():
        assert text.count(wrong) == 1
        text = text if bug in bugs else text.replace(wrong, right)
    exec(text, names)
    return names["broken"]


def test_without_bugs_it_is_the_right_one():
    assert museum.mistake("transformer", with_bugs()) is None


def test_with_all_it_is_the_broken_one():
    tokens, weights = torch.tensor([[1, 2, 0], [4, 4, 3]]), make_weights(5, 4, 3, 6, 2, 7)
    assert torch.equal(with_bugs(*BUGS)(tokens, weights), broken(tokens, weights))


@pytest.mark.parametrize("bugs", SUBSETS[1:], ids="-".join)
def test_the_symptom_is_of_the_first_bug_that_is_left(bugs: tuple[str, ...]):
    message = museum.mistake("transformer", with_bugs(*bugs))
    told = [bug for bug, (symptom, *_) in BUGS.items() if symptom in message]
    assert told == [bugs[0]]


def test_the_model_trains_all_the_same():
    "The loss falls: nobody would notice."
    weights = make_weights(7, 16, 8, 24, 2, 9, seed=1, requires_grad=True)
    named = transformer._named(weights)
    tokens = torch.randint(7, (8, 9), generator=torch.Generator().manual_seed(0))
    optimizer, losses = torch.optim.Adam(named.values(), 0.01), []
    for _ in range(60):
        losses.append(torch.nn.functional.cross_entropy(broken(tokens, weights)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))
        optimizer.zero_grad(set_to_none=True)
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]


def test_the_lesson_hands_out_the_same_model():
    lesson = nbformat.read(Path(__file__).parents[1] / "nbs" / "10_transformer.ipynb", 4)
    handed_out, = (cell.source for cell in lesson.cells if "+ weights.positions[tokens]" in cell.source)
    assert ast.unparse(ast.parse(handed_out.replace("my_transformer", "broken"))) == ast.unparse(ast.parse(TEXT))
