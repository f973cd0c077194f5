"""Any numbers for sampling and beams: a text, or a refusal in a line that names the number."""

import math
import random
from collections.abc import Callable

import pytest
import torch
from harness import n_cases, run_case

from geminiq.generation.beam_search import beam_search
from geminiq.generation.generate import generate
from geminiq.generation.sampling import Sampling, draw, min_p, repetition_penalty, temperature, top_k, top_p
from geminiq.models.transformer import Transformer
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import UserError, make_generator

EDGES = [0, -0.0, 1, -1, 0.5, 2, 1e-45, 5e-324, 1e-320, 1e-300, 1e-38, 1.2e-38, 1e-9, 0.1, 0.9, 0.9999999, 1 - 1e-16, 1 + 1e-9,
         99.9, 1e9, 3e38, 3.5e38, 1e300, 1.7e308, math.inf, -math.inf, math.nan, 10**30, 2**63, -2**63, 2**31, True, False]
LOGITS = [0.0, 1.0, -1.0, 1e-45, 1e30, -1e30, -math.inf, 88.0, 1e-7]
V = 7


def any_number(chance: random.Random) -> float:
    "One at the edge of something, or any."
    anywhere = math.ldexp(chance.uniform(-1, 1), chance.randint(-1080, 1023))
    return chance.choice([chance.choice(EDGES), anywhere, chance.uniform(0, 2)])


def any_logits(chance: random.Random) -> torch.Tensor:
    "Scores of V tokens in three rows, of which at least one is possible."
    kind = chance.choice([torch.float32, torch.float64, torch.bfloat16])
    rows = [[chance.choice([chance.choice(LOGITS), chance.gauss(0, 5)]) for _ in range(V)] for _ in range(3)]
    for row in rows:
        row[chance.randrange(V)] = chance.gauss(0, 5)
    return torch.tensor(rows, dtype=kind)


def sampled(seed: int) -> Callable[[], None]:
    "A draw with a few of the tools, of tokens that are possible."
    def case() -> None:
        chance = random.Random(seed)
        names = chance.sample(["temperature", "top_k", "top_p", "min_p", "repetition_penalty"], chance.randint(1, 5))
        how = {name: any_number(chance) for name in names}
        logits, tokens = any_logits(chance), torch.randint(V, (3, 4), generator=make_generator(seed))
        try:
            sampling = Sampling(**how)
        except UserError as error:
            assert any(str(error).startswith(f"{name} {value}:") for name, value in how.items()), error
            raise
        changed = sampling.change(logits, tokens)
        assert not changed.isnan().any() and (changed > -math.inf).any(-1).all()
        chosen = sampling(logits, make_generator(seed), tokens)
        assert (changed.gather(1, chosen[:, None]) > -math.inf).all() and (logits.gather(1, chosen[:, None]) > -math.inf).all()
    return case


def one_tool(seed: int) -> Callable[[], None]:
    "A tool alone: what it keeps can be drawn, and it keeps the likeliest."
    def case() -> None:
        chance = random.Random(seed)
        logits, number = any_logits(chance).float(), any_number(chance)
        tool = chance.choice([temperature, top_k, top_p, min_p, repetition_penalty])
        more = (torch.zeros(3, 1, dtype=torch.long),) if tool is repetition_penalty else ()
        changed = tool(logits, *more, number)
        assert changed.shape == logits.shape and not changed.isnan().any()
        assert not changed.softmax(-1).isnan().any() and draw(changed, make_generator(0)).max() < V
        if tool is not repetition_penalty:
            assert (logits.gather(1, changed.argmax(-1, keepdim=True)) == logits.amax(-1, keepdim=True)).all()
    return case


def written(seed: int) -> Callable[[], None]:
    "A text, or several by beams, from a whole model."
    def case() -> None:
        chance = random.Random(seed)
        model = Transformer(ModelConfig(vocab_size=V, max_seq_len=16, d_model=8, n_layers=1, n_heads=2))
        whole = [value for value in EDGES if isinstance(value, int)]
        prompt, n = torch.zeros(chance.randint(0, 2), chance.randint(0, 17), dtype=torch.long), chance.choice([*whole, 3, 4, 5])
        if chance.random() < 0.5:
            assert generate(model, prompt, n, sampling=Sampling(temperature=any_number(chance))).shape == (len(prompt), n)
        else:
            found = beam_search(model, prompt, n, chance.choice([0, 1, 2, 4, -1]), any_number(chance) * chance.choice([1, -1]),
                                chance.choice([True, False, "never", "sometimes"]), chance.choice([0, 1, 2]))
            assert all(math.isfinite(one.score) for text in found for one in text)
    return case


BLOCK = 50   # cases in one process


def block(kind: Callable[[int], Callable[[], None]], first: int) -> Callable[[], None]:
    "Several cases in turn, of which some must be right and some refused."
    def cases() -> None:
        refused = 0
        for seed in range(first, first + BLOCK):
            try:
                kind(seed)()
            except UserError as error:
                refused += 1
                assert str(error).isprintable() and len(str(error)) < 300, (seed, error)
            except Exception as error:
                raise AssertionError(f"{kind.__name__}({seed})") from error
        assert 0 < refused < BLOCK
    return cases


@pytest.mark.parametrize(("kind", "n"), [(sampled, 10), (one_tool, 10), (written, 6)])
def test_numbers_are_right_or_refused(kind: Callable[[int], Callable[[], None]], n: int) -> None:
    for first in range(0, BLOCK * n_cases(n), BLOCK):
        outcome = run_case(block(kind, first))
        assert outcome.kind == "right", f"{kind.__name__}, cases from {first}: {outcome.text}"
