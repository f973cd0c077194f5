"""Every part trains under autocast, as processors and as graphics cards round, and compiles as far as it can."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from geminiq.models.attention import ATTENTIONS
from geminiq.models.embeddings import POSITIONS
from geminiq.models.feedforward import FEED_FORWARDS
from geminiq.models.transformer import Transformer
from geminiq.models.transformer_block import NORMS
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
    "A small model in float32 with weights that count."
    return scatter_weights(tiny_model(**parts).float(), matrices=0.2)


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
    {}, {"attention_type": "sliding_window", "pos_encoding": "alibi"}, {"attention_type": "linear"}, {"pos_encoding": "sinusoidal"},
    {"norm_type": "layernorm", "ffn_type": "standard", "bias": True, "pos_encoding": "learned", "activation": "gelu_tanh"},
    {"norm_type": "rmsnorm_plus_one", "norm_placement": "sandwich", "ffn_type": "geglu", "scale_embeddings": True,
     "attention_type": "gqa", "n_kv_heads": 2, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 5.0, "qk_norm": True}]


@pytest.mark.parametrize("parts", COMPILED, ids=lambda parts: "-".join(map(str, parts.values())))
def test_a_model_compiles_in_one_piece(parts: dict) -> None:
    "Nothing in it asks the processor while it runs: in training, and in evaluation with padding."
    torch.compiler.reset()
    model = model_of(**parts, n_layers=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(TOKENS), model(TOKENS))
    assert torch.equal(compiled.eval()(TOKENS, PADDED), model.eval()(TOKENS, PADDED))


@pytest.mark.parametrize("parts", [{"attention_type": "sparse"}, {"attention_type": "flash"}, {"use_moe": True}], ids=str)
@torch.no_grad()
def test_what_asks_python_compiles_around_it(parts: dict) -> None:
    torch.compiler.reset()
    model = model_of(**parts, n_layers=1)
    assert torch.equal(torch.compile(model, backend="eager")(TOKENS, PADDED), model(TOKENS, PADDED))
