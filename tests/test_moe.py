"""Experts: equal to the sum over all of them, to a greedy hand-out of places, and to transformers.

Transformers computes the router's softmax and the balance loss in float32 whatever the dtype of the model. The
fixture `exact` makes them float64: formulas are compared, not rounding.
"""

import copy
from math import ceil, inf
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import MixtralConfig, Qwen3MoeConfig
from transformers.models.mixtral import modeling_mixtral
from transformers.models.qwen3_moe import modeling_qwen3_moe

from geminiq.data.dataset import IGNORE_INDEX
from geminiq.models.feedforward import FEED_FORWARDS
from geminiq.models.moe import (
    Expert,
    MoELayer,
    MoEObjective,
    Router,
    SparseMoE,
    dispatch,
    load_balancing_loss,
    record_routing,
    router_z_loss,
    routing_loss,
)
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import UserError, make_generator
from helpers import SHAPE, Case, gradients_of, published, reference, texts, tiny_model

CLOSE = {"atol": 1e-12, "rtol": 1e-12}
MODEL = 6   # D, where it is not drawn


def draw(layer: nn.Module, seed: int) -> nn.Module:
    "Weights of a size at which every one of them counts, in float64."
    generator = make_generator(seed)
    for parameter in layer.double().parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return layer


def tokens(n: int, d_model: int, seed: int) -> Tensor:   # (n, D)
    "Random tokens."
    return torch.randn(n, d_model, generator=make_generator(seed + 1), dtype=torch.float64)


@st.composite
def layers(draw_from: st.DrawFn, cls: type = MoELayer, **more: st.SearchStrategy) -> tuple[MoELayer, Tensor]:
    "A layer of any shape, and tokens for it."
    num_experts, d_model, seed = draw_from(st.integers(1, 9)), draw_from(st.integers(1, 7)), draw_from(st.integers(0, 999))
    layer = cls(d_model, num_experts, draw_from(st.integers(1, num_experts)), d_ff=draw_from(st.integers(1, 6)),
                ffn_type=draw_from(st.sampled_from(sorted(FEED_FORWARDS))),
                num_shared_experts=draw_from(st.integers(0, 2)), bias=draw_from(st.booleans()),
                norm_topk_prob=draw_from(st.sampled_from([None, False])),
                **{name: draw_from(values) for name, values in more.items()})
    return draw(layer, seed), tokens(draw_from(st.integers(0, 25)), d_model, seed)


def sparse_layers() -> st.SearchStrategy[tuple[SparseMoE, Tensor]]:
    "Layers with a capacity."
    return layers(SparseMoE, capacity_factor=st.floats(0.05, 3.0))


def sum_over_all(layer: MoELayer, x: Tensor, kept: Tensor | None = None) -> Tensor:   # (n, D)
    "Every expert on every token, with weight zero for those that were not chosen or, in `kept` (n, k), dropped."
    logits = x @ layer.router.gate.weight.T
    experts = logits.topk(layer.router.top_k).indices
    chosen = torch.zeros_like(logits).scatter(-1, experts, 1.0)
    if layer.router.norm_topk_prob:
        weights = logits.masked_fill(chosen == 0, -inf).softmax(-1)
    else:
        weights = logits.softmax(-1) * chosen
    if kept is not None:
        weights = weights * torch.zeros_like(weights).scatter(-1, experts, kept.to(weights.dtype))
    output = torch.zeros_like(x)
    for e, expert in enumerate(layer.experts):
        output = output + weights[:, [e]] * expert(x)
    return output if layer.shared_experts is None else output + layer.shared_experts(x)


def gradients(output: Tensor, x: Tensor, layer: nn.Module) -> list[Tensor]:
    "Of the sum of squares, for the input and every weight; zeros for those that are not used."
    return list(torch.autograd.grad(output.square().sum(), [x, *layer.parameters()], materialize_grads=True))


@settings(deadline=None)
@given(case=layers())
def test_equals_the_sum_over_all_experts(case: tuple[MoELayer, Tensor]) -> None:
    layer, x = case
    x.requires_grad_()
    output, expected = layer(x), sum_over_all(layer, x)
    assert_close(output, expected, **CLOSE)
    assert_close(gradients(output, x, layer), gradients(expected, x, layer), atol=1e-11, rtol=1e-11)


