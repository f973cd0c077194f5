"""Scenes: drawn right, described right, asked about without betraying the answer, and disjoint for training and test."""

import re
from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geminiq.data.scenes import (
    COLOURS,
    KINDS,
    NUMBER_WORDS,
    PLACES,
    SHAPES,
    UNKNOWN,
    Scenes,
    VisualQuestions,
    colour_shape_pairs,
    render,
    sample_questions,
    sample_scenes,
    write_captions,
)
from geminiq.utils.device import make_generator

HELD_OUT = {f"{list(COLOURS)[colour]} {list(SHAPES)[shape]}" for colour, shape in colour_shape_pairs(held_out=True).tolist()}


def things(scenes: Scenes, i: int) -> list[tuple[str, ...]]:
    "What each cell of a scene holds, in words; an empty one nothing."
    return [(list(COLOURS)[colour], list(SHAPES)[shape]) if shape >= 0 else ()
            for colour, shape in zip(scenes.colour[i].tolist(), scenes.shape[i].tolist(), strict=True)]


def look(scenes: Scenes, i: int, question: str) -> str:
    "The answer to a question, from its words and the grid alone."
    grid, words = things(scenes, i), set(re.findall(r"\w+", question))
    asked = {word for word in [*COLOURS, *SHAPES] if words & {word, f"{word}s", f"{word}es"}}
    cells = [cell for cell, held in enumerate(grid) if asked and asked <= set(held)]
    if words & {"many", "Count", "number"}:
        return NUMBER_WORDS[len(cells)]
    if "Where" in words:
        return PLACES[cells[0]] if cells else UNKNOWN
    held = grid[next(cell for cell, place in enumerate(PLACES) if place in question)]
    return UNKNOWN if not held else held[0] if "colour" in words else held[1]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 60), held_out=st.booleans())
def test_answers_are_true(seed: int, n: int, held_out: bool) -> None:
    data = sample_questions(n, make_generator(seed), held_out)
    assert [look(data.scenes, i, question) for i, question in enumerate(data.questions)] == data.answers
    assert set(data.kinds) <= set(KINDS)
    assert all((answer == UNKNOWN) == (kind == "unanswerable") for answer, kind in zip(data.answers, data.kinds, strict=True))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 60), both=st.booleans())
def test_captions_are_true_and_complete(seed: int, n: int, both: bool) -> None:
    scenes = sample_scenes(n, make_generator(seed))
    for i, caption in enumerate(write_captions(scenes, make_generator(seed), both)):
        grid = things(scenes, i)
        parts = re.findall(f"({'|'.join(PLACES)}) ([a-z ]+)", caption)
        assert len(parts) == sum(map(bool, grid)) > 0
        for place, words in parts:
            held = grid[PLACES.index(place)]
            assert words == " ".join(held) if both else words in held


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 60))
def test_training_and_test_are_disjoint(seed: int, n: int) -> None:
    "No training scene, caption or question holds or names a held-out combination; each held-out one is about one."
    for train in (sample_scenes(n, make_generator(seed)), (data := sample_questions(n, make_generator(seed))).scenes):
        held = {" ".join(thing) for i in range(n) for thing in things(train, i)}
        assert not held & HELD_OUT
        texts = [*write_captions(train, make_generator(seed)), *data.questions] if train is data.scenes else []
        assert not re.search("|".join(HELD_OUT), " ".join(texts))
    test = sample_questions(n, make_generator(seed), held_out=True)
    for i, (answer, kind) in enumerate(zip(test.answers, test.kinds, strict=True)):
        count = sum(" ".join(thing) in HELD_OUT for thing in things(test.scenes, i))
        assert count == {"count": NUMBER_WORDS.index(answer) if kind == "count" else 0, "unanswerable": 0}.get(kind, 1)
        if kind in ("colour", "shape", "place"):
            assert answer in " ".join(sum((thing for thing in things(test.scenes, i) if " ".join(thing) in HELD_OUT), ())) + \
                " ".join(PLACES)
    scenes = sample_scenes(n, make_generator(seed), held_out=True)
    assert all(sum(" ".join(thing) in HELD_OUT for thing in things(scenes, i)) == 1 for i in range(n))


