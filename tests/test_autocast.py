"""Every part trains under autocast, as processors and as graphics cards round, and compiles as far as it can."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import Gemma2Config, Gemma3TextConfig
from transformers.models.gemma2.modeling_gemma2 import Gemma2Model, Gemma2RMSNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm, Gemma3TextModel

from geminiq.models.attention import ATTENTIONS
from geminiq.models.embeddings import POSITIONS
from geminiq.models.feedforward import FEED_FORWARDS
from geminiq.models.transformer import Transformer
from geminiq.models.transformer_block import NORMS, RMSNormPlusOne
from geminiq.training.losses import chunked_cross_entropy_loss, cross_entropy_loss, focal_loss
from geminiq.utils.device import make_generator
from helpers import scatter_weights, tiny_model

# What PyTorch's documentation lists as computed in float32 under autocast on CUDA, as far as models might use it.
FLOAT32_ON_CUDA = {
    "__pow__", "__rdiv__", "__rpow__", "cosine_similarity", "cross_entropy", "cumprod", "cumsum", "exp", "expm1", "layer_norm",
    "log", "log10", "log1p", "log2", "log_softmax", "mse_loss", "nll_loss", "norm", "normalize", "pow", "prod", "reciprocal",
    "rsqrt", "softmax", "softplus", "sum", "tan"}


class CudaAutocast(TorchFunctionMode):
    "Rounds on the processor as autocast does on a graphics card: these functions get their inputs in float32."

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        if getattr(func, "__name__", "") in FLOAT32_ON_CUDA:
            args = tuple(x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x for x in args)
        return func(*args, **(kwargs or {}))


TOKENS = torch.randint(31, (3, 24), generator=make_generator(0))
PADDED = torch.arange(24) >= torch.tensor([0, 3, 9])[:, None]
PARTS = [{"attention_type": attention, "pos_encoding": position} for attention, position in product(ATTENTIONS, POSITIONS)]
PARTS += [{"attention_type": attention, "qk_norm": True, "n_kv_heads": 2, "norm_type": norm}
          for attention, norm in product([name for name in ATTENTIONS if name != "standard"], NORMS)]
PARTS += [{"use_moe": True, "ffn_type": kind, **more} for kind, more in product(FEED_FORWARDS, (
    {}, {"capacity_factor": 1.0}, {"num_shared_experts": 1, "router_noise": True}, {"top_k": 1}, {"norm_topk_prob": False}))]
PARTS += [{"attn_logit_softcapping": 5.0, "final_logit_softcapping": 5.0, "scale_embeddings": True, "norm_placement": place}
          for place in ("pre", "post", "sandwich")]


def model_of(**parts: object) -> Transformer:
    "A model of one layer in float32 with weights that count."
    return scatter_weights(tiny_model(**{"n_layers": 1, **parts}).float(), matrices=0.2)


def gradient(model: Transformer, loss_of: Callable[[Transformer], Tensor], rounding: str | None = None) -> Tensor:
    "Of all weights, one behind the other; what is random is drawn alike."
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=rounding is not None):
            if rounding == "cuda":
                with CudaAutocast():
                    loss = loss_of(model)
            else:
                loss = loss_of(model)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)])


def plain_loss(model: Transformer) -> Tensor:
    "With padding."
    targets = TOKENS[:, 1:].masked_fill(~PADDED[:, 1:], -100)
    return cross_entropy_loss(model(TOKENS[:, :-1], PADDED[:, :-1]), targets)


@pytest.mark.parametrize("rounding", ["cpu", "cuda"])
@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "-".join(map(str, parts.values())))
def test_every_part_trains_under_autocast(parts: dict, rounding: str) -> None:
    "A gradient that is finite and points where that of float32 points."
    model = model_of(**parts)
    exact, rounded = gradient(model, plain_loss), gradient(model, plain_loss, rounding)
    assert rounded.dtype == torch.float32 and rounded.isfinite().all()
    alike = nn.functional.cosine_similarity(exact, rounded, dim=0)
    assert (0.9 if parts.get("use_moe") else 0.99) < alike < 1 - 1e-7   # some tokens may choose another expert


@pytest.mark.parametrize("rounding", ["cpu", "cuda"])
@pytest.mark.parametrize("loss", [
    lambda logits, features, weight: cross_entropy_loss(logits, TOKENS, label_smoothing=0.1),
    lambda logits, features, weight: focal_loss(logits, TOKENS, alpha=torch.linspace(1, 2, 31)),
    lambda logits, features, weight: cross_entropy_loss(logits, TOKENS, weight=torch.linspace(1, 2, 31)),
    lambda logits, features, weight: chunked_cross_entropy_loss(features, weight, TOKENS, chunk=7),
], ids=["smoothed", "focal", "weighted", "chunked"])
def test_every_loss_trains_under_autocast(loss: Callable, rounding: str) -> None:
    def loss_of(model: Transformer) -> Tensor:
        features = model.hidden_states(TOKENS)
        return loss(model.logits(features), features, model.lm_head.weight)

    model = model_of()
    exact, rounded = gradient(model, loss_of), gradient(model, loss_of, rounding)
    assert rounded.isfinite().all()
    assert 0.99 < nn.functional.cosine_similarity(exact, rounded, dim=0) < 1 - 1e-7


COMPILED = [
    {}, {"attention_type": "sliding_window", "pos_encoding": "alibi"}, {"attention_type": "linear"},
    {"pos_encoding": "sinusoidal"},
    {"norm_type": "layernorm", "ffn_type": "standard", "bias": True, "pos_encoding": "learned", "activation": "gelu_tanh"},
    {"norm_type": "rmsnorm_plus_one", "norm_placement": "sandwich", "ffn_type": "geglu", "scale_embeddings": True,
     "attention_type": "gqa", "n_kv_heads": 2, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 5.0, "qk_norm": True}]


@pytest.mark.parametrize("parts", COMPILED, ids=lambda parts: "-".join(map(str, parts.values())))
def test_a_model_compiles_in_one_piece(parts: dict) -> None:
    "Nothing in it asks the processor while it runs: in training, and in evaluation with padding."
    torch.compiler.reset()
    model = model_of(**parts)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(TOKENS), model(TOKENS))
    assert torch.equal(compiled.eval()(TOKENS, PADDED), model.eval()(TOKENS, PADDED))


@pytest.mark.parametrize("parts", [
    {"attention_type": "sparse"}, {"attention_type": "flash"}, {"use_moe": True, "num_experts": 2}], ids=str)
@torch.no_grad()
def test_what_asks_python_compiles_around_it(parts: dict) -> None:
    torch.compiler.reset()
    model = model_of(**parts)
    assert torch.equal(torch.compile(model, backend="eager")(TOKENS, PADDED), model(TOKENS, PADDED))


# Gemma in 16 bits

@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("theirs", [Gemma2RMSNorm, Gemma3RMSNorm])
def test_one_plus_weight_is_added_before_rounding(theirs: type[nn.Module], dtype: torch.dtype) -> None:
    "As transformers does; now and then the last bit differs, where the division comes before the product or behind it."
    generator = make_generator(0)
    reference, norm = theirs(64, eps=1e-6).to(dtype), RMSNormPlusOne(64, eps=1e-6).to(dtype)
    for module in (reference, norm):
        module.weight.data.copy_(torch.randn(64, generator=make_generator(1)) * 0.3)
    x = (torch.randn(500, 64, generator=generator) * 3).to(dtype)
    ours, expected = norm(x), reference(x)
    assert ours.dtype == expected.dtype == dtype
    assert (ours == expected).float().mean() > 0.995
    assert ((ours - expected).abs() <= torch.finfo(dtype).eps * expected.abs()).all()
    rounded = nn.functional.rms_norm(x, (64,), 1 + norm.weight, 1e-6)       # what it was, for comparison
    assert (rounded == expected).float().mean() < 0.9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("config", "reference"), [(Gemma2Config, Gemma2Model), (Gemma3TextConfig, Gemma3TextModel)])
@pytest.mark.parametrize("width", [48, 80])
@torch.no_grad()
def test_embeddings_are_scaled_as_in_transformers(width: int, config: type, reference: type, dtype: torch.dtype) -> None:
    "By √D in the number format of the embeddings, bit for bit."
    theirs = reference(config(vocab_size=31, hidden_size=width, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                              num_key_value_heads=1, head_dim=8, pad_token_id=0)).to(dtype)
    ours, seen = tiny_model(d_model=width, scale_embeddings=True, pos_encoding="none").to(dtype), []
    ours.embedding.weight.copy_(theirs.embed_tokens.weight)
    ours.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ours(TOKENS)
    assert torch.equal(seen[0], theirs.embed_tokens(TOKENS))
