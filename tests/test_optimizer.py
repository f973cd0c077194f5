"""Muon: orthogonal moves for matrices, exactly AdamW for the rest, and a run that goes on as if it had never stopped."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from geminiq.models.transformer import Transformer
from geminiq.training.optimizer import (
    OPTIMIZERS,
    Muon,
    configure_muon,
    hidden_matrices,
    orthogonalize,
)
from geminiq.training.trainer import make_trainer, resume_trainer
from geminiq.utils.checkpointing import checkpoints, load_training_state, save_checkpoint
from geminiq.utils.config import ModelConfig, make_config
from geminiq.utils.device import UserError
from geminiq.utils.files import remove_folder
from helpers import random, tiny_model, tiny_run, tiny_tokenizer

SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 999)


def zeropower(matrix: Tensor) -> Tensor:
    "Jordan's five iterations on one matrix, word for word, in double precision."
    x = matrix.double()
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    x = x / max(x.norm(), 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class ByHand:
    "Jordan's optimizer for one matrix."

    def __init__(self, weight: Tensor, lr: float, weight_decay: float, momentum: float = 0.95):
        self.weight, self.mean = weight.double().clone(), torch.zeros_like(weight, dtype=torch.float64)
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, momentum

    def step(self, gradient: Tensor) -> None:
        self.mean = self.momentum * self.mean + (1 - self.momentum) * gradient
        move = zeropower((1 - self.momentum) * gradient + self.momentum * self.mean)
        rows, columns = self.weight.shape
        self.weight = (1 - self.lr * self.weight_decay) * self.weight - self.lr * max(1, rows / columns) ** 0.5 * move


def weights(*shapes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    "Random weights of these shapes."
    return [nn.Parameter(random(*shape, seed=seed + i).to(dtype)) for i, shape in enumerate(shapes)]


def give_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    "Random gradients."
    for i, p in enumerate(parameters):
        p.grad = random(*p.shape, seed=1000 * seed + i).to(p)


# Orthogonal matrices

@given(rows=SIZES, columns=SIZES, seed=SEEDS, scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_one_matrix_is_that_of_the_published_loop(rows: int, columns: int, seed: int, scale: float) -> None:
    matrix = scale * random(rows, columns, seed=seed)
    assert_close(orthogonalize(matrix), zeropower(matrix), rtol=0, atol=1e-12)
    single = orthogonalize(matrix.float())
    assert single.dtype == torch.float32
    assert_close(single.double(), zeropower(matrix), rtol=0, atol=2e-3)


@given(rows=SIZES, columns=SIZES, n=st.integers(1, 4), m=st.integers(1, 3), seed=SEEDS)
def test_a_batch_is_each_of_its_matrices(rows: int, columns: int, n: int, m: int, seed: int) -> None:
    matrices = random(n, m, rows, columns, seed=seed)
    alone = torch.stack([torch.stack([orthogonalize(matrix) for matrix in row]) for row in matrices])
    assert_close(orthogonalize(matrices), alone, rtol=0, atol=1e-12)


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=SEEDS, cond=st.floats(1, 100))
def test_the_singular_vectors_stay_and_the_values_come_near_one(rows: int, columns: int, seed: int, cond: float) -> None:
    k = min(rows, columns)
    u, v = (torch.linalg.qr(random(size, k, seed=seed + i))[0] for i, size in enumerate((rows, columns)))
    values = torch.logspace(0, -torch.tensor(cond).log10().item(), k, dtype=torch.float64)
    turned = u.mT @ orthogonalize(u * values @ v.mT) @ v
    assert_close(turned, turned.diagonal().diag(), rtol=0, atol=1e-10)
    seen = turned.diagonal()[values / values.norm() > 0.0016]
    assert seen.min() > 0.68 and seen.max() < 1.21


def test_sixteen_bits_are_orthogonalized_in_32_and_nothing_stays_nothing() -> None:
    matrix = random(6, 4).bfloat16()
    assert torch.equal(orthogonalize(matrix), orthogonalize(matrix.float()))
    assert not orthogonalize(torch.zeros(2, 3)).any()


# The steps

@settings(max_examples=30)
@given(shapes=st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=4), copies=st.integers(1, 3), seed=SEEDS,
       decay=st.sampled_from([0.0, 0.1, 1.0]))
def test_the_steps_are_those_by_hand_on_each_matrix(
        shapes: list[tuple[int, int]], copies: int, seed: int, decay: float) -> None:
    parameters = weights(*shapes * copies, seed=seed, dtype=torch.float64)
    optimizer = Muon(parameters, lr=0.03, weight_decay=decay)
    hands = [ByHand(p.detach(), 0.03, decay) for p in parameters]
    for step in range(3):
        give_gradients(parameters, seed + step)
        for hand, p in zip(hands, parameters, strict=True):
            hand.step(p.grad)
        optimizer.step()
    for hand, p in zip(hands, parameters, strict=True):
        assert_close(p.detach(), hand.weight, rtol=0, atol=1e-12)


def test_experts_in_one_tensor_are_moved_as_if_each_had_its_own() -> None:
    stacked, = weights((3, 5, 4), dtype=torch.float64)
    apart = [nn.Parameter(matrix.clone()) for matrix in stacked.detach()]
    for step in range(3):
        give_gradients([stacked], step)
        for p, gradient in zip(apart, stacked.grad, strict=True):
            p.grad = gradient
        if step == 0:
            ours, theirs = Muon([stacked]), Muon(apart)
        ours.step()
        theirs.step()
    assert_close(stacked.detach(), torch.stack([p.detach() for p in apart]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)])
def test_the_steps_of_torch_up_to_16_bits(shape: tuple[int, int]) -> None:
    ours, theirs = (weights(shape)[0] for _ in range(2))
    optimizers = [Muon([ours], lr=0.02, weight_decay=0.1),
                  torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original")]
    start = ours.detach().clone()
    for step in range(5):
        give_gradients([ours], step)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - theirs).norm() < 0.03 * (ours - start).norm()


@settings(max_examples=20)
@given(shapes=st.lists(st.lists(SIZES, min_size=1, max_size=4), min_size=1, max_size=4), seed=SEEDS,
       decay=st.sampled_from([0.0, 0.1]))
def test_the_other_weights_are_moved_by_adamw_bit_for_bit(shapes: list[list[int]], seed: int, decay: float) -> None:
    ours, theirs = (weights(*shapes, seed=seed) for _ in range(2))
    matrix, = weights((4, 4))
    optimizers = [Muon([{"params": [matrix]}, {"params": ours, "lr": 1e-2, "weight_decay": decay, "use_muon": False}]),
                  torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.95), weight_decay=decay, fused=True)]
    for step in range(4):
        give_gradients([*ours, matrix], seed + step)
        for p, like in zip(theirs, ours, strict=True):
            p.grad = like.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert all(map(torch.equal, ours, theirs))
    for p, like in zip(ours, theirs, strict=True):
        state, expected = optimizers[0].state[p], optimizers[1].state[like]
        assert state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)


def test_a_weight_without_a_gradient_stays_and_remembers_nothing() -> None:
    first, second, vector = parameters = weights((3, 4), (3, 4), (5,))
    before = [p.detach().clone() for p in parameters]
    optimizer = Muon([{"params": [first, second]}, {"params": [vector], "use_muon": False}])
    first.grad = torch.ones_like(first)
    optimizer.step()
    assert not torch.equal(first, before[0]) and torch.equal(second, before[1]) and torch.equal(vector, before[2])
    assert list(optimizer.state) == [first]


def test_a_closure_is_called_with_gradients() -> None:
    matrix, = weights((3, 3))

    def closure() -> Tensor:
        loss = matrix.square().sum()
        loss.backward()
        return loss

    before = matrix.detach().square().sum()
    assert Muon([matrix]).step(closure) == before > matrix.detach().square().sum()


# What is refused

@pytest.mark.parametrize("shape", [(3,), (), (2, 3, 4, 5)])
def test_what_is_no_matrix_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="use_muon=False") as refused:
        Muon(weights(shape))
    assert str(shape) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("use_muon", [True, False])
def test_sparse_gradients_are_refused(use_muon: bool) -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = Muon([{"params": table.parameters(), "use_muon": use_muon}])
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(UserError, match="sparse=False"):
        optimizer.step()


def test_a_part_of_a_matrix_is_refused() -> None:
    class Part(nn.Parameter):
        full_tensor = None

    with pytest.raises(UserError, match=r"training\.parallel ddp"):
        Muon([Part(torch.ones(2, 3))])
    with pytest.raises(UserError, match=r"optimizer muon needs whole matrices.*use parallel ddp"):
        make_config({"training": {"optimizer": "muon", "parallel": "fsdp"}})


# Which weights of a model

@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"bias": True, "pos_encoding": "learned"},
                                     {"use_moe": True, "router_noise": True, "num_shared_experts": 1}], ids=str)
def test_hidden_matrices_are_those_of_linear_layers_within_blocks(changes: dict) -> None:
    model = tiny_model(**changes)
    names = {p: name for name, p in model.named_parameters()}
    hidden = {names[p] for p in hidden_matrices(model)}
    expected = {name for name, p in model.named_parameters() if name.startswith("blocks") and p.ndim > 1}
    assert hidden == expected and len(hidden) >= 14
    tables, vectors, matrices = (group["params"] for group in configure_muon(model, 1e-3).param_groups)
    assert {names[p] for p in matrices} == hidden
    assert all(p.ndim < 2 for p in vectors) and all(p.ndim == 2 for p in tables)
    assert len({*tables, *vectors, *matrices}) == len(tables) + len(vectors) + len(matrices) == len(names)


def test_what_is_frozen_is_left_out() -> None:
    model = tiny_model().requires_grad_(False)
    model.blocks[0].requires_grad_(True)
    learned = {p for group in configure_muon(model, 1e-3).param_groups for p in group["params"]}
    assert learned == set(model.blocks[0].parameters())


def test_each_group_has_the_settings_that_were_asked_for() -> None:
    model = Transformer(ModelConfig(vocab_size=9, max_seq_len=8, d_model=8, n_layers=1, n_heads=2))
    settings = make_config({"training": {"optimizer": "muon", "learning_rate": 3e-3, "muon_learning_rate": 0.05,
                                         "weight_decay": 0.2, "betas": [0.8, 0.9]}}).training
    groups = OPTIMIZERS[settings.optimizer](model, settings).param_groups
    assert [(group["use_muon"], group["lr"], group["weight_decay"], group["betas"]) for group in groups] == [
        (False, 3e-3, 0.2, (0.8, 0.9)), (False, 3e-3, 0.0, (0.8, 0.9)), (True, 0.05, 0.2, (0.8, 0.9))]
    assert type(OPTIMIZERS["adamw"](model, settings)) is torch.optim.AdamW


# A run

def test_the_state_goes_into_a_dictionary_and_back_bit_for_bit() -> None:
    models = [tiny_model(bias=True)]
    optimizers = [configure_muon(models[0], 1e-2)]
    give_gradients(list(models[0].parameters()), 0)
    optimizers[0].step()
    models.append(deepcopy(models[0]))
    optimizers.append(configure_muon(models[1], 1.0, 1.0, 1.0))   # its settings are in the dictionary too
    optimizers[1].load_state_dict(deepcopy(optimizers[0].state_dict()))
    for step in range(1, 3):
        for model, optimizer in zip(models, optimizers, strict=True):
            give_gradients(list(model.parameters()), step)
            optimizer.step()
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


@pytest.mark.parametrize("model", [{}, {"use_moe": True, "num_experts": 3, "tie_embeddings": False}], ids=["dense", "experts"])
def test_a_run_that_lost_its_last_steps_goes_on_bit_for_bit(model: dict, tmp_path: Path) -> None:
    config = tiny_run(tmp_path, model, optimizer="muon")
    whole = make_trainer(config, tmp_path / "run", progress=False)
    history = whole.train()
    remove_folder(checkpoints(tmp_path / "run")[-1])     # as if it had been killed after step 4
    resumed = resume_trainer(tmp_path / "run", progress=False)
    assert resumed.step == 4 and resumed.train() == history
    assert all(map(torch.equal, resumed.model.parameters(), whole.model.parameters()))
    ours, theirs = (trainer.optimizer.state_dict()["state"] for trainer in (resumed, whole))
    assert all(torch.equal(ours[i][key], theirs[i][key]) for i in theirs for key in theirs[i])
    assert history[-1]["learning_rate"] == pytest.approx(0.1 * config.training.learning_rate)   # that of training.learning_rate
    assert whole.optimizer.param_groups[-1]["lr"] == pytest.approx(0.1 * config.training.muon_learning_rate)


@pytest.mark.parametrize(("first", "then"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_run_keeps_its_optimizer(first: str, then: str, tmp_path: Path) -> None:
    make_trainer(tiny_run(tmp_path, optimizer=first, max_steps=2), tmp_path / "run", progress=False).train()
    with pytest.raises(UserError, match=rf"training\.optimizer was '{first}', now '{then}'.*or start another run"):
        resume_trainer(tmp_path / "run", progress=False, changes=[f"training.optimizer={then}"])


def test_another_rate_of_hidden_matrices_is_said(tmp_path: Path) -> None:
    make_trainer(tiny_run(tmp_path, optimizer="muon", max_steps=2), tmp_path / "run", progress=False).train()
    changes = ["training.max_steps=4", "training.muon_learning_rate=0.1"]
    notices = resume_trainer(tmp_path / "run", progress=False, changes=changes).notices
    assert notices[-1] == "hidden matrices go on with muon_learning_rate 0.1, it was 0.02"


def test_momentum_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tiny_run(tmp_path, optimizer="muon"), tmp_path / "run", progress=False)
    optimizer, matrix = trainer.optimizer, hidden_matrices(trainer.model)[0]
    optimizer.state[matrix]["momentum_buffer"] = torch.zeros(3, 3)
    save_checkpoint(tmp_path / "wrong", trainer.model, tiny_run(tmp_path, optimizer="muon"), tiny_tokenizer(), optimizer)
    with pytest.raises(UserError, match=r"'momentum_buffer .*' as float32 of shape \(3, 3\), which does not fit \(24, 24\)"):
        load_training_state(tmp_path / "wrong", trainer.model, optimizer)


def test_an_optimizer_of_ones_own_is_chosen_by_name(tmp_path: Path) -> None:
    OPTIMIZERS["plain"] = lambda model, settings: torch.optim.SGD(model.parameters(), settings.learning_rate)
    try:
        trainer = make_trainer(tiny_run(tmp_path, optimizer="plain"), tmp_path / "run", progress=False)
        trainer.train()
        assert type(trainer.optimizer) is torch.optim.SGD
    finally:
        del OPTIMIZERS["plain"]
    with pytest.raises(UserError, match=r"training\.optimizer 'muonn' is unknown: did you mean muon\?"):
        tiny_run(tmp_path, optimizer="muonn")
