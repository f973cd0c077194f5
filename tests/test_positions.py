"""Positions as `transformers` computes them: both pairings of RoPE, its scalings, and ALiBi."""

from math import pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb

from geminiq.models.attention import attention_weights
from geminiq.models.embeddings import (
    POSITIONS,
    ALiBi,
    LinearScaling,
    Llama3Scaling,
    NTKScaling,
    RotaryEmbedding,
    YaRNScaling,
    alibi_bias,
    alibi_slopes,
    apply_rotary_emb,
    position_ids,
)
from geminiq.models.transformer_block import build_layer_positions
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import UserError, make_generator

FLOAT32 = {"atol": 0, "rtol": 1e-6}   # the reference computes its frequencies in float32


def reference_inv_freq(kind: str, head_dim: int, base: float, seq_len: int | None = None, **parameters) -> torch.Tensor:
    "The frequencies of `transformers`."
    config = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim, max_position_embeddings=100,
                         rope_parameters={"rope_type": kind, "rope_theta": base, **parameters})
    inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len)
    assert factor == 1
    return inv_freq


@given(st.integers(2, 40).map(lambda pairs: 2 * pairs), st.floats(100, 1e6), st.floats(1, 32))
def test_scalings(head_dim: int, base: float, factor: float):
    def inv_freq(scaling):
        return RotaryEmbedding(head_dim, base, scaling=scaling).inv_freq(torch.float32)

    assert_close(inv_freq(LinearScaling(factor)), reference_inv_freq("linear", head_dim, base, factor=factor), **FLOAT32)
    assert_close(inv_freq(Llama3Scaling(factor, 1.0, 4.0, 2000)),
                 reference_inv_freq("llama3", head_dim, base, factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                                  original_max_position_embeddings=2000), atol=0, rtol=1e-5)
    longer = factor * 3 - (factor - 1)   # how the dynamic variant stretches for three times the trained length
    assert_close(inv_freq(NTKScaling(longer)), reference_inv_freq("dynamic", head_dim, base, seq_len=300, factor=factor),
                 atol=0, rtol=1e-5)


@given(st.integers(1, 40).map(lambda pairs: 2 * pairs), st.floats(100, 1e6), st.floats(1, 32), st.integers(20, 10_000),
       st.sampled_from([{}, {"beta_fast": 20.0, "beta_slow": 2.0}, {"attention_factor": 1.5}]))
def test_yarn(head_dim: int, base: float, factor: float, old_length: int, options: dict):
    rope = RotaryEmbedding(head_dim, base, scaling=YaRNScaling(factor, old_length, **options))
    config = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim, max_position_embeddings=old_length,
                         rope_parameters={"rope_type": "yarn", "rope_theta": base, "factor": factor,
                                          "original_max_position_embeddings": old_length, **options})
    theirs, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    assert_close(rope.inv_freq(torch.float32), theirs, atol=0, rtol=1e-5)
    positions = torch.arange(3 * old_length, 3 * old_length + 4)[None]
    rotation, angles = rope.rotation(positions, torch.float64), positions[0, :, None] * rope.inv_freq(torch.float64)
    assert_close(rotation.cos[0, 0], angles.cos() * attention_factor, atol=1e-12, rtol=0)
    assert_close(rotation.sin[0, 0], angles.sin() * attention_factor, atol=1e-12, rtol=0)


@given(st.integers(1, 16).map(lambda pairs: 2 * pairs), st.integers(0, 2**31))
def test_neighbouring_pairs(head_dim: int, seed: int):
    x = torch.randn(2, 3, 5, head_dim, generator=make_generator(seed), dtype=torch.float64)
    positions = torch.randint(0, 3000, (2, 5), generator=make_generator(seed))
    rotation = RotaryEmbedding(head_dim, interleaved=True).rotation(positions, x.dtype)
    theirs = apply_rotary_pos_emb(x.transpose(1, 2), rotation.sin[:, 0], rotation.cos[:, 0]).transpose(1, 2)
    assert_close(apply_rotary_emb(x, rotation), theirs, atol=1e-14, rtol=0)