@settings(deadline=None)
@given(case=layers(), seed=st.integers(0, 999))
@torch.no_grad()
def test_permuting_tokens_permutes_outputs(case: tuple[MoELayer, Tensor], seed: int) -> None:
    layer, x = case
    order = torch.randperm(len(x), generator=make_generator(seed))
    assert_close(layer(x[order]), layer(x)[order], **CLOSE)


@settings(deadline=None)
@given(case=layers(), seed=st.integers(0, 999))
@torch.no_grad()
def test_shape_and_mask_of_a_batch(case: tuple[MoELayer, Tensor], seed: int) -> None:
    layer, x = case
    x = torch.cat([x, x + 1]).view(2, *x.shape)
    assert_close(layer(x).flatten(0, 1), layer(x.flatten(0, 1)), **CLOSE)
    mask = torch.rand(x.shape[:-1], generator=make_generator(seed)) < 0.6
    output = layer(x, mask)
    assert_close(output[mask], layer(x)[mask], **CLOSE)
    assert not output[~mask].any()


def places(experts: Tensor, num_experts: int, capacity: int) -> Tensor:  # (n, k) bool
    "Which choices find a place, handed out one by one: first choices first, by position."
    kept, free = torch.zeros_like(experts, dtype=torch.bool), [capacity] * num_experts
    for choice in range(experts.shape[1]):
        for token in range(len(experts)):
            expert = int(experts[token, choice])
            if free[expert]:
                free[expert] -= 1
                kept[token, choice] = True
    return kept


@settings(deadline=None)
@given(case=sparse_layers())
def test_capacity(case: tuple[SparseMoE, Tensor]) -> None:
    layer, x = case
    capacity = ceil(layer.capacity_factor * layer.router.top_k * len(x) / len(layer.experts))
    seen: list[int] = []
    for expert in layer.experts:
        expert.register_forward_hook(lambda _, args, output: seen.append(len(args[0])))
    x.requires_grad_()
    with record_routing(layer) as recorded:
        output = layer(x)
    kept = places(recorded[0].selected_experts, len(layer.experts), capacity)
    assert layer.capacity(len(x)) == capacity
    assert max(seen, default=0) <= capacity
    assert sum(seen) == kept.sum()
    assert layer.dropped == (~kept).sum()
    expected = sum_over_all(layer, x, kept)
    assert_close(output, expected, **CLOSE)
    assert_close(gradients(output, x, layer), gradients(expected, x, layer), atol=1e-11, rtol=1e-11)


@settings(deadline=None)
@given(case=sparse_layers())
@torch.no_grad()
def test_no_capacity_outside_training(case: tuple[SparseMoE, Tensor]) -> None:
    layer, x = case
    assert_close(layer.eval()(x), sum_over_all(layer, x), **CLOSE)
    assert layer.dropped == 0


@settings(deadline=None)
@given(case=sparse_layers(), seed=st.integers(0, 999))
@torch.no_grad()
def test_padding_takes_no_place(case: tuple[SparseMoE, Tensor], seed: int) -> None:
    "Left out of routing, capacity and losses: as if it were not there."
    layer, x = case
    mask = torch.rand(len(x), generator=make_generator(seed)) < 0.6
    with record_routing(layer) as recorded:
        output = layer(x, mask)
        without = layer(x[mask])
    assert torch.equal(output[mask], without)
    assert not output[~mask].any()
    assert torch.equal(routing_loss(recorded[:1]), routing_loss(recorded[1:]))


@pytest.mark.parametrize("factor", [None, inf, 4.0])
def test_unlimited_capacity_is_the_layer_without(factor: float | None) -> None:
    layer = draw(MoELayer(MODEL, 8, 2), seed=0)
    limited = SparseMoE(MODEL, 8, 2, capacity_factor=factor).double()
    limited.load_state_dict(layer.state_dict())
    x = tokens(50, MODEL, seed=0)
    assert torch.equal(limited(x), layer(x))
    assert limited.dropped == 0


