"""The draw is exact, the cuts are where arithmetic with fractions puts them, and chances are not shared."""

import re
from fractions import Fraction
from math import inf, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from geminiq.generation.cache import next_token_logits
from geminiq.generation.generate import generate, stream, stream_text
from geminiq.generation.sampling import Sampling, draw, min_p, repetition_penalty, temperature, top_k, top_p
from geminiq.utils.device import UserError, make_generator
from helpers import tiny_model, tiny_tokenizer

SHARES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


# The draw

@pytest.mark.parametrize("shares", [[5, 3, 1, 1], [1] * 40, [1000, 1, 0, 7, 0], [0, 0, 1, 2, 0]])
def test_tokens_are_drawn_as_often_as_they_are_likely(shares: list[int]) -> None:
    "Chi-square of 40 000 rows, five standard deviations; what has no probability never comes."
    n, probabilities = 40_000, torch.tensor(shares, dtype=torch.float64) / sum(shares)
    counts = draw(probabilities.log().float().expand(n, -1), make_generator(0)).bincount(minlength=len(shares))
    assert not counts[probabilities == 0].any()
    expected = (n * probabilities)[probabilities > 0]
    freedom = len(expected) - 1
    chi_square = ((counts[probabilities > 0] - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 5 * sqrt(2 * freedom)


def test_rows_and_steps_have_chances_of_their_own() -> None:
    "Of two rows, or two draws in turn, a pair comes as often as its parts together."
    logits, generator, n = torch.zeros(2, 4), make_generator(0), 20_000
    drawn = torch.stack([draw(logits, generator) for _ in range(n)])   # (n, 2)
    for first, second in ((drawn[:, 0], drawn[:, 1]), (drawn[:-1, 0], drawn[1:, 0]), (drawn[:-1, 1], drawn[1:, 0])):
        pairs = (4 * first + second).bincount(minlength=16)
        chi_square = ((pairs - len(first) / 16) ** 2 / (len(first) / 16)).sum()
        assert abs(chi_square - 15) < 5 * sqrt(2 * 15)


@given(shares=SHARES, seed=st.integers(0, 2**32 - 1))
def test_a_draw_is_one_random_number_pointed_at_the_probabilities(shares: list[int], seed: int) -> None:
    u = torch.rand(1, 1, generator=make_generator(seed), dtype=torch.float64).item()
    ends = [sum(shares[:i + 1]) / sum(shares) for i in range(len(shares))]
    logits = torch.tensor([shares], dtype=torch.float64).log()
    assert draw(logits, make_generator(seed)).item() == next(i for i, end in enumerate(ends) if end > u)


def test_a_large_vocabulary_is_drawn_to_its_end() -> None:
    "Among 65 536 tokens, equally likely, a quarter of the draws comes from each quarter."
    drawn = Sampling(top_p=1.0)(torch.zeros(1, 2**16).expand(400, -1), make_generator(0))
    assert (drawn // 2**14).bincount(minlength=4).min() > 100 - 5 * sqrt(75)


def test_prompts_after_which_all_may_come_begin_differently() -> None:
    "With nothing said about chances: thirty nearly equal distributions, and no token comes too often."
    model, spoken = tiny_model(), tiny_tokenizer()
    prompts = [torch.tensor([[a, b, a]]) for a in range(6) for b in range(5)]
    chances = torch.stack([next_token_logits(model, prompt).detach().softmax(-1)[0] for prompt in prompts])
    assert (chances - chances.mean(0)).abs().max() < 0.02                     # all alike, for each prompt
    first = torch.stack([generate(model, prompt, 1)[0, 0] for prompt in prompts])
    assert first.bincount().max() <= 6 and len(first.unique()) > 12           # of 31 tokens
    assert torch.equal(first, torch.stack([generate(model, prompt, 1)[0, 0] for prompt in prompts]))
    writer = tiny_model(vocab_size=290)
    assert len({next(stream_text(writer, spoken, f"{word} is", 9)) for word in "abcdefghijklmnopqrst"}) > 12


# What is cut

@given(shares=SHARES, n_kept=st.integers(1, 12), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_top_p_keeps_the_smallest_set_that_is_enough(shares: list[int], n_kept: int, dtype: torch.dtype) -> None:
    "By fractions, with p a sum that some of the likeliest have together, exactly."
    likeliest = sorted(shares, reverse=True)
    p = Fraction(sum(likeliest[:n_kept]), sum(shares))
    right = next(n for n in range(1, len(shares) + 1) if Fraction(sum(likeliest[:n]), sum(shares)) >= p)
    assert top_p(torch.tensor([shares], dtype=dtype).log(), float(p)).isfinite().sum() == right


@pytest.mark.parametrize("size", [1, 7, 32_000, 2**18])
def test_top_p_of_1_keeps_all(size: int) -> None:
    logits = torch.randn(2, size, generator=make_generator(0)) * 5
    assert torch.equal(top_p(logits, 1.0), logits)


@given(scores=st.lists(st.floats(-2.0**100, 2.0**100, width=32), min_size=1, max_size=9),
       value=st.floats(0, 1.7e308, exclude_min=True))
def test_any_temperature_divides(scores: list[float], value: float) -> None:
    "The quotient itself, wherever 32 bits can hold it; and always chances that sum to one."
    logits = torch.tensor([scores])
    changed = temperature(logits, value)
    if 1e-37 < value < 3e38 and (logits.double() / value).abs().max() < 3e38:
        assert torch.equal(changed, logits / value)
    assert_close(changed.softmax(-1).sum(-1), torch.ones(1))
    assert (changed.argmax(-1) == logits.argmax(-1)) or changed.softmax(-1).max() < 1


WRONG = [(temperature, [0, -1.0, inf, float("nan")]), (top_k, [0, -1, 2.5, float("nan")]),
         (top_p, [0, 0.0, -0.1, 1.01, inf, float("nan")]), (min_p, [-0.1, 1.01, inf, float("nan")]),
         (repetition_penalty, [0, -1.0, 1e-45, 1e45, inf, float("nan")])]


@pytest.mark.parametrize(("tool", "value"), [(tool, value) for tool, values in WRONG for value in values])
def test_a_number_no_tool_can_work_with_is_refused_by_the_tool_and_by_sampling(tool: object, value: float) -> None:
    more = (torch.zeros(1, 1, dtype=torch.long),) if tool is repetition_penalty else ()
    with pytest.raises(UserError, match=re.escape(f"{tool.__name__} {value}:")):
        tool(torch.zeros(1, 3), *more, value)
    if (tool, value) != (temperature, 0):   # which means the likeliest
        with pytest.raises(UserError, match=re.escape(f"{tool.__name__} {value}:")):
            Sampling(**{tool.__name__: value})


# What is asked of `stream`

@pytest.mark.parametrize(("tokens", "how", "named"), [
    (torch.zeros(1, 3, dtype=torch.long), {"max_tokens": -3}, "max_tokens -3"),
    (torch.zeros(1, 3, dtype=torch.long), {"max_tokens": 22}, "at most 21"),
    (torch.zeros(1, 24, dtype=torch.long), {"max_tokens": 1}, "leaves no room"),
    (torch.zeros(3, dtype=torch.long), {"max_tokens": 1}, r"\(3,\)"),
    (torch.zeros(1, 0, dtype=torch.long), {"max_tokens": 1}, r"\(1, 0\)"),
    (torch.zeros(1, 3, dtype=torch.long), {"max_tokens": 1, "attention_mask": torch.ones(1, 2, dtype=torch.bool)}, r"\(1, 2\)"),
])
def test_what_cannot_be_continued_is_refused_at_the_call(tokens: torch.Tensor, how: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        stream(tiny_model(), tokens, **how)   # nothing has been asked of it yet


def test_between_tokens_a_model_is_as_it_was() -> None:
    "In training, except for a part that its owner put into evaluation mode; and no dropout in what is written."
    model, prompt = tiny_model(dropout=0.5), torch.tensor([[1, 2, 3]])
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    steps, written = stream(model, prompt, 8), []
    for step in steps:
        written.append(step.item())
        assert [module.training for module in model.modules()] == modes
        assert torch.is_grad_enabled()
    assert len(written) == 8 and written == generate(model.eval(), prompt, 8)[0].tolist()
