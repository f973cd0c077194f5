"""The trainer with its callbacks: what a step of several parts adds up to, and what a run does besides."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from typer.testing import CliRunner

from geminiq.cli import app
from geminiq.data.dataset import IGNORE_INDEX
from geminiq.models.moe import record_routing, routing_loss
from geminiq.models.transformer import Transformer
from geminiq.training.callbacks import LOG, Callback, EarlyStopping, best_look
from geminiq.training.losses import cross_entropy_loss
from geminiq.training.optimizer import configure_optimizer
from geminiq.training.trainer import Data, Objective, Trainer, Update, prepare_data, update
from geminiq.utils.checkpointing import checkpoints
from geminiq.utils.config import Config, ModelConfig, make_config, save_config
from geminiq.utils.device import UserError, make_generator

SMALL = {"vocab_size": 50, "max_seq_len": 8, "d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 16}
MOE = {**SMALL, "use_moe": True, "num_experts": 4,
       "router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.1}  # so large that they count
BATCH = torch.randint(50, (8, 9), generator=make_generator(0))
INPUTS, TARGETS = BATCH[:, :-1], BATCH[:, 1:].clone()
TARGETS[5:, 4:] = IGNORE_INDEX
TARGETS[0] = IGNORE_INDEX


def updated(parts: int, model: dict, **settings: object) -> tuple[Tensor, Update]:
    """All weights after one update in float64, whose batch comes in parts of so many rows."""
    objective = Objective(Transformer(ModelConfig(**model)).double(), **settings)
    pieces = list(zip(INPUTS.split(parts), TARGETS.split(parts), strict=True))
    # Not Adam: it moves every weight equally far in its first step, whatever the length of the gradient.
    result = update(objective, torch.optim.SGD(objective.parameters(), lr=1.0), pieces, 10.0)
    return torch.cat([p.detach().flatten() for p in objective.parameters()]), result


@pytest.mark.parametrize("model", [SMALL, MOE, {**MOE, "top_k": 1, "num_shared_experts": 1}], ids=["dense", "moe", "switch"])
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1, "vocab_chunk": 7}], ids=["plain", "smooth pieces"])
@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7])
def test_parts_of_a_batch_move_the_weights_as_the_whole(model: dict, settings: dict, parts: int) -> None:
    """The last part may be shorter, targets may be ignored, a whole part of them too, and there may be experts."""
    weights, result = updated(parts, model, **settings)
    expected, whole = updated(8, model, **settings)
    assert_close(weights, expected, atol=1e-12, rtol=0)
    assert_close(result.loss, whole.loss, atol=1e-12, rtol=0)
    assert_close(result.grad_norm, whole.grad_norm, atol=1e-12, rtol=0)


def test_the_losses_of_experts_are_those_of_their_lesson() -> None:
    model = Transformer(ModelConfig(**MOE)).double()
    with record_routing(model) as recorded:
        loss = cross_entropy_loss(model(INPUTS), TARGETS, "sum")
    losses = Objective(model)(INPUTS, TARGETS, INPUTS.numel())
    assert torch.equal(losses.predictions, loss)
    assert torch.equal(losses.experts, routing_loss(recorded, 0.5, 0.1))
    assert losses.loads.sum(-1).tolist() == [2 * INPUTS.numel()] * 2


def test_looking_ahead_draws_what_will_be_drawn() -> None:
    """With dropout and a router's noise the experts chosen beforehand are those that are chosen then."""
    model = Transformer(ModelConfig(**MOE, dropout=0.3, router_noise=True))
    with record_routing(model) as recorded, torch.random.fork_rng([]):
        torch.manual_seed(0)
        update(Objective(model), configure_optimizer(model, 1e-3), [(INPUTS[:4], TARGETS[:4]), (INPUTS[4:], TARGETS[4:])], 1.0)
    ahead, after = recorded[:4], recorded[4:]
    assert len(after) == 4
    for a, b in zip(ahead, after, strict=True):
        assert torch.equal(a.experts, b.experts)


def test_choices_without_a_place_are_counted() -> None:
    """As a share of all choices of the step, whatever its parts; without a limit there are none."""
    limited = {**MOE, "capacity_factor": 0.5}
    model = Transformer(ModelConfig(**limited)).double()
    objective = Objective(model)
    objective(INPUTS, TARGETS, INPUTS.numel())
    dropped = sum(block.feed_forward.dropped for block in model.blocks) / (2 * 2 * INPUTS.numel())
    assert 0.3 < dropped < 0.9
    assert updated(8, limited)[1].dropped == pytest.approx(dropped)
    assert 0.3 < updated(4, limited)[1].dropped < 0.9
    assert updated(3, MOE)[1].dropped == updated(8, SMALL)[1].dropped == 0