@given(n=st.integers(0, 20), num_experts=st.integers(1, 9), seed=st.integers(0, 999), capacity=st.integers(1, 9), data=st.data())
def test_dispatch(n: int, num_experts: int, seed: int, capacity: int, data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, num_experts))
    experts = torch.rand(n, num_experts, generator=make_generator(seed)).topk(top_k).indices
    own = dispatch(experts, num_experts, capacity)
    choices = experts.T.flatten()
    assert len(own) == num_experts
    for expert, numbers in enumerate(own):
        assert (choices[numbers] == expert).all()
        assert numbers.tolist() == sorted(numbers.tolist())
    kept = torch.zeros(n * top_k, dtype=torch.bool)
    kept[torch.cat(own)] = True
    assert torch.equal(kept.view(top_k, n).T, places(experts, num_experts, capacity))


def test_idle_experts_have_gradients() -> None:
    "Of zeros, or training on several machines would wait for them."
    layer = MoELayer(MODEL, 8, 1)
    layer(torch.randn(1, MODEL, generator=make_generator(0))).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert sum(bool(expert.feed_forward.down.weight.grad.any()) for expert in layer.experts) == 1


def test_idle_experts_compute_nothing_when_no_gradient_is_wanted() -> None:
    layer, seen = MoELayer(MODEL, 8, 1), []
    for expert in layer.experts:
        expert.register_forward_hook(lambda _, args, output: seen.append(len(args[0])))
    with torch.no_grad():
        layer(torch.randn(1, MODEL, generator=make_generator(0)))
    assert seen == [1]


def test_a_layer_can_be_copied_after_training() -> None:
    "Nothing of the last step's graph is kept."
    layer, x = draw(SparseMoE(MODEL, 4, 2), seed=0), tokens(20, MODEL, seed=0)
    with record_routing(layer) as recorded:
        output = layer(x)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), output)
    assert len(recorded) == 1   # the twin was not recorded, nor is anything after the end
    layer(x)
    assert len(recorded) == 1


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("n_tokens", [0, 5])
def test_dtypes(grad: bool, n_tokens: int) -> None:
    "The answer has the dtype a plain feed-forward layer gives; the router decides in at least float32."
    layer = MoELayer(MODEL, 4, 2, num_shared_experts=1)
    x = torch.randn(n_tokens, MODEL, generator=make_generator(0))
    coarse = copy.deepcopy(layer).bfloat16()
    with torch.set_grad_enabled(grad):
        for model, inputs, autocast in ((layer, x, False), (layer, x, True), (coarse, x.bfloat16(), False)):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), record_routing(model) as recorded:
                assert model(inputs).dtype == model.shared_experts(inputs).dtype
                assert model(inputs, torch.ones(n_tokens, dtype=torch.bool)).dtype == model.shared_experts(inputs).dtype
            assert recorded[0].router_logits.dtype == recorded[0].routing_weights.dtype == torch.float32


