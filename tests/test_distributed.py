"""Two processes under torchrun are one: the same losses, the same checkpoints, and they stop together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.testing import assert_close

from geminiq.training.callbacks import LOG
from geminiq.utils.checkpointing import checkpoints, latest_checkpoint, load_checkpoint
from geminiq.utils.config import save_config
from helpers import tiny_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals differ, and so does gloo")]

MODELS = {
    "dense": ({}, {"schedule": "constant"}),   # so that a run may become longer
    "parts": ({"pos_encoding": "learned", "tie_embeddings": False, "bias": True},
              {"gradient_accumulation": 2, "vocab_chunk": 100, "label_smoothing": 0.1, "gradient_checkpointing": True}),
    "moe": ({"use_moe": True, "num_experts": 4, "router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.1}, {}),
    "moe parts": ({"use_moe": True, "num_experts": 3, "top_k": 1, "num_shared_experts": 1, "router_aux_loss_coef": 0.5},
                  {"gradient_accumulation": 2, "gradient_clip": 0.05}),
}
LIMITED = {"limited": ({"use_moe": True, "num_experts": 4, "capacity_factor": 0.75}, {})}

# What each process does: all models with both engines, then stops and resumes.
SCRIPT = '''
import json, os, signal, sys
from pathlib import Path
import torch
from geminiq.models.transformer import Transformer
from geminiq.training.callbacks import Callback
from geminiq.training.distributed import destroy_process_group
from geminiq.data.dataloader import prepare_data
from geminiq.training.trainer import make_trainer, resume_trainer
from geminiq.utils.checkpointing import checkpoints
from geminiq.utils.config import load_config

class StopOne(Callback):
    "Ctrl-C in one process alone, in its third step."
    def on_step_begin(self, trainer):
        if trainer.step == 3 and trainer.strategy.rank == 1: signal.raise_signal(signal.SIGTERM)

class Held(Callback):
    "How many numbers of the weights this process holds, and the seeds of its dropout."
    def on_train_begin(self, trainer):
        mine = [p.to_local() if hasattr(p, "to_local") else p for p in trainer.model.parameters()]
        self.seeds, self.numbers = [], sum(p.numel() for p in mine)
    def on_step_begin(self, trainer): self.seeds.append(torch.initial_seed())

def double(config): return Transformer(config.model).double()

def run(folder):
    config = load_config(folder / "dense ddp.yaml")
    data = prepare_data(config.data, config.model.vocab_size, config.training.seed, folder)
    for file in sorted(folder.glob("*.yaml")):
        config, held = load_config(file), Held()
        trainer = make_trainer(config, folder / file.stem, [held], False, data, double(config))
        trainer.train()
        if trainer.strategy.rank == 1: (folder / f"{file.stem}.held").write_text(json.dumps([held.numbers, *held.seeds]))
    for parallel in ("ddp", "fsdp"):     # stopped together, and gone on with by the other engine
        config = load_config(folder / f"dense {parallel}.yaml")
        try: make_trainer(config, folder / f"stopped {parallel}", [StopOne()], False, data).train()
        except KeyboardInterrupt: (folder / f"stopped {parallel} {os.environ['RANK']}").write_text("")
    config = load_config(folder / "dense ddp.yaml")
    resume_trainer(folder / "stopped fsdp", config, progress=False).train()
    config.training.max_steps = 12
    resume_trainer(folder / "one", config, progress=False).train()
    destroy_process_group()

run(Path(sys.argv[1]))
'''


def torchrun(*command: object, folder: Path) -> subprocess.CompletedProcess:
    "Two processes."
    return subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, command)],
                          cwd=folder, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "All that two processes do, in one go; `one` was begun by a single process."
    from geminiq.data.dataloader import prepare_data
    from geminiq.models.transformer import Transformer
    from geminiq.training.trainer import make_trainer
    folder = tmp_path_factory.mktemp("distributed")
    base = tiny_run(folder, **MODELS["dense"][1])
    data = prepare_data(base.data, base.model.vocab_size, base.training.seed, folder)
    alone = folder / "alone"
    for name, (model, training) in {**MODELS, **LIMITED}.items():
        for parallel in ("ddp", "fsdp"):
            config = tiny_run(folder, model, parallel=parallel, **training)
            save_config(config, folder / f"{name} {parallel}.yaml")
        make_trainer(config, alone / name, (), False, data, Transformer(config.model).double()).train()
    make_trainer(base, folder / "one", (), False, data).train()
    base.training.max_steps = 12
    make_trainer(base, alone / "longer", (), False, data).train()
    (folder / "script.py").write_text(SCRIPT)
    result = torchrun("script.py", folder, folder=folder)
    assert result.returncode == 0, result.stderr
    return folder


def history(run: Path) -> list[dict]:
    "The log, which must end with the last checkpoint."
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    assert json.loads((latest_checkpoint(run) / "training.json").read_text())["step"] == lines[-1]["step"]
    return lines


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", MODELS)
def test_the_losses_are_those_of_one_process(name: str, parallel: str, runs: Path) -> None:
    "In double precision: loss, length of the gradient and held-out loss of each step, with parts and experts too."
    ours, one = history(runs / f"{name} {parallel}"), history(runs / "alone" / name)
    assert len(ours) == len(one) == 9
    for entry, other in zip(ours, one, strict=True):
        assert entry == pytest.approx(other, rel=1e-12)


def test_a_part_of_the_model_in_each_process(runs: Path) -> None:
    for name in MODELS:
        model = load_checkpoint(runs / f"{name} ddp").model.num_parameters()
        whole, part = (json.loads((runs / f"{name} {parallel}.held").read_text())[0] for parallel in ("ddp", "fsdp"))
        assert whole == model
        assert 0.45 * model < part < 0.55 * model


def test_each_process_draws_for_its_own_rows(runs: Path) -> None:
    "The seeds of dropout in the second process are its own; the first has those of one process, the number of the step."
    seeds = json.loads((runs / "dense ddp.held").read_text())[1:]
    assert len(set(seeds)) == 8 and min(seeds) > 1000


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_limited_places_are_handed_out_by_each_process(parallel: str, runs: Path) -> None:
    "Not equal to one process, as the lesson says: tokens lose their places elsewhere. Near it all the same."
    ours, one = history(runs / f"limited {parallel}"), history(runs / "alone" / "limited")
    dropped = [[entry["dropped"] for entry in entries[1:]] for entries in (ours, one)]
    assert dropped[0] != dropped[1]
    assert all(0.1 < share < 0.8 for share in dropped[0]) and dropped[0] == pytest.approx(dropped[1], abs=0.15)
    assert losses(ours) == pytest.approx(losses(one), rel=0.02)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_checkpoint_does_not_tell_how_many_made_it(parallel: str, runs: Path) -> None:
    ours, one = (latest_checkpoint(run) for run in (runs / f"parts {parallel}", runs / "alone" / "parts"))
    assert sorted(file.name for file in ours.iterdir()) == sorted(file.name for file in one.iterdir())
    theirs = dict(load_checkpoint(one).model.named_parameters())
    for key, weight in load_checkpoint(ours).model.named_parameters():
        assert_close(weight, theirs[key], atol=1e-9, rtol=0)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_stop_in_one_process_stops_all_at_the_same_step(parallel: str, runs: Path) -> None:
    assert (runs / f"stopped {parallel} 0").exists() and (runs / f"stopped {parallel} 1").exists()
    if parallel == "ddp":
        assert [folder.name for folder in checkpoints(runs / "stopped ddp")] == ["step-000003"]
        assert len(history(runs / "stopped ddp")) == 4


def test_begun_by_two_and_ended_by_one_and_the_reverse(runs: Path) -> None:
    "In single precision. The run that FSDP began was ended by DDP, the other way is checked for one process."
    from geminiq.training.trainer import resume_trainer
    one = history(runs / "alone" / "longer")
    resumed = resume_trainer(runs / "stopped ddp", tiny_run(runs, max_steps=12, **MODELS["dense"][1]), progress=False).train()
    for ours in (resumed, history(runs / "one")):
        assert [entry["step"] for entry in ours] == list(range(13))
        assert losses(ours) == pytest.approx(losses(one), rel=1e-5)
    assert losses(history(runs / "stopped fsdp")) == pytest.approx(losses(one)[:8], rel=1e-5)


def losses(entries: list[dict]) -> list[float]:
    "Of every step."
    return [entry["loss"] for entry in entries if "loss" in entry]


def cli(folder: Path, *more: str) -> list[str]:
    "The command of the lesson, for a small model."
    save_config(tiny_run(folder, max_steps=4), folder / "small.yaml")
    changes = [part for change in more for part in ("--set", change)]
    return ["-m", "geminiq", "train", "--config", "small.yaml", "--output", "run", *changes]


def test_the_command_line_speaks_once_and_is_interrupted_as_one(tmp_path: Path) -> None:
    "Ctrl-C at torchrun, which passes it on to all."
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               *cli(tmp_path, "training.max_steps=1000000", "training.save_every=5", "training.parallel=fsdp")]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    end = time.monotonic() + 600
    while not checkpoints(tmp_path / "run"):
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    step = int(latest_checkpoint(tmp_path / "run").name.removeprefix("step-"))
    assert err.count("stopped and saved") == 1 and f"stopped and saved at step {step}; go on with" in err
    assert out.count(" parameters on ") == 1
    assert history(tmp_path / "run")[-1]["step"] == step


def test_a_batch_that_cannot_be_shared_out_is_one_line_and_no_folder(tmp_path: Path) -> None:
    result = torchrun(*cli(tmp_path, "training.batch_size=3"), folder=tmp_path)
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert said == ["error: batch_size 3 cannot be shared out evenly among 2 processes: use a multiple of 2"]
    assert not (tmp_path / "run").exists()


DYING = '''
import os, signal, sys
from geminiq.training.callbacks import Callback
from geminiq.training.trainer import make_trainer
from geminiq.utils.config import load_config
class Die(Callback):
    def on_step_begin(self, trainer):
        if trainer.step == 6 and trainer.strategy.rank == 1: os.kill(os.getpid(), signal.SIGKILL)
make_trainer(load_config("small.yaml"), "run", [Die()], progress=False).train()
'''


def test_who_dies_does_not_hang_the_others(tmp_path: Path) -> None:
    "And the last checkpoint is whole."
    save_config(tiny_run(tmp_path), tmp_path / "small.yaml")
    (tmp_path / "script.py").write_text(DYING)
    start = time.monotonic()
    assert torchrun("script.py", folder=tmp_path).returncode != 0
    assert time.monotonic() - start < 500   # and not the ten minutes after which others give up
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-000004"]
    load_checkpoint(tmp_path / "run")


SIXTEEN = '''
import sys
from functools import partial
from pathlib import Path
import torch
from torch.amp import GradScaler
from geminiq.training import trainer
from geminiq.training.distributed import destroy_process_group
from geminiq.utils.config import load_config

trainer.amp_dtype = lambda use_amp, device: torch.float16      # as on a card that knows no bfloat16
trainer.GradScaler = partial(GradScaler, init_scale=2.0**22, growth_interval=2)
folder, *names = map(Path, sys.argv[1:])
for name in names:
    trainer.make_trainer(load_config(folder / "sixteen" / f"{name}.yaml"), folder / name, progress=False).train()
destroy_process_group()
'''


def test_all_processes_skip_the_steps_that_one_would(tmp_path: Path) -> None:
    "In float16 with a scaled loss: the same steps overflow, and the scale of the checkpoint is the same."
    (tmp_path / "sixteen").mkdir()
    for name, parallel in (("one", "ddp"), ("ddp", "ddp"), ("fsdp", "fsdp")):
        save_config(tiny_run(tmp_path, parallel=parallel, max_steps=12), tmp_path / "sixteen" / f"{name}.yaml")
    (tmp_path / "script.py").write_text(SIXTEEN)
    subprocess.run([sys.executable, "script.py", tmp_path, "one"], cwd=tmp_path, check=True)
    result = torchrun("script.py", tmp_path, "ddp", "fsdp", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    one, *several = (history(tmp_path / name) for name in ("one", "ddp", "fsdp"))
    scales = {json.loads((latest_checkpoint(tmp_path / name) / "training.json").read_text())["scaler"]["scale"]
              for name in ("one", "ddp", "fsdp")}
    skipped = [entry["grad_norm"] is None for entry in one[1:]]
    assert True in skipped and False in skipped and len(scales) == 1
    for ours in several:
        assert [entry["grad_norm"] is None for entry in ours[1:]] == skipped
        assert losses(ours) == pytest.approx(losses(one), rel=1e-3)