NAMES = ["Ada", "Emmy", "Sofia", "Grace", "Mary", "Rosalind"]


def configured(folder: Path, model: dict | None = None, **training: object) -> Config:
    """A run of a few seconds."""
    text = folder / "text.txt"
    text.write_text("\n\n".join(f"{a} writes to {b} about {c}." for a in NAMES for b in NAMES for c in NAMES))
    return make_config({
        "model": {"vocab_size": 330, "max_seq_len": 16, "d_model": 24, "n_layers": 2, "n_heads": 2, "d_ff": 32,
                  **(model or {})},
        "training": {"max_steps": 8, "batch_size": 4, "warmup_steps": 2, "eval_every": 2, "eval_batches": 2, "save_every": 4,
                     "dtype": "float32", "device": "cpu", **training},
        "data": {"corpus": str(text)}})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Read once."""
    return prepare_data(configured(tmp_path_factory.mktemp("data")))


def lines(run: Path) -> list[dict]:
    """The log."""
    return [json.loads(line) for line in (run / LOG).read_text().splitlines()]


@pytest.mark.parametrize("model", [{"dropout": 0.1}, {"use_moe": True, "num_experts": 3, "router_noise": True, "dropout": 0.1}])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_computing_activations_again_changes_no_bit(model: dict, accumulation: int, data: Data, tmp_path: Path) -> None:
    histories = []
    for again in (False, True):
        config = configured(tmp_path, model, gradient_checkpointing=again, gradient_accumulation=accumulation)
        trainer = Trainer(config, tmp_path / str(again), data, progress=False)
        assert trainer.model.gradient_checkpointing == again
        histories.append(trainer.train())
    assert histories[0] == histories[1]


def test_activations_are_indeed_computed_again(data: Data, tmp_path: Path) -> None:
    calls = []
    trainer = Trainer(configured(tmp_path, gradient_checkpointing=True, max_steps=1, eval_every=100), tmp_path / "run", data,
                      progress=False)
    trainer.model.blocks[0].attention.register_forward_hook(lambda *_: calls.append(trainer.model.training))
    trainer.train()
    assert calls.count(True) == 2


def test_the_trainer_can_do_without_logits(data: Data, tmp_path: Path) -> None:
    histories = []
    for chunk in (None, 50):
        config = configured(tmp_path, vocab_chunk=chunk, label_smoothing=0.1)
        trainer = Trainer(config, tmp_path / str(chunk), data, Transformer(config.model).double(), progress=False)
        if chunk:
            trainer.model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head was called"))
        histories.append(trainer.train())
    for ours, theirs in zip(*histories, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)   # Adam divides by small numbers: more than rounding, after eight steps


def test_pieces_of_the_vocabulary_under_autocast(data: Data, tmp_path: Path) -> None:
    """Products in 16 bits, the same losses as with all logits."""
    histories = [Trainer(configured(tmp_path, dtype="bfloat16", vocab_chunk=chunk, label_smoothing=0.1), tmp_path / str(chunk),
                         data, progress=False).train() for chunk in (None, 50)]
    full = Trainer(configured(tmp_path, label_smoothing=0.1), tmp_path / "full", data, progress=False).train()
    losses = [[entry["loss"] for entry in history[1:]] for history in (*histories, full)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)      # before the first step nothing has been rounded twice
    assert abs(losses[0][0] - losses[2][0]) > 1e-6 * losses[2][0]     # and it was 16 bits


def test_smoothing_is_for_training_alone(data: Data, tmp_path: Path) -> None:
    plain, smooth = (Trainer(configured(tmp_path, label_smoothing=epsilon), tmp_path / str(epsilon), data, progress=False)
                     for epsilon in (0.0, 0.5))
    assert plain.evaluate() == smooth.evaluate()
    plain.train(), smooth.train()
    assert smooth.history[-1]["loss"] > plain.history[-1]["loss"]


def test_the_share_of_dropped_choices_is_in_the_history(data: Data, tmp_path: Path) -> None:
    moe = {"use_moe": True, "num_experts": 4}
    limited = Trainer(configured(tmp_path, {**moe, "capacity_factor": 0.5}), tmp_path / "a", data, progress=False).train()
    free = Trainer(configured(tmp_path, moe), tmp_path / "b", data, progress=False).train()
    assert all(0.2 < entry["dropped"] < 1 for entry in limited[1:])
    assert not any("dropped" in entry for entry in free)


class Moments(Callback):
    """Writes down what it is told, and stops or fails when it should."""

    def __init__(self, stop: int = 0, fail: int = 0):
        self.told: list[object] = []
        self.stop, self.fail = stop, fail

    def on_start(self, trainer: Trainer) -> None:
        self.told.append(("start", len(trainer.history)))

    def on_step_start(self, trainer: Trainer) -> None:
        self.told.append(-trainer.step)

    def on_step_end(self, trainer: Trainer, entry: dict) -> None:
        assert entry is trainer.history[-1] and entry["step"] == trainer.step
        self.told.append(trainer.step)
        entry["mine"] = 2 * trainer.step
        if trainer.step == self.stop:
            trainer.stop("enough")
        if trainer.step == self.fail:
            raise RuntimeError("broken")

    def on_end(self, trainer: Trainer) -> None:
        self.told.append("end")

    def on_close(self, trainer: Trainer) -> None:
        self.told.append("close")


def test_a_callback_of_ones_own_is_told_and_what_it_adds_is_kept(data: Data, tmp_path: Path) -> None:
    mine = Moments(stop=3)
    trainer = Trainer(configured(tmp_path), tmp_path / "run", data, progress=False, callbacks=[mine])
    history = trainer.train()
    assert mine.told == [("start", 1), -1, 1, -2, 2, -3, 3, "end", "close"]
    assert trainer.stop_reason == "enough" and len(history) == 4
    assert lines(tmp_path / "run") == history and history[-1]["mine"] == 6
    again = Moments()
    resumed = Trainer.resume(tmp_path / "run", progress=False, callbacks=[again])
    assert resumed.history == history                              # it was in the checkpoint
    resumed.train()
    assert again.told[:3] == [("start", 4), -4, 4] and resumed.step == 8
    assert lines(tmp_path / "run") == resumed.history


def test_an_error_saves_nothing_and_closes_everything(data: Data, tmp_path: Path) -> None:
    broken, after = Moments(fail=3), Moments()
    trainer = Trainer(configured(tmp_path, save_every=2), tmp_path / "run", data, progress=False, callbacks=[broken, after])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train()
    assert after.told[-1] == "close" and "end" not in after.told
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-000002"]
    resumed = Trainer.resume(tmp_path / "run", progress=False).train()      # the log has a step 3 that is done again
    assert lines(tmp_path / "run") == resumed and [entry["step"] for entry in resumed] == list(range(9))


class Rates(Callback):
    """A learning rate that ruins what was learned, from some step on."""

    def on_step_start(self, trainer: Trainer) -> None:
        if trainer.step > 6:
            trainer.optimizer.param_groups[0]["lr"] = 3.0


@pytest.mark.parametrize("cut", [5, 8, 9])
def test_early_stopping_is_as_patient_after_a_resume(cut: int, data: Data, tmp_path: Path) -> None:
    config = configured(tmp_path, max_steps=100, eval_every=2, patience=2)
    whole = Trainer(config, tmp_path / "whole", data, progress=False, callbacks=[Rates()])
    whole.train()
    assert any(isinstance(callback, EarlyStopping) for callback in whole.callbacks)
    assert whole.step == 10 and best_look(whole.history)[::2] == (6, 2) and "step 6" in whole.stop_reason
    Trainer(config, tmp_path / "cut", data, progress=False, callbacks=[Rates(), Moments(stop=cut)]).train()
    resumed = Trainer.resume(tmp_path / "cut", progress=False, callbacks=[Rates()])
    resumed.train()
    assert resumed.step == 10 and resumed.stop_reason == whole.stop_reason
    assert [entry["loss"] for entry in resumed.history[1:]] == [entry["loss"] for entry in whole.history[1:]]
    again = Trainer.resume(tmp_path / "cut", progress=False)
    again.train()
    assert again.step == 10 and again.stop_reason == whole.stop_reason      # it does not begin anew


def test_the_command_line_says_why_it_stopped(tmp_path: Path) -> None:
    """Also when it is asked to go on, until it is given more patience."""
    config = configured(tmp_path, max_steps=40, eval_every=1, patience=1, learning_rate=5.0, warmup_steps=0)
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
        configured(tmp_path, **{name: value if name == "parallel" else float(value)})
