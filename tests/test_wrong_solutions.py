"""Checks that cannot be fooled: wrong solutions in other words than the museum's, and small changes of right ones."""

import functools
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F

import geminiq.course.exercises as exercises
from geminiq.course import (
    attention,
    embeddings,
    feedforward,
    losses,
    metrics,
    optimizer,
    tokenizer,
    transformer,
    transformer_block,
)
from geminiq.course.exercises import Museum, complaint, expect, progress, read_progress
from mutants import mutants
from right_styles import RIGHT as STYLES
from wrong_solutions import WRONG, Wrong

ROOMS = [room.museum for room in (attention, embeddings, feedforward, losses, metrics, optimizer, tokenizer, transformer_block,
                                  transformer)]
MUSEUM = {exercise: room for room in ROOMS for exercise in room.tests}
LOCATED = re.compile(r"should (be|have|give)|stops with|your code|moves|no gradient|is only lent|no linear layer|is a layer from")
RIGHT = re.split(r"^# (\w+): .*\n", (Path(__file__).parent / "data" / "right_solutions.txt").read_text(), flags=re.M)[1:]
@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMINIQ_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(exercises, "_SECONDS", 2)


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.solution.__name__)
def test_a_wrong_solution_is_told_what_is_wrong(case: Wrong):
    message = MUSEUM[case.exercise].mistake(case.exercise, case.solution)
    assert message and case.words in message
    assert case.words or LOCATED.search(message)


def test_most_are_named():
    assert len(WRONG) >= 80 and sum(bool(case.words) for case in WRONG) > 0.85 * len(WRONG)


@pytest.mark.parametrize(("exercise", "solution"), STYLES)
def test_no_right_solution_is_refused(exercise: str, solution: Callable):
    assert MUSEUM[exercise].mistake(exercise, solution) is None


def test_there_are_many_styles():
    in_museums = [solution for room in ROOMS for found in room.solutions.values() for solution in found]
    assert len(STYLES) + len(in_museums) > 80


