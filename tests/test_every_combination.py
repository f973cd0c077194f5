"""Every choice of parts works with every other: it learns, writes the same with a cache, saves and loads."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from geminiq.generation.cache import KVCache
from geminiq.models.attention import ATTENTIONS, record_attention
from geminiq.models.embeddings import POSITIONS
from geminiq.models.feedforward import FEED_FORWARDS
from geminiq.models.transformer import Transformer
from geminiq.models.transformer_block import NORMS
from geminiq.training.losses import cross_entropy_loss
from geminiq.training.optimizer import configure_optimizer
from geminiq.utils.checkpointing import load_checkpoint, save_checkpoint
from geminiq.utils.config import Config
from geminiq.utils.device import make_generator
from helpers import tiny_model, tiny_tokenizer

VOCAB, LENGTH = 290, 24
PARTS = {"attention_type": list(ATTENTIONS), "pos_encoding": list(POSITIONS), "norm_type": list(NORMS),
         "ffn_type": list(FEED_FORWARDS), "use_moe": [False, True]}
REFINEMENTS = [{"norm_placement": "post"}, {"norm_placement": "sandwich"}, {"qk_norm": True}, {"attention_scale": 0.3},
               {"final_logit_softcapping": 0.5, "scale_embeddings": True}, {"activation": "relu"},
               {"attention_bias": True}, {"ffn_bias": True},
               {"layers": ({"attention_type": "sliding_window", "rope_base": 100.0}, {})},
               {"layers": ({}, {"use_moe": True, "d_ff": 8, "n_kv_heads": 1, "pos_encoding": "none"})}]
REFINED = [{"attention_type": attention, **refinement} for attention, refinement in product(ATTENTIONS, REFINEMENTS)
           if not ("layers" in refinement and attention == "standard")]
REFINED += [{"attention_type": attention, "attn_logit_softcapping": 0.05} for attention in ("standard", "gqa", "sliding_window")]


def combinations() -> Iterator[object]:
    "All of them; quick are those of every attention with every position, where the other parts take turns."
    for places in product(*(range(len(parts)) for parts in PARTS.values())):
        attention, position, norm, feed_forward, experts = places
        in_turn = (norm == (attention + position) % len(NORMS) and experts == (attention + position) % 2
                   and feed_forward == (attention + 2 * position) % len(FEED_FORWARDS))
        choices = {key: parts[place] for (key, parts), place in zip(PARTS.items(), places, strict=True)}
        yield pytest.param(choices, marks=[] if in_turn else pytest.mark.slow)


def small(**choices: str | bool) -> Transformer:
    "A tiny model with these parts; heads share keys where the attention lets them."
    shared = 4 if choices.get("attention_type") == "standard" else 2
    return tiny_model(vocab_size=VOCAB, max_seq_len=LENGTH, n_kv_heads=shared, **choices)


def batch(seed: int = 0) -> torch.Tensor:
    "Three random texts."
    return torch.randint(VOCAB, (3, LENGTH), generator=make_generator(seed))


@pytest.mark.parametrize("choices", [*combinations(), *REFINED],
                         ids=lambda choices: "-".join(str(value) for value in choices.values()))
def test_one_step_lowers_the_loss_and_the_cache_changes_nothing(choices: dict, tmp_path: Path):
    model, tokens = small(**choices), batch()
    attention_mask = torch.arange(LENGTH) >= torch.tensor([0, 3, 9])[:, None]

    def loss() -> torch.Tensor:
        return cross_entropy_loss(model(tokens[:, :-1], attention_mask[:, :-1]), tokens[:, 1:])

    before = loss()
    before.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    configure_optimizer(model, 1e-3).step()
    assert loss() < before

    model.requires_grad_(False)
    whole, cache, start, pieces = model(tokens, attention_mask), KVCache(model), 0, []
    for size in (11, 1, 1, 7, 4):
        end = start + size
        pieces.append(model(tokens[:, start:end], attention_mask[:, :end], cache))
        start = end
    assert_close(torch.cat(pieces, dim=1)[attention_mask], whole[attention_mask], atol=1e-12, rtol=0)
    assert_close(model(tokens[2:, 9:]), whole[2:, 9:], atol=1e-12, rtol=0)     # company changes nothing

    folder = save_checkpoint(tmp_path / "step-000001", model.float(), Config(model=model.config), tiny_tokenizer(VOCAB))
    assert torch.equal(load_checkpoint(folder).model.double()(tokens, attention_mask), model.double()(tokens, attention_mask))


@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if name != "standard"])
def test_the_weights_that_are_drawn_are_those_that_are_used(attention: str):
    "Causal, and what the layer with its table answers is what it answers without."
    model, tokens = small(attention_type=attention).requires_grad_(False), batch()
    with record_attention(model) as weights:
        logits = model(tokens)
    assert_close(logits, model(tokens), atol=1e-12, rtol=0)
    assert [layer.shape for layer in weights] == [(3, 4, LENGTH, LENGTH)] * 2
    assert not any(layer.triu(1).any() for layer in weights)


@pytest.mark.parametrize("choices", [choices for choices in REFINED if choices["attention_type"] == "gqa"], ids=str)
def test_a_refinement_is_not_without_effect(choices: dict):
    "The same weights, where there are any, predict something else."
    plain, refined = (small(**which).requires_grad_(False) for which in ({"attention_type": "gqa"}, choices))
    for name, parameter in refined.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.5, generator=make_generator(1))
    refined.load_state_dict({name: weight for name, weight in plain.state_dict().items()
                             if name in refined.state_dict() and refined.state_dict()[name].shape == weight.shape}, strict=False)
    assert (refined(batch()) - plain(batch())).abs().max() > 1e-6