@given(st.integers(1, 16).map(lambda pairs: 2 * pairs), st.integers(0, 2**31), st.booleans())
def test_turning_is_multiplying_complex_numbers(head_dim: int, seed: int, interleaved: bool):
    x = torch.randn(2, 3, 5, head_dim, generator=make_generator(seed), dtype=torch.float64)
    positions = torch.randint(0, 3000, (2, 5), generator=make_generator(seed))       # rows with positions of their own
    theta = torch.tensor([10000 ** (-2 * i / head_dim) for i in range(head_dim // 2)], dtype=torch.float64)
    turn = torch.exp(1j * positions[:, None, :, None] * theta)
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1) if interleaved else x.chunk(2, dim=-1)
    turned = torch.complex(first, second) * turn
    ours = RotaryEmbedding(head_dim, interleaved=interleaved)(x, positions)
    both = [turned.real, turned.imag]
    expected = torch.stack(both, -1).flatten(-2) if interleaved else torch.cat(both, -1)
    assert_close(ours, expected, atol=1e-11, rtol=0)


@given(st.integers(1, 16).map(lambda pairs: 2 * pairs), st.integers(0, 2**31), st.integers(0, 1000))
def test_only_the_distance_counts_and_lengths_stay(head_dim: int, seed: int, shift: int):
    q, k = torch.randn(2, 1, 1, 1, head_dim, generator=make_generator(seed), dtype=torch.float64)
    rope = RotaryEmbedding(head_dim)

    def at(x: torch.Tensor, position: int) -> torch.Tensor:
        return rope(x, torch.tensor([[position]]))

    assert_close((at(q, 7 + shift) * at(k, 3 + shift)).sum(), (at(q, 7) * at(k, 3)).sum(), atol=1e-11, rtol=0)
    assert_close(at(q, 7 + shift).norm(), q.norm(), atol=1e-12, rtol=0)


def test_an_odd_width_has_no_pairs():
    with pytest.raises(UserError, match="turn pairs of numbers, but the head width is 7"):
        RotaryEmbedding(head_dim=7)


def test_hands_by_hand():
    "Two hands, of speeds 1 and 1/100, slowed by a factor of 8 in each of the four ways."
    plain = RotaryEmbedding(4).inv_freq(torch.float64)
    for scaling, expected in ((LinearScaling(8), [1 / 8, 1 / 800]), (NTKScaling(8), [1, 1 / 800]),
                              (Llama3Scaling(8, original_max_position_embeddings=100), [1, 1 / 800]),
                              (YaRNScaling(8, original_max_position_embeddings=100), [1, 1 / 800])):
        assert_close(scaling(plain), torch.tensor(expected, dtype=torch.float64))
    between = Llama3Scaling(8, 0, 100 / pi, original_max_position_embeddings=100)(plain)     # 50/π turns: halfway
    assert_close(between[0], torch.tensor((1 + 1 / 8) / 2, dtype=torch.float64))
    sharper = RotaryEmbedding(4, scaling=YaRNScaling(8, 100)).rotation(torch.tensor([[0]]), torch.float64)
    assert_close(sharper.cos, torch.full((1, 1, 1, 2), 1.2079, dtype=torch.float64), atol=1e-4, rtol=0)


@given(st.integers(1, 70))
def test_slopes_for_any_number_of_heads(n_heads: int):
    theirs = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float32)[:, 0, 1]
    assert_close(alibi_slopes(n_heads).float(), theirs, atol=0, rtol=1e-6)


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 4), st.integers(0, 2**31))
def test_weights_are_those_of_bloom(n_heads: int, n_tokens: int, n_padding: int, seed: int):
    "The reference's bias lacks a constant for each query, which softmax ignores."
    attention_mask = torch.ones(1, n_padding + n_tokens, dtype=torch.bool)
    attention_mask[0, :n_padding] = False
    length = attention_mask.shape[1]
    theirs = build_alibi_tensor(attention_mask, n_heads, torch.float64).view(1, n_heads, 1, length)
    positions = position_ids(length, attention_mask)
    ours = alibi_bias(ALiBi(n_heads).slopes(), positions, positions, torch.float64)
    scores = torch.randn(1, n_heads, length, length, dtype=torch.float64, generator=make_generator(seed))
    past = attention_mask & torch.ones(length, length, dtype=torch.bool).tril()
    a, b = ((scores + bias).masked_fill(~past, -torch.inf).softmax(-1)[:, :, n_padding:] for bias in (ours, theirs))
    assert_close(a, b, atol=1e-7, rtol=0)   # their slopes are in float32


def test_the_configuration_chooses_pairing_and_scaling():
    scaling = {"type": "llama3", "factor": 8, "original_max_position_embeddings": 64}
    config = ModelConfig(rope_interleaved=True, rope_scaling=scaling)
    rope = RotaryEmbedding.from_config(config)
    assert rope.interleaved and rope.scaling == Llama3Scaling(8, 1.0, 4.0, 64)
    config = ModelConfig(max_seq_len=256, rope_scaling={"type": "yarn", "factor": 4, "beta_fast": 16})
    assert RotaryEmbedding.from_config(config).scaling == YaRNScaling(4, 64, beta_fast=16)


@pytest.mark.parametrize("wrong", [{"type": "lamma3", "factor": 2}, {"type": "linear", "factor": 0.5},
                                   {"type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 1},
                                   {"type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 2}, {"type": "linear"}])
def test_a_wrong_scaling_is_refused(wrong: dict):
    with pytest.raises((UserError, ValueError)) as error:
        ModelConfig(rope_scaling=wrong)
    assert "rope_scaling" in str(error.value)


def test_layers_that_tell_positions_alike_share_one_encoding():
    config = ModelConfig(n_layers=4, layers=({}, {"rope_base": 100.0}))
    own = RotaryEmbedding.from_config(config)
    parts = build_layer_positions(own, config)
    assert parts[0] is parts[2] is own and parts[1] is parts[3]
    assert_close(parts[1].inv_freq(torch.float64), RotaryEmbedding(own.head_dim, 100.0).inv_freq(torch.float64), atol=0, rtol=0)


@pytest.mark.parametrize("kind", POSITIONS)
def test_called_it_does_what_it_does_in_a_model(kind: str):
    "Embeddings get what is added, queries and keys are turned, scores get the price of distance."
    config = ModelConfig(d_model=8, n_heads=2, max_seq_len=9, pos_encoding=kind)
    part, at = POSITIONS.build(kind, config), torch.tensor([[3, 4, 5], [0, 0, 1]])
    x = torch.randn(2, 3, 8, generator=make_generator(0))
    heads = torch.randn(2, 2, 3, 4, generator=make_generator(1))
    if (rotation := part.rotation(at, x.dtype)) is not None:
        assert torch.equal(part(heads, at), apply_rotary_emb(heads, rotation))
        assert torch.equal(part(heads), part(heads, torch.arange(3)[None]))
    elif (slopes := part.slopes()) is not None:
        scores, bias = heads @ heads.transpose(-2, -1) / 2, alibi_bias(slopes, at, at, x.dtype)
        assert_close(part(scores, at).softmax(-1), attention_weights(heads, heads, bias=bias))
        assert torch.equal(part(scores[:, :, 2:], at), part(scores, at)[:, :, 2:])     # the queries are the last
    else:
        assert torch.equal(part(x, at), part.embed(x, at))
        assert torch.equal(part(x), part.embed(x, torch.arange(3)[None]))