def test_noise_only_while_training_and_learned() -> None:
    router = draw(Router(MODEL, 5, 2, noise=True), seed=0)
    x = tokens(400, MODEL, seed=0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        noise = torch.stack([router(x[0][None]).router_logits[0] for _ in range(4000)]) - router.gate(x[0])
        spread = nn.functional.softplus(router.noise(x[0]))
        assert_close(noise.std(0), spread, atol=0, rtol=0.06)
        router(x).routing_weights[:, 0].sum().backward()
    assert router.noise.weight.grad.abs().sum() > 0
    router.eval()
    assert torch.equal(router(x).router_logits, router.gate(x))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Router(MODEL, 4, 5), "top_k 5 of num_experts 4"),
    (lambda: Router(MODEL, 4, 0), "top_k 0 of num_experts 4"),
    (lambda: MoELayer(MODEL, 0, 0), "top_k 0 of num_experts 0"),
    (lambda: MoELayer(MODEL, -1, 1), "top_k 1 of num_experts -1"),
    (lambda: Router(MODEL, 4, 1, norm_topk_prob=True), "norm_topk_prob"),
    (lambda: MoELayer(MODEL, 4, 2, ffn_type="swigly"), "did you mean swiglu"),
    (lambda: MoELayer(MODEL, 4, 2, num_shared_experts=-1), "num_shared_experts -1"),
    (lambda: Expert(MODEL, ffn_type="swigly"), "did you mean swiglu"),
    (lambda: SparseMoE(MODEL, 4, 2, capacity_factor=0), "capacity_factor 0"),
    (lambda: SparseMoE(MODEL, 4, 2, capacity_factor=-1.0), "capacity_factor -1.0"),
    (lambda: SparseMoE(MODEL, 4, 2, capacity_factor=float("nan")), "capacity_factor nan"),
])
def test_what_cannot_be_built_is_refused(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


# Against transformers

def renamed(state: dict[str, Tensor], num_experts: int) -> dict[str, Tensor]:
    "Weights or gradients of a layer of transformers by the names of geminiq; its experts are stacked."
    names = {"router.gate.weight": state["gate.weight"]}
    for e in range(num_experts):
        gate, up = state["experts.gate_up_proj"][e].chunk(2)
        for name, weight in (("gate", gate), ("up", up), ("down", state["experts.down_proj"][e])):
            names[f"experts.{e}.feed_forward.{name}.weight"] = weight
    return names


def mixtral(num_experts: int, top_k: int) -> nn.Module:
    "The sparse layer of Mixtral."
    config = MixtralConfig(hidden_size=MODEL, intermediate_size=10, num_local_experts=num_experts,
                           num_experts_per_tok=top_k, experts_implementation="eager")
    return modeling_mixtral.MixtralSparseMoeBlock(config)


def qwen3(num_experts: int, top_k: int, norm_topk_prob: bool = True) -> nn.Module:
    "The sparse layer of Qwen3-MoE."
    config = Qwen3MoeConfig(hidden_size=MODEL, moe_intermediate_size=10, num_experts=num_experts,
                            num_experts_per_tok=top_k, norm_topk_prob=norm_topk_prob, experts_implementation="eager")
    return modeling_qwen3_moe.Qwen3MoeSparseMoeBlock(config)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("reference", "num_experts", "top_k", "norm_topk_prob"), [
    (mixtral(8, 2), 8, 2, True),
    (mixtral(5, 3), 5, 3, True),
    (mixtral(4, 4), 4, 4, True),
    (qwen3(8, 2), 8, 2, True),
    (qwen3(8, 3, norm_topk_prob=False), 8, 3, False),
    (qwen3(8, 1, norm_topk_prob=False), 8, 1, None),
])
def test_layer_of_transformers(reference: nn.Module, num_experts: int, top_k: int, norm_topk_prob: bool | None) -> None:
    "The same answers, and the same gradients of the input and of every weight."
    draw(reference, seed=0)
    layer = MoELayer(MODEL, num_experts, top_k, d_ff=10, norm_topk_prob=norm_topk_prob).double()
    layer.load_state_dict(renamed(reference.state_dict(), num_experts))
    inputs = [tokens(28, MODEL, seed=0).view(2, 14, MODEL).requires_grad_() for _ in range(2)]
    output, expected = layer(inputs[0]), reference(inputs[1])
    assert output.dtype == expected.dtype == torch.float64
    assert_close(output, expected, **CLOSE)
    output.square().sum().backward()
    expected.square().sum().backward()
    assert_close(inputs[0].grad, inputs[1].grad, **CLOSE)
    theirs = renamed({name: parameter.grad for name, parameter in reference.named_parameters()}, num_experts)
    for name, parameter in layer.named_parameters():
        assert_close(parameter.grad, theirs[name], **CLOSE)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("num_experts", "top_k"), [(8, 2), (4, 1), (5, 5)])
def test_balance_loss_of_transformers(num_experts: int, top_k: int, masked: bool) -> None:
    logits = [tokens(30, num_experts, seed=0).requires_grad_() for _ in range(2)]
    attention = (torch.rand(3, 10, generator=make_generator(1)) < 0.7).long() if masked else None
    ours = load_balancing_loss(logits[0], logits[0].topk(top_k).indices, attention.bool().flatten() if masked else None)
    theirs = modeling_mixtral.load_balancing_loss_func((logits[1],), num_experts, top_k, attention)
    assert ours.dtype == theirs.dtype == torch.float64
    assert_close(ours, theirs, **CLOSE)
    assert_close(*(torch.autograd.grad(loss, z)[0] for loss, z in zip((ours, theirs), logits, strict=True)), **CLOSE)