def behaviour(exercise: str, solution: Callable) -> list:
    "What a solution does on inputs that no check uses; a change that shows nowhere here changes nothing."
    torch.manual_seed(11)
    B, H, K, T, S, E = 3, 4, 2, 5, 7, 6
    query, key, value = torch.randn(B, H, T, E), torch.randn(B, H, S, E), torch.randn(B, H, S, E)
    mask = torch.rand(T, S) < 0.5
    mask[2] = False
    if exercise == "rotate":
        angles = [torch.rand(t, e // 2) * 7 for t, e in ((1, 4), (6, 10))]
        return [solution(torch.randn(3, 2, 1, 4), angles[0]), solution(torch.randn(1, 5, 6, 10), angles[1])]
    if exercise == "rotate_piece":
        pieces = (3, 2, 4, 10, 9), (1, 5, 1, 4, 0), (2, 3, 7, 8, 7), (4, 2, 1, 6, 100)
        return [part for *sizes, n_cached in pieces
                for part in solution(*(torch.randn(sizes) for _ in range(3)), torch.rand(sizes[-1] // 2), n_cached)]
    if exercise == "slopes":
        return [solution(n_heads) for n_heads in (48, 50, 61, 100, 128)]
    if exercise == "to_halves":
        return [solution(torch.randn(H * E, D), H) for H, E, D in ((4, 10, 3), (1, 2, 7), (5, 4, 30))]
    if exercise in ("feed_forward", "swiglu", "prune"):
        layers = [(torch.randn(F, D), torch.randn(F, D), torch.randn(D, F)) for D, F in ((5, 9), (7, 2))]
        if exercise == "prune":
            kept = tensor([True, False, False, True, True, False, True, False, True]), tensor([False, True])
            found = [solution(*layer, keep) for layer, keep in zip(layers, kept, strict=True)]
            sizes = [[matrix.shape for matrix in new] for new in found]
            return [*sizes, *(feedforward.museum.solutions["swiglu"][0](torch.randn(3, new[0].shape[1]), *new) for new in found)]
        inputs = [torch.randn(3, 4, 5), 30 * torch.randn(6, 7)]
        return [solution(x, *layer[exercise == "feed_forward":]) for x, layer in zip(inputs, layers, strict=True)]
    if exercise == "rms_norm":
        return [solution(factor * torch.randn(*shape), torch.randn(shape[-1]), eps)
                for *shape, factor, eps in ((3, 5, 7, 1, 0.3), (4, 6, 0.01, 1e-5), (9, 2, 0))]
    if exercise == "block":
        def parts(D): return [nn.Linear(D, D), lambda x: x.sin(), lambda x: x.cumsum(-2) / 5, lambda x: x.exp() / 9]
        with torch.no_grad():
            return [solution(torch.randn(*shape), *parts(shape[-1])) for shape in ((3, 5, 7), (4, 6))]
    if exercise == "fold_norm":
        return [solution(torch.randn(D), torch.randn(n_out, D)) for n_out, D in ((4, 9), (8, 3), (5, 5))]
    if exercise in ("cross_entropy", "gradient"):
        found = []
        for N, V, factor, asked in ((6, 9, 1, 0.5), (5, 150, 3, 0.8), (8, 2, 3000, 0.7), (3, 4, 1, 0.0), (1, 6, 1, 1.0)):
            targets = torch.randint(V, (N,)).where(torch.rand(N) < asked, -100)
            logits = factor * torch.randn(N, V)
            found.append(solution(logits.double() if asked else logits, targets))
        return found
    if exercise == "make_targets":
        return [solution(torch.randint(9, (B, T)), torch.rand(B, T) < 0.5) for B, T in ((1, 1), (2, 11), (7, 3), (3, 3))]
    if exercise == "log_sum_exp":
        found = []
        for N, widths, factor, kept in ((4, (3, 9, 2), 1, 0.7), (1, (1, 1, 1, 1, 1), 4000, 1.0), (6, (2, 2, 2), 1, 0.3),
                                        (2, (8,), 9, 1.0)):
            pieces = [(factor * torch.randn(N, width)).where(torch.rand(N, width) < kept, -torch.inf) for width in widths]
            found.append(solution(piece.double() for piece in pieces))
        return found
    if exercise == "perplexity":
        batches = [((1.5, 0.25, 2.0), (3, 900, 41)), ((math.nan, 3.0, math.nan, 0.0), (0, 2, 0, 5)), ((9.0,), (1,)),
                   ((5e3, 0.0), (1, 1))]
        return [solution(tensor(losses), tensor(n_tokens)) for losses, n_tokens in batches]
    if exercise == "bits_per_byte":
        texts = (3, "grün \u00a0 e\u0301"), (1, "~"), (7, "\t\U0001f3fd→ 1\n"), (20, "und so weiter, und so fort")
        return [solution(3 * torch.rand(n_tokens), text) for n_tokens, text in texts]
    if exercise == "top_k":
        found = []
        for N, V, k, asked in ((11, 6, 2, 0.7), (4, 140, 45, 0.9), (25, 5, 5, 0.5), (8, 2, 1, 1.0), (3, 4, 2, 0.0)):
            targets = torch.randint(V, (N,)).where(torch.rand(N) < asked, -100)
            found.append(solution(3 * torch.randn(N, V), targets, k))
        return found
    if exercise == "calibration_error":
        answers = [(torch.rand(N), torch.rand(N) < 0.6, n_bins) for N, n_bins in ((30, 4), (8, 13), (1, 3), (70, 1))]
        answers += [(tensor([0.0, 0.5, 1.0, 0.99, 0.25]), tensor([False, True, True, False, True]), n_bins) for n_bins in (2, 16)]
        return [solution(*answer) for answer in answers]
    if exercise == "adamw":
        found = []
        for sizes, step, *settings in (((4,), 1, 0.3, (0.7, 0.85), 0.2, 0.4), ((2, 3), 11, 0.1, (0.95, 0.5), 1e-4, 0.0),
                                       ((), 2, 0.01, (0.0, 0.99), 3.0, 0.9)):
            mean = torch.randn(sizes, dtype=torch.float64) if step > 1 else torch.zeros(sizes, dtype=torch.float64)
            weight, gradient = torch.randn(2, *sizes, dtype=torch.float64)
            found += solution(weight, gradient, mean, mean.square() * 1.3, step, *settings)
        return found
    if exercise == "what_decays":
        models = [nn.TransformerEncoderLayer(8, 2, 12), nn.Sequential(nn.Conv1d(2, 3, 5), nn.BatchNorm1d(3), nn.Linear(3, 1)),
                  nn.Bilinear(2, 3, 4), nn.ParameterList([torch.ones(2, 2), torch.ones(3)])]
        models[0].linear1.requires_grad_(False)
        return [sorted(solution(model)) for model in models]
    if exercise == "rates":
        sizes = (3, 7, 4, 0.02, 0.001), (1, 12, 0, 5.0, 1.0), (2, 2, 3, 1.0, 0.0), (5, 1, 5, 7.0, 3.0), (1, 2, 1, 0.5, 0.25)
        return [torch.as_tensor(solution(*each), dtype=torch.float64) for each in sizes]
    if exercise == "orthogonalize":
        matrices = torch.randn(6, 4), 300 * torch.randn(2, 8), torch.randn(5, 1) @ torch.randn(1, 5), torch.zeros(3, 2)
        return [solution(matrix.double(), coefficients, n_steps) for matrix in matrices
                for coefficients, n_steps in (((1.2, 0.3, -0.4), 2), ((3.4445, -4.7750, 2.0315), 5))]
    if exercise == "count_parameters":
        models = (17, 10, 3, 5, 1, 6, True), (19, 12, 4, 6, 2, 50, False), (23, 8, 1, 4, 4, 9, False)
        return [solution(*sizes) for sizes in models]
    if exercise == "transformer":
        found = []
        for B, T, factor, *sizes in ((2, 7, 1, 9, 10, 3, 5, 2, 12), (5, 3, 1e-3, 6, 4, 8, 7, 4, 6)):
            model = transformer.make_weights(*sizes, seed=3)
            model.embedding, model.positions = factor * model.embedding, factor * model.positions
            found.append(solution(torch.randint(sizes[0], (B, T)), model))
        return found
    if exercise == "induction_score":
        texts = (4, 11, 3), (2, 8, 7), (5, 6, 1), (1, 20, 9)
        return [solution(torch.randn(H, T, T).softmax(-1), period) for H, T, period in texts]
    if exercise == "merge":
        lists = [3, 7], [7, 3, 7, 7], [3, 3, 7, 3, 7, 3], [5]
        return [solution(ids, (3, 7), 400) for ids in lists] + [solution([6] * 5, (6, 6), 9)]
    if exercise == "learn":
        words = {b"banana": 2, b"bandana": 1, b"nab": 3, b"": 4}
        return [solution(dict(words), n) for n in (1, 4, 30)]
    if exercise == "encode":
        merges = [(97, 110), (98, 256), (256, 97), (257, 97), (110, 258)]
        return [solution(word, merges) for word in (b"banana", b"an", b"nananan", b"x", b"bnba")]
    if exercise == "stream":
        byte_by_byte = [[bytes([byte]) for byte in text.encode()] for text in ("aß漢", "", "🙂🙂x")]
        return [solution(pieces) for pieces in (*byte_by_byte, [b"\xc3", b"", b"\x9fx"])]
    if exercise == "softmax":
        return [solution(x) for x in (torch.randn(3, 7), torch.randn(2, 3, 2, 5), 1e4 * torch.randn(4, 6), torch.randn(9))]
    if exercise == "attention":
        return [solution(query.clone(), key.clone(), value.clone(), *more) for more in ((), (mask.clone(),))]
    if exercise == "causal_mask":
        return [solution(t, s) for t, s in ((1, 1), (6, 6), (2, 9), (11, 13))]
    if exercise == "document_mask":
        return [solution(tensor(numbers)) for numbers in ([5], [2, 2, 2, 9], [0, 0, 4, 4, 4, 1, 3, 3], [-7, 3, 3, 3, 3, 8, 8])]
    if exercise == "prefix_mask":
        return [solution(n, t) for n, t in ((0, 1), (6, 6), (2, 9), (7, 11), (1, 8))]
    if exercise == "grouped_query":
        return [solution(query.clone(), key[:, :k].clone(), value[:, :k].clone()) for k in (1, K, H)]
    module = solution(H * E, H, 0.2).eval()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape) / 4
    x, causal = torch.randn(B, T, H * E), torch.ones(T, T, dtype=torch.bool).tril()
    with torch.no_grad():
        found = [module(x), module(x, causal), module(x, causal & (torch.rand(B, T, T) < 0.7) | torch.eye(T, dtype=torch.bool))]
        torch.manual_seed(12)
        return [*found, module.train()(x)]


def alike(got: object, right: object) -> bool:
    "Whether two results are the same, numbers of a tensor nearly."
    if isinstance(got, torch.Tensor) and isinstance(right, torch.Tensor):
        return got.dtype == right.dtype and torch.allclose(got, right, atol=1e-6, equal_nan=True)
    if isinstance(got, float) and isinstance(right, float):
        return math.isclose(got, right, rel_tol=1e-6, abs_tol=1e-6) or (math.isnan(got) and math.isnan(right))
    return got == right


def made(source: str) -> Callable | None:
    "The last thing that a program defines, as from a learner's notebook."
    names: dict = {"torch": torch, "nn": nn, "math": math, "F": F}
    try:
        exec(compile(source, "/learner/notebook.py", "exec"), names)
    except (SyntaxError, NameError, TypeError):
        return None
    return list(names.values())[-1]


@pytest.mark.parametrize(("exercise", "source"), zip(RIGHT[::2], RIGHT[1::2], strict=True))
def test_every_small_change_is_caught_or_changes_nothing(exercise: str, source: str):
    museum = MUSEUM[exercise]
    assert museum.mistake(exercise, made(source)) is None
    found = Counter()
    for change, text in mutants(source):
        solution = made(text)
        if solution is None:
            continue
        message = museum.mistake(exercise, solution)
        if message is None:
            for got, right in zip(behaviour(exercise, solution), behaviour(exercise, made(source)), strict=True):
                assert alike(got, right), change
        found["told" if message else "the same"] += 1
    assert found["told"] > 8 and found["the same"] < 0.15 * found["told"] + 3


def test_there_are_many_small_changes():
    assert sum(made(text) is not None for source in RIGHT[1::2] for _, text in mutants(source)) > 300


TWICE = Museum("twice")


@TWICE.right("twice")
def add(x): return x + x


@TWICE.test("twice")
def of_two(twice): expect("twice (1, 2)", twice(tensor([1.0, 2.0])), tensor([2.0, 4.0]))


TWICE.hint("twice", "a sum")


class Doubler:
    def __call__(self, x): return 2 * x


@pytest.mark.parametrize("solution", [Doubler(), functools.partial(torch.mul, tensor(2.0)), lambda x: 2 * x])
def test_whatever_can_be_called_is_a_solution(solution: Callable, capsys: pytest.CaptureFixture):
    TWICE.check("twice", solution)
    assert capsys.readouterr().out.startswith("✓ twice: right.")
    assert TWICE.first_right("twice", solution) is solution


def never_ends(x):
    while True:
        pass


def leaves(x): sys.exit(3)


def draws(x):
    torch.manual_seed(5)
    return 2 * x + 0 * torch.rand(2)


def stops_inside(x):
    return list(map(lambda number: number / 0, [1]))


@functools.lru_cache
def stops_behind_a_decorator(x):
    return undefined_name   # noqa: F821


def not_written(x):
    "Twice x."
    raise NotImplementedError


def written_and_not_done(x):
    y = x + x
    if y.sum() > 0:
        raise NotImplementedError("the rest")
    return y


@pytest.mark.parametrize(("solution", "words"), [
    (never_ends, "Is there a loop that never ends?"), (leaves, "ends Python"), (stops_inside, "number / 0"),
    (stops_behind_a_decorator, "your line `return undefined_name   # noqa: F821` stops with NameError"),
    (lambda: 1, "compare its first line"),
    (lambda x: None, "Is there a `return`?"), (lambda x: [1, 2], "a list of 2"), (lambda x: 3.0, "of type float"),
    (written_and_not_done, "stops with NotImplementedError"), (lambda x: 2 * x + 1, "off by 1"), (lambda x: x, "0.5 times"),
    (lambda x: (2 * x).flip(0), "in another order"), (lambda x: x / 0 * 0, "NaN"), (lambda x: 2 * x[None], "in another shape"),
    (lambda x: 2.0001 * x, "should be 2 at [0], yours is 2.0001")])
def test_nothing_hangs_or_crashes_and_everything_is_told(solution: Callable, words: str):
    assert words in TWICE.mistake("twice", solution)


def test_only_an_untouched_stub_is_not_written_yet(capsys: pytest.CaptureFixture):
    TWICE.check("twice", not_written)
    assert capsys.readouterr().out.startswith("○ twice: not written yet")
    assert read_progress() == {}


def test_the_dice_are_put_back():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert complaint(of_two, draws) is None
    assert torch.equal(torch.rand(3), expected)


def test_the_order_of_arguments_does_not_matter_and_help_comes_after_three_tries(capsys: pytest.CaptureFixture):
    for _ in range(3):
        assert "Hint" not in capsys.readouterr().out
        TWICE.check(lambda x: x, "twice")
    assert "Hint: a sum" in capsys.readouterr().out
    assert read_progress()["twice/twice"].tries == 3


def interrupted(x): raise KeyboardInterrupt


def test_who_interrupts_is_not_counted(capsys: pytest.CaptureFixture):
    TWICE.check("twice", interrupted)
    assert "interrupted" in capsys.readouterr().out and read_progress() == {}


def test_a_right_answer_says_how_far_one_is(capsys: pytest.CaptureFixture):
    attention.museum.check("softmax", lambda x: torch.softmax(x, -1))
    assert "Exercises: 1 of 7, next: attention." in capsys.readouterr().out
    attention.museum.check("causal_mask", lambda n_queries, n_keys: None)
    capsys.readouterr()
    progress()
    lines = capsys.readouterr().out.splitlines()
    assert ("lesson  7  ✓ softmax, ○ attention, ✗ causal_mask, ○ multi_head, ○ grouped_query, ○ document_mask, "
            "○ prefix_mask") in lines
    assert [int(line.split()[1]) for line in lines[:-1]] == sorted(int(line.split()[1]) for line in lines[:-1])
    assert lines[-1].startswith("1 of ")
