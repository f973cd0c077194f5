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
from geminiq.utils.config import _SAME_IN_ALL_LAYERS, Config, ModelConfig, make_config
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


# What a layer says of itself

OWN = {
    "n_heads": 2, "n_kv_heads": 1, "head_dim": 8, "d_ff": 40, "ffn_type": "standard", "pos_encoding": "alibi",
    "attention_type": "sliding_window", "sliding_window": 3, "sparse_pattern": "strided", "block_size": 3, "activation": "relu",
    "rope_base": 7.0, "rope_interleaved": True, "rope_scaling": {"type": "linear", "factor": 4.0}, "qk_norm": True,
    "attention_scale": 0.1, "attn_logit_softcapping": 0.05, "bias": True, "attention_bias": True,
    "attention_output_bias": True, "ffn_bias": True, "use_moe": True, "num_experts": 4, "top_k": 1, "num_shared_experts": 1,
    "capacity_factor": 0.3, "norm_topk_prob": False, "router_noise": True}
EXPERTS = ("num_experts", "top_k", "num_shared_experts", "capacity_factor", "norm_topk_prob", "router_noise")
ONLY_WITH = {
    "sliding_window": {"attention_type": "sliding_window"}, "sparse_pattern": {"attention_type": "sparse", "block_size": 2},
    "block_size": {"attention_type": "sparse", "block_size": 4}, "n_kv_heads": {"attention_type": "gqa"},
    **{key: {"use_moe": True} for key in EXPERTS}}


def test_every_key_of_a_model_is_one_for_all_layers_or_for_each():
    assert OWN.keys() | _SAME_IN_ALL_LAYERS == ModelConfig.model_fields.keys() and not OWN.keys() & _SAME_IN_ALL_LAYERS


def answer(model: Transformer) -> torch.Tensor:
    "Of a model in training whose weights are all different, in a seeded order; what is random is drawn alike."
    generator = make_generator(0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for parameter in model.double().parameters():
            parameter.data.normal_(0, 0.5, generator=generator)
        return model(batch() % 31)


@pytest.mark.parametrize("key", OWN)
def test_what_a_layer_says_of_itself_holds_there_and_nowhere_else(key: str):
    "The first of two layers is that of a model which says it for all, the second that of one which does not."
    common = {"vocab_size": 31, "max_seq_len": LENGTH, "d_model": 24, "n_layers": 2, "n_heads": 4, **ONLY_WITH.get(key, {})}
    mixed, everywhere, nowhere = (Transformer(ModelConfig(**{**common, **more})) for more in (
        {"layers": ({key: OWN[key]}, {})}, {key: OWN[key]}, {}))
    for part in ("blocks.0.", "blocks.1."):
        like = everywhere if part == "blocks.0." else nowhere
        shapes = [{name: p.shape for name, p in model.named_parameters() if name.startswith(part)} for model in (mixed, like)]
        assert shapes[0] == shapes[1]
    answers = [answer(model) for model in (mixed, everywhere, nowhere)]
    assert not torch.equal(answers[0], answers[1]) and not torch.equal(answers[0], answers[2])
    again = make_config({"model": mixed.config.model_dump()}).model     # written and read
    assert torch.equal(answer(Transformer(again)), answers[0]) and again == mixed.config


def test_sizes_that_nobody_gave_stay_out_of_layers():
    "Each layer fills in its own: the width of its kind of feed-forward, its heads, its bias."
    own = ({"ffn_type": "standard"}, {"n_heads": 2}, {"bias": True}, {"bias": True, "ffn_bias": False})
    config = ModelConfig(d_model=24, n_heads=4, n_layers=4, attention_type="gqa", layers=own)
    assert [config.layer(i).d_ff for i in range(4)] == [96, 64, 64, 64]
    assert [(config.layer(i).n_kv_heads, config.layer(i).head_dim) for i in range(4)] == [(4, 6), (2, 12), (4, 6), (4, 6)]
    assert [(config.layer(i).attention_bias, config.layer(i).ffn_bias) for i in range(4)] == [
        (False, False), (False, False), (True, True), (True, False)]
    given = ModelConfig(d_model=24, n_heads=4, n_kv_heads=2, d_ff=50, layers=({"ffn_type": "standard"}, {}))
    assert [given.layer(i).d_ff for i in range(2)] == [50, 50]
    written = given.model_copy(update={"d_ff": 10}).model_dump()      # what was changed is no longer as it was filled in
    assert (written["d_ff"], written["head_dim"], written["n_kv_heads"]) == (10, None, 2)


@pytest.mark.parametrize("key", sorted(_SAME_IN_ALL_LAYERS))
def test_what_holds_for_the_whole_model_is_refused_in_a_layer(key: str):
    with pytest.raises(ValueError, match=f"layers cannot differ in {key}"):
        ModelConfig(layers=({key: ModelConfig.model_fields[key].default}, {}))
