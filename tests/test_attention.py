"""Every kind of attention can be recorded, forgets while it is trained, and may be one's own."""

import re
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from geminiq.generation.cache import KVCache
from geminiq.models.attention import (
    ATTENTIONS,
    CausalSelfAttention,
    CrossAttention,
    GroupedQueryAttention,
    MultiHeadAttention,
    causal_mask,
    record_attention,
    scaled_dot_product_attention,
)
from geminiq.models.efficient_attention import (
    PATTERNS,
    BigBirdPattern,
    FlashAttention,
    FlashAttentionSimulator,
    SparseAttention,
)
from geminiq.models.embeddings import RotaryEmbedding
from geminiq.models.feedforward import ACTIVATIONS, FeedForward
from geminiq.models.transformer_block import LayerNorm, TransformerBlock
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import UserError, make_generator
from helpers import random, tiny_model

LENGTH = 19
small = partial(tiny_model, max_seq_len=LENGTH)


def batch(n: int = 2) -> Tensor:
    "Random texts."
    return torch.randint(31, (n, LENGTH), generator=make_generator(0))


@pytest.fixture
def tables() -> None:
    "What a test enters into the registries is gone behind it."
    registries = ATTENTIONS, PATTERNS, ACTIVATIONS
    before = [dict(registry) for registry in registries]
    yield
    for registry, own in zip(registries, before, strict=True):
        registry.clear()
        registry.update(own)


# Recording

@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_weights_are_recorded_in_the_order_of_the_layers(attention: str, training: bool):
    model, tokens = small(attention_type=attention).train(training), batch()
    attention_mask = torch.arange(LENGTH) >= torch.tensor([0, 6])[:, None]
    with record_attention(model) as weights:
        logits = model(tokens, attention_mask)
    assert [layer.shape for layer in weights] == [(2, 4, LENGTH, LENGTH)] * 2
    assert_close(logits, model(tokens, attention_mask), atol=1e-12, rtol=0)
    assert len(weights) == 2                                        # what ran afterwards is not recorded
    with record_attention(model.blocks[1]) as second:
        model(tokens, attention_mask)
    assert len(second) == 1
    assert_close(second[0], weights[1], atol=1e-13, rtol=0)         # the first layer took the fast path this time
    assert not weights[0][1, :, :, :6].any()                        # nobody looks at padding


@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if name != "linear"])
def test_weights_are_recorded_through_a_cache(attention: str):
    model, tokens = small(attention_type=attention), batch()
    with record_attention(model) as whole:
        model(tokens)
    cache = KVCache(model)
    model(tokens[:, :12], cache=cache)
    with record_attention(model) as rest:
        model(tokens[:, 12:], cache=cache)
    for ours, all_weights in zip(rest, whole, strict=True):
        n_keys = ours.shape[-1]                                     # a window has forgotten the others
        assert_close(ours, all_weights[:, :, 12:, LENGTH - n_keys:], atol=1e-13, rtol=0)


def test_weights_carry_gradients_and_attentions_without_a_mask_are_recorded_too():
    x, context = random(2, 5, 12), random(2, 7, 20, seed=1)
    for attention, args, n_keys in ((MultiHeadAttention(12, 3), (x,), 5), (CrossAttention(12, 3, d_context=20), (x, context), 7)):
        attention.double()
        with record_attention(attention) as weights:
            recorded = attention(*args)
        assert_close(recorded, attention(*args), atol=1e-14, rtol=0)
        assert_close(weights[0].sum(-1), torch.ones(2, 3, 5, dtype=torch.float64), atol=1e-14, rtol=0)
        assert weights[0].shape[-1] == n_keys and weights[0].requires_grad


def test_recordings_nest_and_end_with_an_error():
    model, tokens = small(), batch()
    with record_attention(model) as outer:
        with pytest.raises(ZeroDivisionError), record_attention(model.blocks[0]) as inner:
            model(tokens)
            raise ZeroDivisionError
        model(tokens)
    model(tokens)
    assert (len(inner), len(outer)) == (1, 4)
    assert not any(module._recordings for module in model.modules() if isinstance(module, MultiHeadAttention))


def test_what_has_no_attention_cannot_be_recorded():
    with pytest.raises(ValueError, match="Linear has no attention"), record_attention(nn.Linear(2, 2)):
        pass


def test_recording_goes_with_gradient_checkpointing():
    model, tokens = small().train(), batch()
    model.gradient_checkpointing = True
    with record_attention(model) as weights:
        loss = model(tokens).square().mean()
    loss.backward()                                                  # outside: nothing is computed again
    assert len(weights) == 2
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(tokens).square().mean().backward()
    for once, again in zip(gradients, model.parameters(), strict=True):
        assert_close(once, again.grad, atol=1e-14, rtol=0)


# Dropout