def test_every_colour_and_every_shape_is_known_but_for_one_combination() -> None:
    seen = {tuple(pair) for pair in colour_shape_pairs(held_out=False).tolist()}
    held_out = {tuple(pair) for pair in colour_shape_pairs(held_out=True).tolist()}
    assert not seen & held_out
    assert seen | held_out == {(colour, shape) for colour in range(len(COLOURS)) for shape in range(len(SHAPES))}
    for i in (0, 1):
        assert set(Counter(pair[i] for pair in held_out).values()) == {1}
    found = {tuple(pair) for pair in torch.stack(sample_scenes(4000, make_generator(0))[:2], dim=-1).flatten(0, 1).tolist()}
    assert found == seen | {(-1, -1)}


def kind_of_words(question: str) -> str:
    "The kind that a question is of, by its words."
    if re.search("many|Count|number", question):
        return "count"
    return "place" if "Where" in question else "colour" if "colour" in question else "shape"


def blind(known: VisualQuestions, data: VisualQuestions) -> dict[str, float]:
    "How often the most frequent answer to the same words is right."
    answers, right = defaultdict(Counter), defaultdict(list)
    for question, answer in zip(known.questions, known.answers, strict=True):
        answers[question][answer] += 1
    for question, answer in zip(data.questions, data.answers, strict=True):
        right[kind_of_words(question)].append(max(answers[question], key=answers[question].get, default="") == answer)
    return {kind: sum(found) / len(found) for kind, found in right.items()}


@pytest.mark.parametrize("held_out", [False, True])
def test_the_words_do_not_betray_the_answer(held_out: bool) -> None:
    "Of 10 000 of a kind, the share of a guesser at chance p is off by 3 √(p(1−p)/10 000), 0.013 at most, hardly ever."
    known, data = (sample_questions(40_000, make_generator(seed), held_out) for seed in (1, 2))
    chance = {"colour": 1 / (len(COLOURS) + 1), "shape": 1 / (len(SHAPES) + 1), "count": 1 / len(NUMBER_WORDS),
              "place": 1 / (len(PLACES) + 1)}
    found = blind(known, data)
    assert found.keys() == chance.keys()
    for kind, share in found.items():
        assert abs(share - chance[kind]) < 0.015, kind
    for kind in chance:      # and all answers are alike
        counts = Counter(answer for question, answer in zip(data.questions, data.answers, strict=True)
                         if kind_of_words(question) == kind)
        assert max(counts.values()) < 1.15 * min(counts.values()), kind


def test_only_the_generator_decides() -> None:
    first, again, other = (sample_questions(200, make_generator(seed)) for seed in (1, 1, 2))
    assert first[1:] == again[1:] and first[1:] != other[1:]
    assert all(torch.equal(a, b) for a, b in zip(first.scenes, again.scenes, strict=True))
    state = torch.get_rng_state()
    scenes = sample_scenes(10, make_generator(0))
    captions = write_captions(scenes, make_generator(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert captions == write_captions(scenes, make_generator(1)) != write_captions(scenes, make_generator(2))
    assert torch.equal(render(scenes), render(scenes))


@pytest.mark.parametrize("cell", [4, 16, 33])
def test_drawn_by_the_pixel(cell: int) -> None:
    "Against a fine grid of points in each pixel: how much of it a shape covers, to within a fifth of a pixel's edge."
    scenes = sample_scenes(300, make_generator(0))
    images, fine = render(scenes, cell), 8
    assert images.shape == (300, 3, 2 * cell, 2 * cell) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    sharp = render(scenes, cell * fine)
    coarse = sharp.unflatten(3, (-1, fine)).unflatten(2, (-1, fine)).mean((3, 5))
    assert (images - coarse).abs().mean() < 0.02
    assert (images - coarse).abs().max() < 0.5


def test_each_object_lies_in_its_cell() -> None:
    "The border of a cell is paper, an empty cell is nothing else."
    scenes = sample_scenes(500, make_generator(0))
    cells = render(scenes, 32).unflatten(3, (2, 32)).unflatten(2, (2, 32))     # (n, 3, row, y, column, x)
    cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)                      # (n, 4, 3, 32, 32)
    ink = (cells - scenes.paper[:, None, :, None, None]).abs().amax(2)         # (n, 4, 32, 32)
    full = scenes.shape >= 0
    assert ink[~full].max() == 0
    assert ink[full].flatten(1).amax(1).min() > 0.2
    inside = ink.clone()
    inside[..., 1:-1, 1:-1] = 0
    margin = 0.04 * 32 - 0.5   # pixels from the highest point of an object to the middle of a pixel at the border
    assert inside.max() < 0.5 - margin / 5**0.5   # above the tip of a triangle the distance to its sides counts