@given(n=st.integers(0, 20), num_experts=st.integers(1, 9), seed=st.integers(0, 999), data=st.data())
def test_losses_by_definition(n: int, num_experts: int, seed: int, data: st.DataObject) -> None:
    "Token by token; padding does not count; equal probabilities cost exactly k."
    top_k = data.draw(st.integers(1, num_experts))
    logits = tokens(n, num_experts, seed)
    experts = logits.topk(top_k).indices
    mask = torch.rand(n, generator=make_generator(seed)) < 0.7
    real = mask.nonzero().flatten().tolist()
    counts, probabilities, squares = [0] * num_experts, torch.zeros(num_experts, dtype=torch.float64), 0.0
    for token in real:
        for expert in experts[token].tolist():
            counts[expert] += 1
        probabilities += logits[token].softmax(-1)
        squares += float(logits[token].exp().sum().log()) ** 2
    number = max(len(real), 1)
    balance = num_experts * sum(c * float(p) for c, p in zip(counts, probabilities, strict=True)) / number**2
    assert load_balancing_loss(logits, experts, mask).item() == pytest.approx(balance, abs=1e-12)
    assert router_z_loss(logits, mask).item() == pytest.approx(squares / number, abs=1e-12)
    if n:
        assert load_balancing_loss(torch.zeros_like(logits), experts).item() == pytest.approx(top_k)


# In a model

EXPERTS = {"use_moe": True, "num_experts": 4, "router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.1}   # so large that they count


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("more", [{}, {"capacity_factor": 0.6}, {"layers": ({}, {"use_moe": False})},
                                  {"norm_placement": "post"}, {"attention_type": "sliding_window", "top_k": 1}], ids=str)
def test_padding_is_nothing_to_experts(more: dict, side: str) -> None:
    "One text, alone or beside another text's padding: what training makes of it, its losses and its loads are the same."
    model, length = tiny_model(**EXPERTS, **more), 9
    text = torch.randint(31, (1, length), generator=make_generator(0))
    wide = torch.zeros(1, length + 8, dtype=torch.long)
    mask = torch.zeros_like(wide, dtype=torch.bool)
    place = slice(8, None) if side == "left" else slice(length)
    wide[:, place], mask[:, place] = text, True
    with record_routing(model) as alone:
        expected = model(text)
    with record_routing(model) as padded:
        found = model(wide, mask)
    assert_close(found[:, place], expected, **CLOSE)
    assert_close(routing_loss(padded), routing_loss(alone), **CLOSE)
    assert [r.selected_experts.tolist() for r in padded] == [r.selected_experts.tolist() for r in alone]


def losses_of(model: nn.Module, parts: list[tuple[dict, Tensor]], n_targets: int) -> Tensor:
    "The gradient that a step with these parts makes, of all weights one behind the other."
    objective = MoEObjective(model)
    objective.begin_step(parts, n_targets, lambda numbers: numbers)
    loss = sum(objective(*part) for part in parts) / n_targets
    objective.end_step()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)])