@pytest.mark.parametrize("attention", ATTENTIONS)
def test_dropout_in_every_kind_of_attention(attention: str):
    "It changes what is trained and nothing else, and the mean over its draws is the output without it."
    torch.manual_seed(0)
    config = ModelConfig(d_model=16, n_heads=4, head_dim=4, attention_type=attention, sliding_window=5, block_size=4, dropout=0.3)
    layer, x = ATTENTIONS.build(attention, config).double().requires_grad_(False), random(1, LENGTH, 16)
    rotation = RotaryEmbedding(4).rotation(torch.arange(LENGTH)[None], x.dtype)
    expected = layer.eval()(x, rotation)
    assert torch.equal(layer(x, rotation), expected)
    layer.train()
    assert not torch.equal(layer(x, rotation), layer(x, rotation))
    n = 3000
    draws = layer(x.expand(n, -1, -1), rotation)
    error = (draws.mean(0) - expected[0]).abs() / (draws.std(0) / n ** 0.5)
    assert error.max() < 5                                           # standard errors, of 19 · 16 numbers
    layer.dropout = 0.0
    assert_close(layer(x, rotation), expected, atol=1e-14, rtol=0)


def test_a_configuration_gives_its_dropout_to_every_attention():
    assert {ATTENTIONS.build(name, ModelConfig(dropout=0.25)).dropout for name in ATTENTIONS} == {0.25}


# FlashAttention

def test_the_simulator_differentiates_dropout_as_it_was_drawn():
    "The gradient of a draw, against differences of the same draw."
    q, k, v = (random(1, 2, 9, 4, seed=seed).requires_grad_() for seed in range(3))
    flash = FlashAttentionSimulator(4, 3, causal=True)
    mask = torch.arange(9)[None] >= 2

    def same_draw(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(1)
        return flash(q, k, v, mask, dropout=0.4)

    assert torch.autograd.gradcheck(same_draw, (q, k, v))
    assert (same_draw(q, k, v)[:, :, :2] == 0).all()                 # padding sees nothing


def test_a_model_of_flash_attention_learns_what_a_model_of_attention_learns():
    torch.manual_seed(0)
    models = [small(attention_type=name, n_kv_heads=2, pos_encoding="alibi") for name in ("gqa", "flash")]
    attention_mask = torch.arange(LENGTH) >= torch.tensor([0, 7])[:, None]
    gradients = []
    for model in models:
        F.cross_entropy(model(batch(), attention_mask)[0], batch()[0]).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs, atol=1e-14, rtol=0)
    assert isinstance(models[1].blocks[0].attention, FlashAttention)


@pytest.mark.parametrize("attention", ["flash", "sparse", "linear"])
def test_a_softcap_is_refused_where_it_would_be_ignored(attention: str):
    with pytest.raises(ValueError, match="attn_logit_softcapping"):
        ModelConfig(attention_type=attention, attn_logit_softcapping=30.0)


# One's own parts, and their places

def test_own_attention_pattern_and_activation(tables: None):
    @ATTENTIONS.register("uniform")
    class Uniform(CausalSelfAttention):
        def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False,
                   bias: Tensor | None = None) -> Tensor:
            return super().attend(torch.zeros_like(query), key, value, mask, causal, bias)

    @PATTERNS.register("alone")
    class Alone:
        def row(self, i: int) -> list[int]:
            return [i]

    @ACTIVATIONS.register("absolute")
    def absolute(x: Tensor) -> Tensor:
        return x.abs()

    model = small(attention_type="uniform", activation="absolute", ffn_type="standard")
    with record_attention(model) as weights:
        model(batch())
    assert_close(weights[0][0, 0, 3, :4], torch.full((4,), 0.25, dtype=torch.float64))
    assert model.blocks[0].feed_forward.activation is absolute
    alone = small(attention_type="sparse", sparse_pattern="alone")
    assert isinstance(alone.blocks[0].attention.pattern, Alone)
    with pytest.raises((UserError, ValueError), match="sparse_pattern 'alon' is unknown: did you mean alone"):
        ModelConfig(sparse_pattern="alon")


def test_sparse_attention_has_a_pattern_of_its_own():
    assert isinstance(SparseAttention(16, 4).pattern, BigBirdPattern)


def test_the_standard_feed_forward_layer_is_linear_relu_linear():
    layer, x = FeedForward(6, 8, bias=True).double(), random(2, 6)
    assert_close(layer(x), layer.down(layer.up(x).relu()), atol=0, rtol=0)


