"""Parts that are silenced add nothing, in every kind of model, and speak again afterwards."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from geminiq.generation.cache import KVCache
from geminiq.models.attention import ATTENTIONS
from geminiq.models.transformer import Transformer
from geminiq.models.transformer_block import NORMS
from geminiq.utils.device import UserError
from geminiq.utils.live_parts import silenced
from helpers import tiny_model

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
KINDS: list[dict[str, Any]] = [
    *({"attention_type": kind, "norm_type": norm} for kind in ATTENTIONS for norm in NORMS),
    {"use_moe": True}, {"norm_placement": "sandwich"}, {"attention_bias": True, "ffn_bias": True}]


class Nothing(nn.Module):
    "Takes the place of a part, and adds nothing."

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros_like(x)


def model_of(**kind: Any) -> Transformer:
    return tiny_model(vocab_size=12, max_seq_len=16, n_layers=3, **kind).requires_grad_(False).eval()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_silenced_part_is_as_if_nothing_stood_there(kind: dict[str, Any]):
    model = model_of(**kind)
    whole = model(TOKENS)
    for part in ("attention", "feed_forward"):
        for layer in range(3):
            broken = deepcopy(model)
            setattr(broken.blocks[layer], part, Nothing())
            with silenced(model, f"{layer}.{part}") as found:
                assert found is model and torch.equal(model(TOKENS), broken(TOKENS))
            assert not torch.equal(broken(TOKENS), whole)
    with silenced(model, "1"):
        left = model(TOKENS)
    with silenced(model, ["1.feed_forward", "1.attention"]):
        assert torch.equal(model(TOKENS), left)
    assert torch.equal(model(TOKENS), whole)


@pytest.mark.parametrize("without", ["1", "0.attention", "2.feed_forward", "1.3"])
def test_it_writes_step_by_step_what_it_says_at_once(without: str):
    model = model_of()
    with silenced(model, without):
        at_once, cache = model(TOKENS), KVCache(model)
        steps = torch.cat([model(TOKENS[:, at:at + 1], cache=cache) for at in range(8)], dim=1)
    assert torch.allclose(at_once, steps, atol=1e-6) and not torch.allclose(at_once, model(TOKENS), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_an_output_norm_adds_nothing_either(norm: str):
    model = model_of(norm_placement="sandwich", norm_type=norm)
    for parameter in model.blocks.parameters():
        parameter.add_(0.5)      # biases of norms too
    found = []
    model.blocks[1].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    model.blocks[2].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with silenced(model, ["1.attention", "1.feed_forward"]):
        model(TOKENS)
    assert torch.equal(*found)


def test_a_head_is_what_the_output_map_reads_of_it():
    model = model_of()
    attention, E = model.blocks[1].attention, model.blocks[1].attention.head_dim
    broken = deepcopy(model)
    broken.blocks[1].attention.output.weight[:, E:3 * E] = 0
    with silenced(model, ["1.1", "1.2"]):
        assert torch.allclose(model(TOKENS), broken(TOKENS), atol=1e-6)
    with silenced(model, [f"1.{head}" for head in range(attention.n_heads)]):
        heads = model(TOKENS)
    with silenced(model, ["1.attention"]):
        assert torch.equal(model(TOKENS), heads)


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_all_is_as_before_after_a_mistake_and_in_one_another():
    model = model_of()
    whole = model(TOKENS)
    with pytest.raises(RuntimeError), silenced(model, ["0", "1.attention", "2.1"]):
        raise RuntimeError
    assert hooks_of(model) == 0 and torch.equal(model(TOKENS), whole)
    with silenced(model, "0"):
        left = model(TOKENS)
        with silenced(model, (name for name in ["0", "1.attention"])):
            assert not torch.equal(model(TOKENS), left)
        assert torch.equal(model(TOKENS), left)
    with silenced(model, []):
        assert torch.equal(model(TOKENS), whole)


UNKNOWN = ["3", "-1", "", "01", "1.ffn", "1.feed-forward", "1.4", "1.-1", "attention", "1.attention.0", "1."]


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_part_is_refused_before_anything_is_silenced(name: str):
    model = model_of()
    with pytest.raises(UserError, match="there is no part") as error, silenced(model, ["0", name]):
        pass
    assert repr(name) in str(error.value) and "'2.feed_forward'" in str(error.value) and hooks_of(model) == 0


def test_silence_can_be_learned_around():
    model = tiny_model(vocab_size=12, max_seq_len=16, n_layers=2)
    with silenced(model, "1.attention"):
        model(TOKENS).sum().backward()
    assert model.blocks[1].attention.output.weight.grad is None or not model.blocks[1].attention.output.weight.grad.any()
    assert model.blocks[0].attention.output.weight.grad.any()