@pytest.mark.parametrize("coefficients", [{}, {"router_aux_loss_coef": 0.0}, {"router_z_loss_coef": 0.0}], ids=str)
@pytest.mark.parametrize("scope", ["layer", "model"])
def test_parts_with_padding_add_up_to_the_whole(scope: str, coefficients: dict) -> None:
    "However a batch is cut, real tokens count once, and padding never does."
    model = tiny_model(**{**EXPERTS, **coefficients}, router_aux_loss_scope=scope, n_layers=3)
    tokens = torch.randint(31, (5, 12), generator=make_generator(0))
    mask = torch.arange(12) < torch.tensor([12, 3, 12, 7, 5])[:, None]
    targets = tokens.roll(-1, 1).masked_fill(~mask, IGNORE_INDEX)
    n_targets = int((targets != IGNORE_INDEX).sum())

    def part(rows: slice, width: int = 12) -> tuple[dict, Tensor]:
        return {"tokens": tokens[rows, :width], "attention_mask": mask[rows, :width]}, targets[rows, :width]

    whole = losses_of(model, [part(slice(0, 5))], n_targets)
    assert_close(losses_of(model, [part(slice(0, 1)), part(slice(1, 3)), part(slice(3, 5), 7)], n_targets), whole, **CLOSE)
    with record_routing(model) as recorded:
        logits = model(tokens, mask)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX)
    loss = loss + routing_loss(recorded, model.config.router_aux_loss_coef, model.config.router_z_loss_coef, scope)
    assert all(len(r.router_logits) == mask.sum() for r in recorded)
    true = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    assert_close(whole, torch.cat([g.flatten() for g in true]), **CLOSE)


def test_the_share_that_finds_no_place_counts_real_tokens() -> None:
    model = tiny_model(**EXPERTS, capacity_factor=0.5)
    tokens, mask = torch.randint(31, (2, 12), generator=make_generator(0)), torch.arange(12) < torch.tensor([[12], [4]])
    objective, parts = MoEObjective(model), [({"tokens": tokens, "attention_mask": mask}, tokens)]
    objective.begin_step(parts, 24, lambda numbers: numbers)
    objective(*parts[0])
    places = ceil(0.5 * 2 * 16 / 4) * 4 * 2     # of two layers with four experts
    assert objective.end_step()["dropped"] >= 1 - places / (2 * 2 * 16)


def test_layers_of_different_sizes_are_not_one_crowd() -> None:
    with pytest.raises(ValueError, match=r"router_aux_loss_scope model .* layers of \[2, 4\] num_experts"):
        ModelConfig(**EXPERTS, router_aux_loss_scope="model", layers=({"num_experts": 2}, {}))
    ModelConfig(**EXPERTS, router_aux_loss_scope="model", layers=({"num_experts": 2, "use_moe": False}, {}))


SPARSE = {"output_router_logits": True, "router_aux_loss_coef": 0.3, "num_experts_per_tok": 2}
WITH_EXPERTS = [Case("Mixtral", "balanced", {**SHAPE, **SPARSE, "num_local_experts": 4}),
                Case("Qwen3Moe", "balanced", {**SHAPE, **SPARSE, "num_experts": 4, "moe_intermediate_size": 8, "head_dim": 4})]


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", WITH_EXPERTS, ids=str)
def test_a_loaded_model_is_balanced_as_in_transformers(case: Case, padded: bool, tmp_path: Path) -> None:
    "The gradients of every weight, of routers above all, in a model of three layers."
    pair = published(reference(case), tmp_path / "model")
    tokens, mask = texts()
    mask = mask if padded else torch.ones_like(mask)
    asked = mask & mask.roll(1, 1).index_fill(1, torch.tensor([0]), False)   # of padding, no prediction is asked
    labels = tokens.masked_fill(~asked, -100)
    answer = pair.theirs(tokens, attention_mask=mask, labels=labels)
    answer.loss.backward()
    theirs = gradients_of(pair.theirs, tmp_path / "gradients")

    targets = torch.cat([labels[:, 1:], torch.full((len(labels), 1), IGNORE_INDEX)], dim=1)
    n_targets = int((targets != IGNORE_INDEX).sum())
    with record_routing(pair.ours) as recorded:
        pair.ours(tokens, mask)
    config = pair.ours.config
    added = routing_loss(recorded, config.router_aux_loss_coef, config.router_z_loss_coef, config.router_aux_loss_scope)
    assert_close(added, 0.3 * answer.aux_loss, **CLOSE)
    objective = MoEObjective(pair.ours.train())
    (objective({"tokens": tokens, "attention_mask": mask}, targets) / n_targets).backward()
    for name, parameter in pair.ours.named_parameters():
        assert_close(parameter.grad, theirs[name], atol=1e-11, rtol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
    assert config.router_aux_loss_scope == "model" and recorded[0].router_logits.shape[1] == 4
