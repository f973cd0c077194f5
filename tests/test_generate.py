"""Greedy generation writes the same tokens however the prompt is fed, with a cache and without, alone and in company."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geminiq.generation.cache import KVCache
from geminiq.generation.generate import generate, left_pad, lengthen
from geminiq.models.transformer import Transformer
from geminiq.utils.device import UserError, make_generator
from helpers import GREEDY, decisive_model, tiny_model

V, CONTEXT, NEW = 64, 48, 12


def make_model(position: str = "rope", attention: str = "standard", kv: int = 4) -> Transformer:
    "A model that never hesitates between two tokens."
    return decisive_model(1, vocab_size=V, max_seq_len=CONTEXT, n_kv_heads=kv, attention_type=attention, pos_encoding=position)


def greedy_by_hand(model: Transformer, prompts: list[list[int]], sizes: list[int]) -> Tensor:
    "Feed the padded prompts in pieces of the given sizes through a cache, then write greedily."
    tokens, attention_mask = left_pad(prompts)
    cache, start, written = KVCache(model), 0, []
    for size in sizes:
        logits = model(tokens[:, start:start + size], attention_mask[:, :start + size], cache)
        start += size
    assert start == tokens.shape[1]
    for _ in range(NEW):
        written.append(logits[:, -1].argmax(-1))
        attention_mask = torch.cat([attention_mask, torch.ones(len(prompts), 1, dtype=torch.bool)], dim=1)
        logits = model(written[-1][:, None], attention_mask, cache)
    return torch.stack(written, dim=1)


def alone_without_cache(model: Transformer, prompt: list[int]) -> Tensor:
    "The slow and obviously right way: the whole text through the model for every token."
    text = torch.tensor([prompt])
    for _ in range(NEW):
        text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
    return text[0, len(prompt):]


MODELS = [(position, attention, kv) for position in ("rope", "learned", "sinusoidal", "alibi", "none")
          for attention, kv in (("standard", 4), ("gqa", 2), ("gqa", 1))]


@pytest.mark.parametrize("parts", MODELS, ids=lambda parts: "-".join(map(str, parts)))
@pytest.mark.parametrize("batch", [1, 4])
def test_cached_greedy_is_token_for_token_the_same(parts: tuple, batch: int):
    model = make_model(*parts)
    lengths = [9, 3, 14, 1][:batch]
    prompts = [torch.randint(V, (n,), generator=make_generator(n)).tolist() for n in lengths]
    expected = torch.stack([alone_without_cache(model, prompt) for prompt in prompts])
    longest = max(lengths)
    assert len(expected.unique()) > 3   # a text that repeats one token would prove little
    for sizes in ([longest], [4, longest - 4], [1] * longest):
        assert torch.equal(greedy_by_hand(model, prompts, sizes), expected)
    tokens, attention_mask = left_pad(prompts)
    for use_cache in (True, False):
        new = generate(model, tokens, NEW, sampling=GREEDY, attention_mask=attention_mask, use_cache=use_cache)
        assert torch.equal(new, expected)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_prompts_in_any_pieces(data: st.DataObject):
    model = make_model("rope", "gqa", 2)
    prompts = data.draw(st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=12), min_size=1, max_size=5))
    longest, sizes = max(map(len, prompts)), []
    while sum(sizes) < longest:
        sizes.append(data.draw(st.integers(1, longest - sum(sizes))))
    expected = torch.stack([alone_without_cache(model, prompt) for prompt in prompts])
    assert torch.equal(greedy_by_hand(model, prompts, sizes), expected)


def test_a_wrong_cache_would_be_noticed(monkeypatch: pytest.MonkeyPatch):
    model = make_model()
    prompt = torch.randint(V, (9,), generator=make_generator(0)).tolist()
    expected = alone_without_cache(model, prompt)
    monkeypatch.setattr(KVCache, "length", property(lambda self: max(0, self.layers[0].length - 1)))
    with pytest.raises((AssertionError, ValueError)):
        assert torch.equal(greedy_by_hand(model, [prompt], [9])[0], expected)


LENGTHENED = [("rope", "none"), ("rope", "linear"), ("rope", "ntk"), ("rope", "yarn"), ("rope", None), ("alibi", None),
              ("sinusoidal", "none"), ("none", None)]


@pytest.mark.parametrize(("position", "method"), LENGTHENED)
def test_a_lengthened_model_writes_beyond_its_old_length(position: str, method: str | None):
    model, longer = make_model(position), make_model(position)
    prompts = [torch.randint(V, (n,), generator=make_generator(n)).tolist() for n in (60, 20)]
    tokens, attention_mask = left_pad(prompts)
    with pytest.raises(UserError, match="`lengthen`"):
        generate(model, tokens, 1, attention_mask=attention_mask)
    lengthen(longer, 4 * CONTEXT, method)
    assert longer.config.max_seq_len == 4 * CONTEXT
    written = generate(longer, tokens, 2 * NEW, sampling=GREEDY, attention_mask=attention_mask)
    again = generate(longer, tokens, 2 * NEW, sampling=GREEDY, attention_mask=attention_mask, use_cache=False)
    assert torch.equal(written, again)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), longer.parameters(), strict=True))
    short = tokens[:, :CONTEXT]
    if method == "none" or position != "rope":   # positions go on: what was read before is read as before
        assert torch.equal(longer(short), model(short))
    else:
        assert not torch.allclose(longer(short), model(short))


def test_layers_that_scale_their_own_angles_keep_them():
    own = {"attention_type": "sliding_window", "sliding_window": 4, "rope_base": 100.0, "rope_scaling": None}
    model, unchanged = (tiny_model(max_seq_len=CONTEXT, layers=(own, {})) for _ in range(2))
    lengthen(model, 2 * CONTEXT, "linear")
    assert model.config.layer(0).rope_scaling is None and model.config.layer(1).rope_scaling.factor == 2
    positions = torch.arange(5)[None]
    near, far = (part.rotation(positions, torch.float32).cos for part in model.layer_positions)
    before = [part.rotation(positions, torch.float32).cos for part in unchanged.layer_positions]
    assert torch.equal(near, before[0]) and not torch.allclose(far, before[1])


@pytest.mark.parametrize(("position", "changes", "named"), [
    ("learned", {}, "pos_encoding learned has learned 48 positions"),
    ("alibi", {"method": "yarn"}, "pos_encoding alibi has none: use the method none"),
    ("rope", {"method": "yarns"}, "did you mean yarn"),
    ("rope", {"max_seq_len": 40}, "max_seq_len 40 is less than the model's 48"),
])
def test_what_cannot_be_lengthened_is_refused(position: str, changes: dict, named: str):
    model = make_model(position)
    before = model.config
    with pytest.raises(UserError, match=named):
        lengthen(model, **{"max_seq_len": 96} | changes)
    assert model.config is before


def test_angles_are_not_slowed_twice():
    model = make_model()
    lengthen(model, 96, "linear")
    with pytest.raises(UserError, match=r"slowed already \(linear, by a factor of 2\)"):
        lengthen(model, 192, "yarn")
    lengthen(model, 192, "none")
    assert model.config.max_seq_len == 192 and model.config.rope_scaling.factor == 2
