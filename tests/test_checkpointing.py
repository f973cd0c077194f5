"""A kill at any instant leaves a checkpoint that can be read, and going on from it is as if nothing had happened."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from geminiq.models.transformer import Transformer
from geminiq.training.callbacks import read_log
from geminiq.training.optimizer import configure_optimizer
from geminiq.training.trainer import resume_trainer
from geminiq.utils.checkpointing import (
    UNFINISHED,
    checkpoint_folder,
    checkpoint_step,
    checkpoints,
    keep_latest,
    latest_checkpoint,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
)
from geminiq.utils.config import Config
from geminiq.utils.device import UserError
from helpers import tiny_tokenizer

pytestmark = pytest.mark.slow   # they start and kill processes

CONFIG = Config.model_validate({"model": {"vocab_size": 290, "d_model": 96, "n_layers": 2, "n_heads": 4}})


def save_for_ever(run: str, ready: Connection) -> None:
    "Save one checkpoint after another; all weights and running means of step n are n."
    model = Transformer(CONFIG.model)
    optimizer = configure_optimizer(model, 1e-3)
    model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    optimizer.step()
    tokenizer = tiny_tokenizer()
    found = checkpoints(run)
    step = int(found[-1].name.removeprefix("step-")) if found else 0
    ready.send(step)
    while True:
        step += 1
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step)
                optimizer.state[parameter]["exp_avg"].fill_(step)
        save_checkpoint(checkpoint_folder(run, step), model, CONFIG, tokenizer, optimizer, {"step": step})
        keep_latest(run, 2)


def check(folder: Path) -> None:
    "The checkpoint is complete, and all of it is of one step."
    step = int(folder.name.removeprefix("step-"))
    model = load_checkpoint(folder).model
    optimizer = configure_optimizer(model, 1e-3)
    assert load_training_state(folder, model, optimizer) == {"step": step}
    assert all((p == step).all() and (optimizer.state[p]["exp_avg"] == step).all() for p in model.parameters())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_at_any_instant_of_a_save_leaves_a_loadable_checkpoint(tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["geminiq.training.optimizer", "geminiq.utils.checkpointing", "helpers"])
    moments, interrupted = random.Random(0), 0
    for _ in range(30):
        ours, theirs = context.Pipe()
        process = context.Process(target=save_for_ever, args=(str(tmp_path), theirs), daemon=True)
        process.start()
        assert ours.poll(120), "the saving process did not start"
        ours.recv()
        time.sleep(moments.uniform(0.0, 0.2))
        process.kill()
        process.join()
        interrupted += any(tmp_path.glob(f"*{UNFINISHED}"))
        for folder in checkpoints(tmp_path):
            check(folder)
    assert interrupted >= 10, "too few kills fell into a save to prove anything"
    assert len(checkpoints(tmp_path)) in (2, 3)
    last = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "step-999999", last.model, last.config, last.tokenizer)
    keep_latest(tmp_path, 2)
    assert not list(tmp_path.glob(f"*{UNFINISHED}"))   # what the killed ones left is cleared away


TEXT = "\n\n".join(f"The {a} {verb} the {b} near the {place}." for a in ("cat", "dog", "fox") for b in ("bird", "fish", "mouse")
                   for verb in ("sees", "hears") for place in ("river", "house", "wood"))


def command(run: Path, *more: str, steps: int = 60, eval_batches: int = 2) -> list[str]:
    "Training a small model with dropout, in a process of its own."
    text = run.parent / "text.txt"
    text.write_text(TEXT)
    model = "vocab_size=330 d_model=48 n_layers=2 n_heads=4 max_seq_len=16 dropout=0.1".split()
    training = f"max_steps={steps} batch_size=4 gradient_accumulation=2 warmup_steps=5".split()
    training += f"eval_every=20 eval_batches={eval_batches} save_every=30".split()
    settings = [f"model.{value}" for value in model] + [f"training.{value}" for value in training]
    changes = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "geminiq", "train", "--train_path", str(text), "--output", str(run), *changes, *more]


def listen() -> None:
    "Let Ctrl-C mean something in a new process, even where the tests run in the background, which ignores it."
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition, process: subprocess.Popen, seconds: float = 600) -> None:
    "Wait until something holds while a process runs."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and process.poll() is None, "it did not happen"
        time.sleep(0.002)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_sixty_steps_equal_thirty_a_kill_and_thirty_more(tmp_path: Path):
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    process = subprocess.Popen(command(tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: checkpoints(tmp_path / "killed"), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert latest_checkpoint(tmp_path / "killed").name == "step-000030"
    subprocess.run(command(tmp_path / "killed", "--resume"), check=True, capture_output=True)
    whole, killed = (latest_checkpoint(tmp_path / name) for name in ("whole", "killed"))
    assert whole.name == killed.name == "step-000060"
    for file in ("model.safetensors", "training.safetensors", "training.json", "tokenizer.model"):
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None)])
def test_a_stopped_run_is_saved_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals):
    process = subprocess.Popen(command(tmp_path / "run", steps=1_000_000), stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    wait_for(lambda: checkpoints(tmp_path / "run"), process)
    process.send_signal(number)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 130
    step = int(latest_checkpoint(tmp_path / "run").name.removeprefix("step-"))
    assert f"stopped and saved at step {step}; go on with: geminiq train --resume --output {tmp_path / 'run'}" in said
    assert "Traceback" not in said
    subprocess.run(command(tmp_path / "run", "--resume", steps=step + 3), check=True, capture_output=True)
    assert latest_checkpoint(tmp_path / "run").name == f"step-{step + 3:06d}"


def saved(folder: Path) -> Path:
    "A small checkpoint."
    tokenizer = tiny_tokenizer()
    return save_checkpoint(folder, Transformer(CONFIG.model), CONFIG, tokenizer)


def test_any_flipped_byte_is_noticed(tmp_path: Path):
    folder = saved(tmp_path / "step-000001")
    choose = random.Random(0)
    for file in [path for path in folder.iterdir() if path.name != "SHA256SUMS"]:
        original = file.read_bytes()
        for _ in range(5):
            i = choose.randrange(len(original))
            file.write_bytes(original[:i] + bytes([original[i] ^ 1]) + original[i + 1:])
            with pytest.raises(UserError, match="not what was saved"):
                load_checkpoint(folder)
        file.write_bytes(original)
    load_checkpoint(folder)


def test_a_checkpoint_never_replaces_another(tmp_path: Path):
    folder = saved(tmp_path / "step-000001")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(UserError, match="exists already"):
        saved(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_stop_before_the_first_step_can_be_resumed_too(tmp_path: Path):
    process = subprocess.Popen(command(tmp_path / "run", eval_batches=1_000_000, steps=1_000_000),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    process.stdout.readline()      # the summary: the first look at the held-out text comes next
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 130
    assert ("stopped and saved" in said) == bool(checkpoints(tmp_path / "run"))
    resume = ["--resume"] if checkpoints(tmp_path / "run") else []
    steps = 3 + (int(latest_checkpoint(tmp_path / "run").name.removeprefix("step-")) if resume else 0)
    subprocess.run(command(tmp_path / "run", *resume, steps=steps), check=True, capture_output=True)
    assert latest_checkpoint(tmp_path / "run").name == f"step-{steps:06d}"


def test_a_file_inside_a_checkpoint_stands_for_it(tmp_path: Path):
    folder = saved(tmp_path / "step-000001")
    for path in (tmp_path, folder, *folder.iterdir()):
        assert latest_checkpoint(path) == folder
        assert load_checkpoint(path).config == CONFIG
    (tmp_path / "log.jsonl").touch()
    assert latest_checkpoint(tmp_path / "log.jsonl") == folder      # of a run's file, the latest of the run


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin", "last.ckpt"])
@pytest.mark.parametrize("there", [True, False])
def test_a_pickle_is_answered_with_one_sentence(name: str, there: bool, tmp_path: Path):
    if there:
        (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"is a pickle, which may run anything .* give the folder of a checkpoint") as error:
        load_checkpoint(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_a_terminal_that_is_closed_stops_and_saves_the_run_unless_nohup_was_asked_for(tmp_path: Path):
    "The system sends SIGHUP, and whatever is written to that terminal then fails."
    import pty
    processes = {}
    for name in ("closed", "nohup"):
        ours, theirs = pty.openpty()
        begin = ["nohup"] if name == "nohup" else []
        processes[name] = ours, subprocess.Popen([*begin, *command(tmp_path / name, steps=90 if begin else 1_000_000)],
                                                 stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=tmp_path)
        os.close(theirs)
    for name, (ours, process) in processes.items():
        wait_for(lambda name=name: len(read_log(tmp_path / name, 10**9)) > 33, process)
        os.close(ours)                       # nobody reads any more
        process.send_signal(signal.SIGHUP)   # twice, as a shell and the system both tell of it
        process.send_signal(signal.SIGHUP)
    for _, process in processes.values():
        process.wait(timeout=600)
    step = checkpoint_step(latest_checkpoint(tmp_path / "closed"))
    load_checkpoint(tmp_path / "closed")
    assert read_log(tmp_path / "closed", 10**9)[-1]["step"] == step > 30      # not the one that was due
    assert latest_checkpoint(tmp_path / "nohup").name == "step-000090"


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_two_trainings_in_one_folder_are_one_and_a_refusal(tmp_path: Path):
    "The second is told who is first, whether it begins or goes on, and the log is that of one run."
    first = subprocess.Popen(command(tmp_path / "run", steps=1_000_000), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: checkpoints(tmp_path / "run"), first)
    seconds = [subprocess.Popen(command(tmp_path / "run", *more), stderr=subprocess.PIPE, text=True)
               for more in (["--resume"], [])]
    for second in seconds:
        said = second.communicate(timeout=600)[1]
        assert second.returncode == 2 and said.count("\n") == 1 and f"is in use by process {first.pid} " in said, said
    first.kill()
    first.wait()
    step = checkpoint_step(latest_checkpoint(tmp_path / "run"))
    resume_trainer(tmp_path / "run", progress=False, given={"training.max_steps": step + 3}).train()   # the lock died too
    assert [entry["step"] for entry in read_log(tmp_path / "run", 10**9)] == list(range(step + 4))


def test_reading_a_run_that_saves_all_the_time_finds_a_checkpoint_every_time(tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["geminiq.training.optimizer", "geminiq.utils.checkpointing", "helpers"])
    ours, theirs = context.Pipe()
    process = context.Process(target=save_for_ever, args=(str(tmp_path), theirs), daemon=True)
    process.start()
    assert ours.poll(120)
    while not checkpoints(tmp_path):
        assert process.is_alive()
    seen = set()
    for _ in range(30):
        seen.add(next(load_checkpoint(tmp_path).model.parameters()).flatten()[0].item())
    process.kill()
    process.join()
    assert len(seen) > 3, "the run did not save while it was read"


def test_what_could_not_be_read_back_is_not_saved(tmp_path: Path):
    model, tokenizer = Transformer(CONFIG.model), tiny_tokenizer()
    wider = CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"d_ff": 512})})
    optimizer = torch.optim.LBFGS(model.parameters())
    optimizer.state[next(model.parameters())]["old_dirs"] = [torch.zeros(1)]
    for said, *arguments in (("another d_ff", model, wider, tokenizer), ("is JSON", model, CONFIG, tokenizer, None, {"a": model}),
                             ("keeps tensors", model, CONFIG, tokenizer, optimizer), ("not a str", model, CONFIG, "tokenizer")):
        with pytest.raises(UserError, match=said):
            save_checkpoint(tmp_path / "step-000001", *arguments)
        assert not any(tmp_path.iterdir())
