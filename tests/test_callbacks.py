"""The trainer with its callbacks: what a step of several parts adds up to, and what a run does besides."""

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from math import isfinite
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.testing import assert_close
from typer.testing import CliRunner

from geminiq.cli import app
from geminiq.data.dataloader import Data, ShuffledBatchSampler, prepare_data
from geminiq.data.dataset import IGNORE_INDEX
from geminiq.models.moe import record_routing, routing_loss
from geminiq.models.transformer import Transformer
from geminiq.training import trainer as trainer_module
from geminiq.training.callbacks import (
    LOG,
    TABLE,
    Callback,
    Checkpointing,
    EarlyStopping,
    Locking,
    Logging,
    TensorBoard,
    best_evaluation,
    claim_folder,
)
from geminiq.training.distributed import SingleDevice
from geminiq.training.losses import OBJECTIVES, Inputs, Objective, build_objective, cross_entropy_loss, map_tensors
from geminiq.training.optimizer import SCHEDULES, configure_optimizer
from geminiq.training.trainer import (
    DATASETS,
    StepResult,
    Trainer,
    amp_dtype,
    make_trainer,
    read_data,
    resume_trainer,
    step_seed,
    train_step,
)
from geminiq.utils.checkpointing import checkpoints
from geminiq.utils.config import Config, load_config, save_config
from geminiq.utils.device import UserError, make_generator
from geminiq.utils.files import lock_folder
from geminiq.utils.metrics import accuracy, perplexity
from helpers import tiny_model, tiny_run

MOE = {"use_moe": True, "num_experts": 4, "router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.1}  # so large that they count
BATCH = torch.randint(31, (8, 9), generator=make_generator(0))
INPUTS, TARGETS = BATCH[:, :-1], BATCH[:, 1:].clone()
TARGETS[5:, 4:] = IGNORE_INDEX
TARGETS[0] = IGNORE_INDEX


def updated(parts: int, model: dict, **settings: object) -> tuple[Tensor, StepResult]:
    "All weights after one update in float64, whose batch comes in parts of so many rows."
    objective = build_objective(tiny_model(**model), **settings)
    pieces = list(zip(INPUTS.split(parts), TARGETS.split(parts), strict=True))
    # Not Adam: it moves every weight equally far in its first step, whatever the length of the gradient.
    result = train_step(objective, torch.optim.SGD(objective.parameters(), lr=1.0), pieces, 10.0)
    return torch.cat([p.detach().flatten() for p in objective.parameters()]), result


@pytest.mark.parametrize("model", [{}, MOE, {**MOE, "top_k": 1, "num_shared_experts": 1}], ids=["dense", "moe", "switch"])
@pytest.mark.parametrize("how", [{}, {"label_smoothing": 0.1, "vocab_chunk": 7}], ids=["plain", "smooth pieces"])
@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7])
def test_parts_of_a_batch_move_the_weights_as_the_whole(model: dict, how: dict, parts: int) -> None:
    "The last part may be shorter, targets may be ignored, a whole part of them too, and there may be experts."
    weights, result = updated(parts, model, **how)
    expected, whole = updated(8, model, **how)
    assert_close(weights, expected, atol=1e-12, rtol=0)
    assert_close(result.loss, whole.loss, atol=1e-12, rtol=0)
    assert_close(result.grad_norm, whole.grad_norm, atol=1e-12, rtol=0)


def test_the_losses_of_experts_are_those_of_their_lesson() -> None:
    model = tiny_model(**MOE)
    with record_routing(model) as recorded:
        loss = cross_entropy_loss(model(INPUTS), TARGETS, "sum")
    ours = build_objective(model)(INPUTS, TARGETS)
    assert_close(ours, loss, atol=1e-12, rtol=0)                              # what is reported is that of the predictions
    n_targets = (TARGETS != IGNORE_INDEX).sum()
    theirs = loss + n_targets * routing_loss(recorded, 0.5, 0.1)              # what is learned from is the sum
    assert_close(*(torch.autograd.grad(each, list(model.parameters())) for each in (ours, theirs)), atol=1e-12, rtol=0)


def test_looking_ahead_draws_what_will_be_drawn() -> None:
    "With dropout and a router's noise the experts chosen beforehand are those that are chosen then."
    model = tiny_model(**MOE, dropout=0.3, router_noise=True)
    with record_routing(model) as recorded, torch.random.fork_rng([]):
        torch.manual_seed(0)
        batch = [(INPUTS[:4], TARGETS[:4]), (INPUTS[4:], TARGETS[4:])]
        train_step(build_objective(model), configure_optimizer(model, 1e-3), batch)
    ahead, after = recorded[:4], recorded[4:]
    assert len(after) == 4
    for a, b in zip(ahead, after, strict=True):
        assert torch.equal(a.selected_experts, b.selected_experts)