@pytest.mark.parametrize("place", ["before", "between"])
def test_cross_attention_stands_where_it_is_put(place: str):
    "The decoder layer of PyTorch is the reference for `between`; `before` is the sum written down."
    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.attention, self.context = LayerNorm(12), CrossAttention(12, 3, bias=True), random(2, 7, 12, seed=4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.attention(self.norm(x), self.context)

    ours = TransformerBlock(CausalSelfAttention(12, 3, bias=True), FeedForward(12, 24, bias=True), LayerNorm(12), LayerNorm(12),
                            cross_attn=Look(), cross_attn_place=place).double()
    x = random(2, 5, 12)
    if place == "before":
        h = ours.cross_attn(x)
        h = h + ours.attention(ours.attention_norm(h))
        assert_close(ours(x), h + ours.feed_forward(ours.feed_forward_norm(h)), atol=0, rtol=0)
        return
    theirs = nn.TransformerDecoderLayer(12, 3, 24, dropout=0, norm_first=True, batch_first=True).double()
    for attention, other in ((ours.attention, theirs.self_attn), (ours.cross_attn.attention, theirs.multihead_attn)):
        weights, biases = other.in_proj_weight.chunk(3), other.in_proj_bias.chunk(3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            attention.get_submodule(part).load_state_dict({"weight": weight, "bias": bias})
        attention.output.load_state_dict(other.out_proj.state_dict())
    for mine, their in ((ours.attention_norm, theirs.norm1), (ours.cross_attn.norm, theirs.norm2),
                        (ours.feed_forward_norm, theirs.norm3), (ours.feed_forward.up, theirs.linear1),
                        (ours.feed_forward.down, theirs.linear2)):
        mine.load_state_dict(their.state_dict())
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert_close(ours(x), theirs(x, ours.cross_attn.context, tgt_mask=future), atol=1e-13, rtol=0)


def test_a_softcap_bends_the_scores():
    q, k, v = (random(1, 2, 5, 4, seed=seed) for seed in range(3))
    capped = scaled_dot_product_attention(10 * q, k, v, softcap=2.0)
    scores = 2 * torch.tanh(10 * q @ k.transpose(-2, -1) / 2 / 2)
    assert_close(capped, scores.softmax(-1) @ v, atol=1e-14, rtol=0)


# The function

@pytest.mark.parametrize("how", [{}, {"causal": True}, {"softcap": 3.0}, {"return_weights": True}], ids=str)
def test_scores_are_multiplied_by_the_scale(how: dict):
    "As if the queries had been multiplied; without one it is 1/√E."
    query, key, value = random(3, 2, 4, 7, 6)
    scaled, plain, by_default = (scaled_dot_product_attention(q, key, value, scale=scale, **how) for q, scale in (
        (query, 0.3), (query * 0.3 * 6 ** 0.5, None), (query, 6 ** -0.5)))
    assert_close(scaled, plain)
    assert_close(by_default, scaled_dot_product_attention(query, key, value, **how))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 2, 3, 4, 5)])
def test_tensors_that_have_not_four_dimensions_are_named_by_their_shapes(shape: tuple):
    x, four = torch.zeros(shape), torch.zeros(1, 1, 3, 4)
    for tensors in ((x, x, x), (four, x, x), (four, four, x)):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            scaled_dot_product_attention(*tensors)


X = torch.zeros(1, 2, 4, 8)


@pytest.mark.parametrize(("inputs", "words"), [
    ((X, X, X[:, :, :3]), "differ in batch, heads or positions"), ((X, X[..., :4], X), "differ in batch or head width"),
    ((X[:, [0, 1, 0]], X, X), "3 query heads cannot share 2"), ((X, X, X, torch.ones(4, 4)), "it must be bool"),
    ((X, X, X, torch.ones(3, 4).bool()), "does not fit")], ids=lambda value: value if isinstance(value, str) else "")
def test_inputs_that_do_not_fit_are_named_by_their_shapes(inputs: tuple, words: str):
    with pytest.raises(ValueError, match=re.escape(words)):
        scaled_dot_product_attention(*inputs)


def test_layers_that_cannot_be_cut_evenly_are_refused():
    for make in (lambda: CausalSelfAttention(10, 3), lambda: GroupedQueryAttention(12, 6, 4)):
        with pytest.raises(UserError, match="is not a multiple of"):
            make()
    with pytest.raises(ValueError, match="5 queries cannot be the last of 3 positions"):
        causal_mask(5, 3)
    with pytest.raises(ValueError, match="the context is 12 wide, the keys are made from 20"):
        CrossAttention(12, 3, d_context=20)(torch.zeros(1, 2, 12), torch.zeros(1, 2, 12))


def test_weights_are_dropped_in_training_alone():
    attention, x = MultiHeadAttention(12, 3, dropout=0.5).double(), random(2, 5, 12)
    assert not torch.equal(attention(x), attention(x))
    assert torch.equal(attention.eval()(x), attention.eval()(x))


def test_sixteen_bits_go_in_and_come_out_with_all_gradients():
    query, key, value = (x.requires_grad_() for x in random(3, 2, 3, 6, 8))
    short = [x.detach().bfloat16().requires_grad_() for x in (query, key, value)]
    past = causal_mask(6, 6)
    found, right = (scaled_dot_product_attention(*inputs, past) for inputs in (short, (query, key, value)))
    assert found.dtype == torch.bfloat16
    gradients = (torch.autograd.grad(output.square().sum(), inputs)
                 for output, inputs in ((found.float(), short), (right, (query, key, value))))
    for a, b in zip(*gradients, strict=True):
        assert_close(a.double(), b, atol=0.05, rtol=0.05)