def test_choices_without_a_place_are_counted() -> None:
    "As a share of all choices of the step, whatever its parts; without a limit there are none."
    limited = {**MOE, "capacity_factor": 0.5}
    model = tiny_model(**limited)
    build_objective(model)(INPUTS, TARGETS)
    dropped = sum(block.feed_forward.dropped for block in model.blocks) / (2 * 2 * INPUTS.numel())
    assert 0.3 < dropped < 0.9
    assert updated(8, limited)[1].more == pytest.approx({"dropped": dropped})
    assert 0.3 < updated(4, limited)[1].more["dropped"] < 0.9
    assert updated(3, MOE)[1].more == updated(8, {})[1].more == {}




@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    "Read once."
    folder = tmp_path_factory.mktemp("data")
    config = tiny_run(folder)
    return prepare_data(config.data, config.model.vocab_size, config.training.seed, folder)


def lines(run: Path) -> list[dict]:
    "The log."
    return [json.loads(line) for line in (run / LOG).read_text().splitlines()]


@pytest.mark.parametrize("model", [{"dropout": 0.1}, {"use_moe": True, "num_experts": 3, "router_noise": True, "dropout": 0.1}])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_computing_activations_again_changes_no_bit(model: dict, accumulation: int, data: Data, tmp_path: Path) -> None:
    histories = []
    for again in (False, True):
        config = tiny_run(tmp_path, model, gradient_checkpointing=again, gradient_accumulation=accumulation)
        trainer = make_trainer(config, tmp_path / str(again), data=data, progress=False)
        assert trainer.model.gradient_checkpointing == again
        histories.append(trainer.train())
    assert histories[0] == histories[1]


def test_activations_are_indeed_computed_again(data: Data, tmp_path: Path) -> None:
    calls = []
    config = tiny_run(tmp_path, gradient_checkpointing=True, max_steps=1, eval_every=100)
    trainer = make_trainer(config, tmp_path / "run", data=data, progress=False)
    trainer.model.blocks[0].attention.register_forward_hook(lambda *_: calls.append(trainer.model.training))
    trainer.train()
    assert calls.count(True) == 2


def test_the_trainer_can_do_without_logits(data: Data, tmp_path: Path) -> None:
    histories = []
    for chunk in (None, 50):
        config = tiny_run(tmp_path, vocab_chunk=chunk, label_smoothing=0.1)
        model = Transformer(config.model).double()
        trainer = Trainer(model, data.train, data.val, config.training)
        if chunk:
            trainer.model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head was called"))
        histories.append(trainer.train())
    for ours, theirs in zip(*histories, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)   # Adam divides by small numbers: more than rounding, after eight steps


def trained(data: Data, config: Config, dtype: torch.dtype = torch.float32, **parts: object) -> Trainer:
    "A trainer that has trained, given its parts by hand; it writes nothing."
    how, model = config.training, Transformer(config.model)
    objective = build_objective(model, dtype=dtype, label_smoothing=how.label_smoothing, vocab_chunk=how.vocab_chunk)
    trainer = Trainer(model, data.train, data.val, how, objective=objective, **parts)
    trainer.train()
    return trainer


def test_pieces_of_the_vocabulary_under_autocast(data: Data, tmp_path: Path) -> None:
    "Products in 16 bits, the same losses as with all logits."
    runs = [trained(data, tiny_run(tmp_path, vocab_chunk=chunk, label_smoothing=0.1), dtype)
            for chunk, dtype in ((None, torch.bfloat16), (50, torch.bfloat16), (None, torch.float32))]
    losses = [[entry["loss"] for entry in run.log_history[1:]] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)      # before the first step nothing has been rounded twice
    assert abs(losses[0][0] - losses[2][0]) > 1e-6 * losses[2][0]     # and it was 16 bits
    accuracies = [[entry.accuracy for entry in run.evaluations] for run in runs]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.05)    # after the first step, rounding decides close calls


def test_smoothing_is_for_training_alone(data: Data, tmp_path: Path) -> None:
    plain, smooth = (make_trainer(tiny_run(tmp_path, label_smoothing=epsilon), tmp_path / str(epsilon), data=data,
                                  progress=False) for epsilon in (0.0, 0.5))
    assert plain.evaluate() == smooth.evaluate()
    plain.train(), smooth.train()
    assert smooth.log_history[-1]["loss"] > plain.log_history[-1]["loss"]


def test_the_share_of_dropped_choices_is_in_the_history(data: Data, tmp_path: Path) -> None:
    moe = {"use_moe": True, "num_experts": 4}
    config = tiny_run(tmp_path, {**moe, "capacity_factor": 0.5})
    limited = make_trainer(config, tmp_path / "a", data=data, progress=False).train()
    free = make_trainer(tiny_run(tmp_path, moe), tmp_path / "b", data=data, progress=False).train()
    assert all(0.2 < entry["dropped"] < 1 for entry in limited[1:])
    assert not any("dropped" in entry for entry in free)


class Moments(Callback):
    "Writes down what it is told, and stops or fails when it should."

    def __init__(self, stop: int = 0, fail: int = 0):
        self.told: list[object] = []
        self.stop, self.fail = stop, fail

    def on_train_begin(self, trainer: Trainer) -> None:
        self.told.append(("start", len(trainer.log_history)))

    def on_step_begin(self, trainer: Trainer) -> None:
        self.told.append(-trainer.step)

    def on_step_end(self, trainer: Trainer, entry: dict) -> None:
        assert entry is trainer.log_history[-1] and entry["step"] == trainer.step
        self.told.append(trainer.step)
        entry["mine"] = 2 * trainer.step
        if trainer.step == self.stop:
            trainer.stop("enough")
        if trainer.step == self.fail:
            raise RuntimeError("broken")

    def on_train_end(self, trainer: Trainer) -> None:
        self.told.append("end")

    def on_close(self, trainer: Trainer) -> None:
        self.told.append("close")


def test_a_callback_of_ones_own_is_told_and_what_it_adds_is_kept(data: Data, tmp_path: Path) -> None:
    mine = Moments(stop=3)
    trainer = make_trainer(tiny_run(tmp_path), tmp_path / "run", [mine], progress=False, data=data)
    history = trainer.train()
    assert mine.told == [("start", 0), -1, 1, -2, 2, -3, 3, "end", "close"]
    assert trainer.stop_reason == "enough" and len(history) == 4
    assert lines(tmp_path / "run") == history and history[-1]["mine"] == 6
    again = Moments()
    resumed = resume_trainer(tmp_path / "run", progress=False, callbacks=[again])
    assert resumed.log_history == history                              # it was in the checkpoint
    resumed.train()
    assert again.told[:3] == [("start", 4), -4, 4] and resumed.step == 8
    assert lines(tmp_path / "run") == resumed.log_history


def test_an_error_saves_nothing_and_closes_everything(data: Data, tmp_path: Path) -> None:
    broken, after = Moments(fail=3), Moments()
    trainer = make_trainer(tiny_run(tmp_path, save_every=2), tmp_path / "run", [broken, after], progress=False, data=data)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train()
    assert after.told[-1] == "close" and "end" not in after.told
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-000002"]
    resumed = resume_trainer(tmp_path / "run", progress=False).train()      # the log has a step 3 that is done again
    assert lines(tmp_path / "run") == resumed and [entry["step"] for entry in resumed] == list(range(9))


class Rates(Callback):
    "A learning rate that ruins what was learned, from some step on."

    def on_step_begin(self, trainer: Trainer) -> None:
        if trainer.step > 6:
            trainer.optimizer.param_groups[0]["lr"] = 3.0


@pytest.mark.parametrize("cut", [5, 8, 9])
def test_early_stopping_is_as_patient_after_a_resume(cut: int, data: Data, tmp_path: Path) -> None:
    config = tiny_run(tmp_path, max_steps=100, eval_every=2, patience=2)
    whole = make_trainer(config, tmp_path / "whole", [Rates()], progress=False, data=data)
    whole.train()
    assert any(isinstance(callback, EarlyStopping) for callback in whole.callbacks)
    assert whole.step == 10 and best_evaluation(whole.log_history)[::2] == (6, 2) and "step 6" in whole.stop_reason
    make_trainer(config, tmp_path / "cut", [Rates(), Moments(stop=cut)], progress=False, data=data).train()
    resumed = resume_trainer(tmp_path / "cut", progress=False, callbacks=[Rates()])
    resumed.train()
    assert resumed.step == 10 and resumed.stop_reason == whole.stop_reason
    assert [entry["loss"] for entry in resumed.log_history[1:]] == [entry["loss"] for entry in whole.log_history[1:]]
    again = resume_trainer(tmp_path / "cut", progress=False)
    again.train()
    assert again.step == 10 and again.stop_reason == whole.stop_reason      # it does not begin anew


def test_the_command_line_says_why_it_stopped(tmp_path: Path) -> None:
    "Also when it is asked to go on, until it is given more patience."
    config = tiny_run(tmp_path, max_steps=40, eval_every=1, patience=1, learning_rate=5.0, warmup_steps=0)
    save_config(config, tmp_path / "c.yaml")
    command = ["train", "--config", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")]
    for more in ([], ["--resume"]):
        result = CliRunner().invoke(app, command + more)
        assert result.exit_code == 0
        assert re.search(r"stopped at step (\d+): the held-out loss has not fallen .* of step \1\n", result.stdout), result.stdout
    step = len(lines(tmp_path / "run"))
    result = CliRunner().invoke(app, [*command, "--resume", "--set", "training.patience=39", "--max-steps", str(step + 1)])
    assert result.exit_code == 0 and "stopped" not in result.stdout and len(lines(tmp_path / "run")) == step + 2


@pytest.mark.parametrize("key", ["patience=0", "vocab_chunk=0", "label_smoothing=1", "parallel=tensor"])
def test_settings_that_make_no_sense_are_refused(key: str, tmp_path: Path) -> None:
    name, _, value = key.partition("=")
    with pytest.raises(UserError, match=f"training.{name} is"):
        tiny_run(tmp_path, **{name: value if name == "parallel" else float(value)})


# What a trainer is given

def test_a_trainer_given_its_parts_writes_nothing_and_learns_as_the_configured_one(data: Data, tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    model = Transformer(config.model, make_generator(config.training.seed))
    by_hand = Trainer(model, data.train, data.val, config.training)
    before = sorted(tmp_path.rglob("*"))
    assert by_hand.train() == make_trainer(config, tmp_path / "run", data=data, progress=False).train()
    assert sorted(path for path in tmp_path.rglob("*") if tmp_path / "run" not in [path, *path.parents]) == before
    assert [type(callback).__name__ for callback in by_hand.callbacks] == ["LRScheduling", "MemoryRelease"]


def test_optimizer_and_objective_can_be_replaced(data: Data, tmp_path: Path) -> None:
    config = tiny_run(tmp_path, max_steps=2)
    model = Transformer(config.model)

    class Doubled(Objective):
        def forward(self, inputs: Inputs, targets: Tensor) -> Tensor:
            return 2 * super().forward(inputs, targets)

    trainer = Trainer(model, data.train, data.val, config.training, objective=Doubled(model),
                      make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    history = trainer.train()
    assert isinstance(trainer.optimizer, torch.optim.SGD) and history[1]["learning_rate"] == 0    # its own rate
    assert history[1]["loss"] == pytest.approx(2 * history[0]["val_loss"], rel=0.05)


def test_a_schedule_and_an_objective_of_ones_own_are_chosen_by_name(data: Data, tmp_path: Path) -> None:
    class Mine(Objective):
        pass

    SCHEDULES["mine"], OBJECTIVES["mine"] = lambda step, **_: 1 / step, Mine
    try:
        config = tiny_run(tmp_path, schedule="mine", objective="mine")
        trainer = make_trainer(config, tmp_path / "run", data=data, progress=False)
        assert type(trainer.objective) is Mine
        rates = [entry["learning_rate"] for entry in trainer.train()[1:]]
        assert rates == pytest.approx([rates[0] / step for step in range(1, 9)])
    finally:
        del SCHEDULES["mine"], OBJECTIVES["mine"]
    for wrong in ({"schedule": "mine"}, {"objective": "mine"}, {"objective": "cross_entropi"}):
        with pytest.raises(UserError, match=r"is unknown: did you mean (linear|cross_entropy)|known are cross_entropy, experts"):
            tiny_run(tmp_path, **wrong)


def test_inputs_may_be_several_tensors(data: Data) -> None:
    "In a tuple or a dictionary, which the objective hands to the model."
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_model()
            self.lm_head, self.logits = self.inner.lm_head, self.inner.logits

        def hidden_states(self, tokens: Tensor, shift: Tensor) -> Tensor:
            return self.inner.hidden_states((tokens + shift) % 31)

    model, shift = TwoInputs(), torch.ones_like(INPUTS)
    expected = cross_entropy_loss(model.inner((INPUTS + 1) % 31), TARGETS, "sum")
    for inputs in ((INPUTS, shift), {"shift": shift, "tokens": INPUTS}):
        assert torch.equal(Objective(model)(inputs, TARGETS), expected)
        result = train_step(Objective(model), torch.optim.SGD(model.parameters(), lr=0.0), [(inputs, TARGETS)])
        assert result.loss == pytest.approx(expected.item() / int((TARGETS != IGNORE_INDEX).sum()), rel=1e-12)


def test_every_tensor_of_the_inputs_is_changed_and_their_shape_is_kept() -> None:
    one, two = torch.tensor([1]), torch.tensor([2])
    assert map_tensors(torch.neg, one) == -1
    assert map_tensors(torch.neg, (one, two)) == (-one, -two)
    assert map_tensors(torch.neg, {"a": one, "b": two}) == {"a": -one, "b": -two}


def test_data_is_read_as_it_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "A text is prepared; a name that somebody registered is looked up."
    config = tiny_run(tmp_path)
    found = read_data(config, tmp_path)
    expected = prepare_data(config.data, config.model.vocab_size, config.training.seed, tmp_path)
    assert found.fingerprint() == expected.fingerprint()
    monkeypatch.setitem(DATASETS, "mine", lambda config, tokenizer: (config.data.train_path, tokenizer))
    config.data.train_path = "mine"
    assert read_data(config, tmp_path, found.tokenizer) == ("mine", found.tokenizer)


# Evaluations

def test_perplexity_and_accuracy_at_every_evaluation(data: Data, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_run(tmp_path), tmp_path / "run", data=data, progress=False)
    history = trainer.train()
    assert [entry["step"] for entry in history if "val_loss" in entry] == [0, 2, 4, 6, 8]
    for entry in lines(tmp_path / "run"):
        assert ("val_loss" in entry) == ("val_perplexity" in entry) == ("val_accuracy" in entry)
    with torch.no_grad():
        rows = [(x, y) for i in range(8) for x, y in [data.val[i]]]         # two batches of four windows
        inputs, targets = (torch.stack(each) for each in zip(*rows, strict=True))
        logits = trainer.model.eval()(inputs)
    last = history[-1]
    assert last["val_loss"] == pytest.approx(cross_entropy_loss(logits, targets).item(), rel=1e-6)
    assert last["val_perplexity"] == pytest.approx(perplexity(last["val_loss"]))
    assert last["val_accuracy"] == pytest.approx(accuracy(logits, targets))
    assert trainer.evaluations[-1] == (last["val_loss"], last["val_accuracy"])


@settings(deadline=None)
@given(n=st.integers(1, 9), vocab=st.integers(1, 12), chunk=st.integers(1, 15), seed=st.integers(0, 99))
def test_what_is_measured_in_pieces_is_what_is_measured_at_once(n: int, vocab: int, chunk: int, seed: int) -> None:
    generator = make_generator(seed)
    model = tiny_model(vocab_size=vocab)
    inputs = torch.randint(vocab, (n, 8), generator=generator)
    targets = torch.randint(vocab, (n, 8), generator=generator)
    targets[torch.rand(n, 8, generator=generator) < 0.25] = IGNORE_INDEX
    whole, pieces = (Objective(model, vocab_chunk=size).measure(inputs, targets) for size in (None, chunk))
    assert_close(whole, pieces, atol=1e-10, rtol=0)
    counted = (targets != IGNORE_INDEX).sum().item()
    assert whole[1].item() == pytest.approx(accuracy(model(inputs), targets) * counted if counted else 0)


# Sixteen bits

def test_scaling_the_loss_by_a_power_of_two_changes_no_bit_in_32_bits() -> None:
    "Unscaled before they are cut; with parts too."
    found = []
    for scaler in (None, GradScaler("cpu", init_scale=2.0**10)):
        objective = Objective(tiny_model().float())
        optimizer = configure_optimizer(objective, 1e-2)
        pieces = list(zip(INPUTS.split(3), TARGETS.split(3), strict=True))
        results = [train_step(objective, optimizer, pieces, 0.1, scaler=scaler) for _ in range(4)]
        found.append((results, [p.detach().clone() for p in objective.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))


class Overflow(Objective):
    "Its gradient is infinite in the steps that are named."

    steps: tuple[int, ...] = ()
    step = 0

    def forward(self, inputs: Inputs, targets: Tensor) -> Tensor:
        self.step += 1
        loss = super().forward(inputs, targets)
        return loss * torch.inf if self.step in self.steps else loss


def test_a_gradient_that_overflows_is_skipped_and_the_scale_halved() -> None:
    objective = Overflow(tiny_model().float())
    objective.steps = (2,)
    optimizer, scaler = configure_optimizer(objective, 1e-2), GradScaler("cpu", init_scale=16.0)
    weights, scales = [], []
    for _ in range(3):
        result = train_step(objective, optimizer, [(INPUTS, TARGETS)], scaler=scaler)
        weights.append(torch.cat([p.detach().flatten() for p in objective.parameters()]))
        scales.append(scaler.get_scale())
        assert isfinite(result.grad_norm) == (objective.step != 2)
    assert scales == [16, 8, 8]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert {float(state["step"]) for state in optimizer.state.values()} == {2.0}      # AdamW did not count it either


def test_a_gradient_that_is_never_finite_is_an_error_at_last() -> None:
    objective = Overflow(tiny_model().float())
    objective.steps = tuple(range(100))
    optimizer, scaler = configure_optimizer(objective, 1e-2), GradScaler("cpu", init_scale=16.0)
    for _ in range(4):
        train_step(objective, optimizer, [(INPUTS, TARGETS)], scaler=scaler)
    with pytest.raises(UserError, match="not finite"):
        train_step(objective, optimizer, [(INPUTS, TARGETS)], scaler=scaler)
    with pytest.raises(UserError, match="not finite"):
        train_step(objective, optimizer, [(INPUTS, TARGETS)])


def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    "Let a run on this processor compute as on a card that knows float16 alone, with a scale that soon overflows."
    monkeypatch.setattr(trainer_module, "amp_dtype", lambda use_amp, device: torch.float16)
    monkeypatch.setattr(trainer_module, "GradScaler", partial(GradScaler, init_scale=2.0**26, growth_interval=2))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_float16_with_a_scaled_loss_goes_on_after_a_stop_as_if_there_had_been_none(
        accumulation: int, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "Steps are skipped while the scale comes down, and the scale is in the checkpoint."
    sixteen(monkeypatch)
    config = tiny_run(tmp_path, {"dropout": 0.1}, gradient_accumulation=accumulation, max_steps=20)
    whole = make_trainer(config, tmp_path / "whole", data=data, progress=False)
    history = whole.train()
    skipped = [entry["step"] for entry in history[1:] if entry["grad_norm"] is None]
    assert whole.scaler.is_enabled() and skipped and skipped[0] == 1 and len(skipped) < 15
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    for stop in (skipped[-1], 13):
        make_trainer(config, tmp_path / str(stop), [Moments(stop=stop)], progress=False, data=data).train()
        state = json.loads((tmp_path / str(stop) / f"step-{stop:06d}" / "training.json").read_text())
        resumed = resume_trainer(tmp_path / str(stop), progress=False)
        assert resumed.scaler.get_scale() == state["scaler"]["scale"]
        resumed.train()
        assert [{**entry, "mine": None} for entry in resumed.log_history] == [{**entry, "mine": None} for entry in history]
        assert all(map(torch.equal, resumed.model.parameters(), whole.model.parameters()))
    near = make_trainer(tiny_run(tmp_path, {"dropout": 0.1}, max_steps=1), tmp_path / "near", data=data, progress=False)
    assert near.dtype == torch.float16
    assert all(json.dumps(entry, allow_nan=False) for entry in history)


@pytest.mark.parametrize(("use_amp", "fast", "device", "expected"), [
    ("auto", torch.bfloat16, "cuda", torch.bfloat16), ("auto", torch.float32, "cuda", torch.float32),
    (True, torch.bfloat16, "cuda", torch.bfloat16), (True, torch.float32, "cuda", torch.float16),
    (True, torch.bfloat16, "cpu", torch.bfloat16), (True, torch.float32, "cpu", torch.float32),
    ("auto", torch.bfloat16, "cpu", torch.bfloat16), (False, torch.bfloat16, "cuda", torch.float32),
])
def test_which_format_products_have(use_amp: bool | str, fast: torch.dtype, device: str, expected: torch.dtype,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    "`fast` is what the device has circuits for."
    monkeypatch.setattr(trainer_module, "autocast_dtype", lambda device: fast)
    assert amp_dtype(use_amp, torch.device(device)) == expected


# Chance, and the place in the text

def test_no_run_repeats_a_step_of_another() -> None:
    "The seeds of dropout, for all pairs of runs, steps and processes."
    seeds = {step_seed(seed, step, rank) for seed in range(40) for step in range(1, 41) for rank in range(4)}
    assert len(seeds) == 40 * 40 * 4
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)      # of which a processor uses 32 bits


def test_the_randomness_of_every_device_is_given_back(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "Of Apple's too, which is played here."
    trainer = Trainer(tiny_model(), data.train, data.val, tiny_run(tmp_path).training)
    trainer.device, state = torch.device("mps"), ["before"]
    mps = SimpleNamespace(get_rng_state=lambda device: state[0], set_rng_state=lambda new, device: state.__setitem__(0, new))
    monkeypatch.setattr(torch, "get_device_module", lambda kind: {"mps": mps}[kind])
    with trainer._own_randomness():
        state[0] = "drawn from"
    assert state == ["before"]


def windows(trainer: Trainer) -> list[Tensor]:
    "The windows that a trainer reads, which come into this list as it trains."
    read: list[Tensor] = []
    step = trainer.train_step
    trainer.train_step = lambda batches: (read.extend(row for inputs, _ in batches for row in inputs), step(batches))[1]
    return read


@pytest.mark.parametrize(("batch_size", "accumulation"), [(3, 1), (2, 5), (7, 2)])
def test_a_run_that_goes_on_with_other_batches_goes_on_exactly_there(
        batch_size: int, accumulation: int, data: Data, tmp_path: Path) -> None:
    config = tiny_run(tmp_path, gradient_accumulation=2, max_steps=40)
    first = make_trainer(config, tmp_path / "run", [Moments(stop=5)], progress=False, data=data)
    read = windows(first)
    first.train()
    assert len(read) == 5 * 2 * 4
    config = tiny_run(tmp_path, batch_size=batch_size, gradient_accumulation=accumulation, max_steps=40)
    resumed = resume_trainer(tmp_path / "run", config, progress=False)
    more = windows(resumed)
    resumed.train()
    assert len(more) == 35 * batch_size * accumulation and resumed.windows_read == len(read) + len(more)
    order = ShuffledBatchSampler(len(data.train), 1, config.training.seed)
    for window, (k,) in zip([*read, *more], order, strict=False):
        assert torch.equal(window, data.train[k][0])


# What is said before it starts

def test_a_learning_rate_that_changes_at_the_seam_is_said(data: Data, tmp_path: Path) -> None:
    make_trainer(tiny_run(tmp_path), tmp_path / "run", progress=False, data=data).train()
    assert resume_trainer(tmp_path / "run", progress=False).notices == [
        "nothing to do: step 8 is done, and training.max_steps is 8; to go on, give more, such as --max_steps 16"]
    longer = resume_trainer(tmp_path / "run", progress=False, changes=["training.max_steps=12"])
    (notice,) = longer.notices
    assert "max_steps was 8" in notice
    said = float(re.search(r"goes on with (\S+) where", notice)[1])
    assert longer.train()[9]["learning_rate"] == pytest.approx(said, rel=0.05)
    constant = tiny_run(tmp_path, schedule="constant")
    make_trainer(constant, tmp_path / "flat", progress=False, data=data).train()
    assert resume_trainer(tmp_path / "flat", progress=False, given={"training.max_steps": 12}).notices == []


def test_a_folder_is_looked_at_before_the_text_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Data) -> None:
    config = tiny_run(tmp_path)
    make_trainer(config, tmp_path / "run", progress=False, data=data).train()
    (tmp_path / "file").touch()
    monkeypatch.setattr(trainer_module, "read_data", lambda *_: pytest.fail("the text was read"))
    cases = {"run": "holds a run up to step-000008", "file": "cannot be written", "file/run": "cannot be written"}
    for folder, said in cases.items():
        with pytest.raises(UserError, match=said):
            make_trainer(config, tmp_path / folder)
    with lock_folder(tmp_path / "run"), pytest.raises(UserError, match=f"in use by process {os.getpid()} "):
        resume_trainer(tmp_path / "run")


def test_a_text_is_found_again_from_another_folder_and_may_move(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    config.data.train_path, config.data.val_path = "text.txt", "text.txt"
    with chdir(tmp_path):
        make_trainer(config, "run", [Moments(stop=4)], progress=False).train()
    assert load_config(tmp_path / "run" / "step-000004" / "config.yaml").data.train_path == str(tmp_path / "text.txt")
    assert config.data.train_path == "text.txt"                       # the caller's is left as it was
    (tmp_path / "moved.txt").write_text((tmp_path / "text.txt").read_text())
    (tmp_path / "text.txt").rename(tmp_path / "val.txt")
    with pytest.raises(UserError, match="no corpus"):
        resume_trainer(tmp_path / "run", progress=False)
    (tmp_path / "val.txt").rename(tmp_path / "text.txt")
    moved = resume_trainer(tmp_path / "run", progress=False, given={"data.train_path": str(tmp_path / "moved.txt")})
    assert moved.train()[-1]["step"] == 8


# What is written

def test_a_checkpoint_does_not_grow_with_the_steps(data: Data, tmp_path: Path) -> None:
    sizes = []
    for steps in (8, 80):
        trainer = make_trainer(tiny_run(tmp_path, max_steps=steps), tmp_path / str(steps), progress=False, data=data)
        trainer.train()
        sizes.append((checkpoints(tmp_path / str(steps))[-1] / "training.json").stat().st_size)
        assert resume_trainer(tmp_path / str(steps), progress=False).log_history == trainer.log_history
    assert sizes[1] - sizes[0] <= 2 * len("0")       # a digit more in two numbers


def test_a_spreadsheet_and_tensorboard_show_the_history(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "Also what a callback adds in the middle, and after a stop; TensorBoard is played here."
    board: list[tuple] = []

    class Writer:
        def __init__(self, folder: Path, purge_step: int | None): board.append((folder.name, purge_step))
        def add_scalar(self, key: str, value: float, step: int) -> None: board.append((key, value, step))
        def close(self) -> None: board.append(("closed",))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setattr(trainer_module, "find_spec", lambda name: name)
    make_trainer(tiny_run(tmp_path), tmp_path / "run", [Moments(stop=5)], progress=False, data=data).train()
    history = resume_trainer(tmp_path / "run", progress=False).train()
    with (tmp_path / "run" / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{key: float(value) for key, value in row.items() if value} for row in rows] == history
    assert [end for end in board if len(end) < 3] == [("tensorboard", None), ("closed",), ("tensorboard", 6), ("closed",)]
    shown = [(key, value, entry["step"]) for entry in history for key, value in entry.items() if key != "step"]
    assert [end for end in board if len(end) == 3] == shown


class Failing(Objective):
    "Asks for something, or fails, in its second step."

    calls = 0

    def forward(self, inputs: Inputs, targets: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            self.fail()
        return super().forward(inputs, targets)


def too_much() -> None:
    torch.empty(2**60)


def out_of(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error
    return fail


@pytest.mark.parametrize("fail", [too_much, out_of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
                                  out_of(MemoryError()), out_of(RuntimeError("MPS backend out of memory"))])
def test_too_little_memory_is_a_line_with_what_needs_less(fail: Callable[[], None], data: Data, tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    for broken in (fail, out_of(RuntimeError("an illegal memory access"))):
        model = Transformer(config.model)
        objective = Failing(model)
        objective.fail = broken
        trainer = Trainer(model, data.train, data.val, config.training, objective=objective)
        with pytest.raises(UserError if broken is fail else RuntimeError) as caught:
            trainer.train()
        if broken is fail:
            said = str(caught.value)
            assert "out of memory in step 2" in said and "\n" not in said
            assert "training.batch_size=2 with training.gradient_accumulation=2" in said and "gradient_checkpointing" in said


def test_of_no_checkpoints_none_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="keep at least 1"):
        Checkpointing(tmp_path, 1, tiny_run(tmp_path), None, keep=0)


def test_a_folder_is_taken_once_and_given_back(tmp_path: Path) -> None:
    alone, locking = SingleDevice(), Locking(tmp_path)
    run = SimpleNamespace(strategy=alone, step=0, log_history=[])
    locking.on_train_begin(run)
    for second in (lambda: lock_folder(tmp_path).__enter__(), lambda: claim_folder(tmp_path, alone),
                   lambda: Locking(tmp_path).on_train_begin(run)):
        with pytest.raises(UserError, match=f"in use by process {os.getpid()} "):
            second()
    locking.on_close(run)
    with lock_folder(tmp_path):
        pass
    claim_folder(tmp_path, alone).close()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*: choose another"):
        claim_folder(tmp_path / "file" / "run", alone)


def test_a_folder_is_looked_at_once_by_whoever_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr("geminiq.training.callbacks._check_folder", lambda *given: looked.append(given))
    locking, logging = Locking(tmp_path), Logging(tmp_path)
    saving, elsewhere = (Checkpointing(folder, 1, tiny_run(tmp_path), None) for folder in (tmp_path, tmp_path / "b"))
    for callbacks, expected in (([locking, logging, saving], 1), ([logging, saving], 1), ([logging], 1), ([saving], 1),
                                ([locking, saving, elsewhere], 2)):
        looked.clear()
        run = SimpleNamespace(strategy=SingleDevice(), step=0, log_history=[], is_main=True, callbacks=callbacks)
        for callback in callbacks:
            callback.on_train_begin(run)
        for callback in callbacks:
            callback.on_close(run)
        assert len(looked) == expected


@pytest.mark.parametrize("make", [Logging, lambda run: Checkpointing(run, 1, tiny_run(run), None)], ids=["log", "checkpoints"])
def test_who_writes_without_a_lock_is_refused_too(make: Callable[[Path], Callback], tmp_path: Path) -> None:
    (tmp_path / "step-000002").mkdir()
    callback = make(tmp_path)
    run = SimpleNamespace(strategy=SingleDevice(), step=0, log_history=[], is_main=True, callbacks=[callback])
    with pytest.raises(UserError, match="holds a run up to step-000002 already: resume it, or choose another folder"):
        callback.on_train_begin(run)


def test_without_its_package_tensorboard_says_so_when_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = TensorBoard(tmp_path)
    with pytest.raises(ImportError):
        board.on_train_begin(SimpleNamespace(log_history=[], step=0, is_main=True))
    board.on_step_end(SimpleNamespace(log_history=[{"step": 0, "loss": 1.0}]), {})     # and another process has no writer
    board.on_close(SimpleNamespace())
