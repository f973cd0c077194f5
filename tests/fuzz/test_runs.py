"""A run's folder as people leave it: it goes on bit for bit, or a line says why not and what to do."""

import os
import random
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from harness import n_cases, run_case

from geminiq.training.callbacks import LOG, Callback, read_log
from geminiq.training.trainer import make_trainer, resume_trainer
from geminiq.utils.checkpointing import checkpoints, latest_checkpoint, verify_checkpoint
from geminiq.utils.files import UNFINISHED
from helpers import tiny_run

STEPS, STOP = 12, 10     # a run of 12 steps, stopped after 10, with checkpoints of 8 and 10


class Stop(Callback):
    "Stops after a step."

    def on_step_end(self, trainer: object, entry: dict) -> None:
        if trainer.step == STOP:
            trainer.stop("as a test wants it")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with a text, a run that ended and one that was stopped."
    folder = tmp_path_factory.mktemp("runs")
    config = tiny_run(folder, {"dropout": 0.1}, max_steps=STEPS)
    for name, callbacks in (("ended", []), ("stopped", [Stop()])):
        make_trainer(config, folder / name, callbacks, progress=False).train()
    assert [path.name for path in checkpoints(folder / "stopped")] == ["step-000008", "step-000010"]
    return folder


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    "Nothing waits for the disk, which would take most of the time."
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def resume(run: Path, whole: Path, log: bool = True) -> None:
    "Go on to the end, and see that all is as if nothing had happened; without `log`, but for the history."
    trainer = resume_trainer(run, progress=False)
    trainer.train()
    last = latest_checkpoint(whole / "ended").name
    for name in ("model.safetensors", "training.safetensors", "training.json", "tokenizer.model"):
        assert (run / last / name).read_bytes() == (whole / "ended" / last / name).read_bytes(), name
    ours, expected = (read_log(folder, STEPS) for folder in (run, whole / "ended"))
    assert ours == expected if log else ours[-2:] == expected[-2:]
    for folder in checkpoints(run):
        verify_checkpoint(folder)


# What happens to a file or folder

def flip(path: Path, choose: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)


def cut(path: Path, choose: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:choose.randrange(len(content) + 1)])


def remove(path: Path, choose: random.Random) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace(path: Path, choose: random.Random, make: Callable[[Path], object]) -> None:
    remove(path, choose)
    make(path)


def pickled(path: Path, canary: Path) -> None:
    "A pickle that writes a file when it is opened."
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")


def fill(path: Path, choose: random.Random, content: bytes) -> None:
    remove(path, choose)
    path.write_bytes(content)


FILES = {"removed": remove, "cut": cut, "a byte": flip,
         "empty": partial(fill, content=b""), "zeros": partial(fill, content=bytes(5000)),
         "deep": partial(fill, content=b"[" * 100_000), "digits": partial(fill, content=b'{"step": ' + b"9" * 6000 + b"}"),
         "a list": partial(fill, content=b"[1, 2]"), "latin": partial(fill, content="Größe: 3".encode("latin-1"))}
ANYTHING = {"a folder": partial(replace, make=Path.mkdir), "a loop": partial(replace, make=lambda path: path.symlink_to(path)),
            "a pipe": partial(replace, make=os.mkfifo)}
FOLDERS = {"removed": remove, "a file": partial(replace, make=Path.touch), "emptied": partial(replace, make=Path.mkdir)}

CHECKPOINTS = ("step-000008", "step-000010")
NAMES = ("log.jsonl", "log.csv", ".lock", "train.tokens", "val.tokens", *CHECKPOINTS,
         *(f"{step}/{name}" for step in CHECKPOINTS for name in (
             "model.safetensors", "config.yaml", "tokenizer.model", "training.safetensors", "training.json", "SHA256SUMS")))


def find(run: Path, name: str) -> Path:
    "What a name stands for: a file of tokens has a digest in its name."
    kind = name.removesuffix(".tokens")
    return run / name if kind == name else next(run.glob(f"{kind}-*.tokens"))


def changes(name: str) -> dict[str, Callable[[Path, random.Random], object]]:
    "What can happen to it."
    if name in CHECKPOINTS:
        return FOLDERS
    return {**FILES, **ANYTHING}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_damaged_in_a_run_is_mended_or_said(name: str, whole: Path, tmp_path: Path) -> None:
    "All the ways by `make fuzz`, four of them in `make test`."
    choose, canary = random.Random(name), tmp_path / "canary"
    cases = [*changes(name).items()]
    for how, change in choose.sample(cases, min(len(cases), n_cases(4))):
        run = shutil.copytree(whole / "stopped", tmp_path / "run")
        change(find(run, name), choose)
        outcome = run_case(lambda run=run: resume(run, whole, log=name != LOG))
        if "/" not in name and how in ANYTHING:
            assert outcome.kind == "refused" and outcome.text.endswith("move it away"), (how, outcome)
        else:
            assert outcome.kind == "right", (how, outcome)
        shutil.rmtree(run)
    if name not in CHECKPOINTS:
        run = shutil.copytree(whole / "stopped", tmp_path / "run")
        pickled(find(run, name), canary)
        assert run_case(lambda: resume(run, whole, log=name != LOG)).kind == "right"
        assert not canary.exists()


NEIGHBOURS = ("step-best", "step-000010-backup", "step-000010 (1)", "step-", "step-1e3", "step-10", "step-0000010", "step-٠٠٠٠١٠",
              "step-000011", "step-000012", "step-999999", "step-000012.1-abc.geminiq-unfinished", "log.jsonl.new", "loss.png",
              "step-000012.geminiq-unfinished", "step-000010.tar.gz", ".DS_Store", "tensorboard", "Größe", "a\nb")


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_what_lies_beside_the_checkpoints_is_in_nobodys_way(name: str, whole: Path, tmp_path: Path) -> None:
    "A copy, an empty folder, a file, a folder with something in it: the run goes on, and what is not its own stays."
    def filled(path: Path) -> None:
        path.mkdir()
        (path / "notes.txt").write_text("mine")

    ways = [lambda path: shutil.copytree(path.parent / "step-000010", path), Path.mkdir, Path.touch, filled]
    for make in random.Random(name).sample(ways, min(4, n_cases(1))):
        run = shutil.copytree(whole / "stopped", tmp_path / "run")
        make(run / name)
        before = {path.name for path in run.rglob("*")}
        outcome = run_case(lambda run=run: resume(run, whole))
        later = name in ("step-000011", "step-000012", "step-999999")
        if later and make is ways[0]:
            assert outcome.kind == "refused" and "holds step 10, it is a copy" in outcome.text, outcome
        elif later and make is Path.touch and name == "step-000012":
            assert outcome.kind == "refused" and "exists already" in outcome.text and "step-000010" in outcome.text, outcome
        else:
            assert outcome.kind == "right", outcome
            after = {path.name for path in run.rglob("*")}
            assert later or name in after                            # what stood where a checkpoint belongs was put aside
            assert "notes.txt" in after or "notes.txt" not in before
        shutil.rmtree(run)


def test_a_disk_that_is_full_at_any_write_is_a_line_and_nothing_is_lost(whole: Path, tmp_path: Path) -> None:
    "Files cannot grow beyond a size, from nothing on; with room again the run goes on."
    largest = max(path.stat().st_size for path in (whole / "ended").rglob("*") if path.is_file())
    for case in range(n_cases(6)):
        run, limit = shutil.copytree(whole / "stopped", tmp_path / "run"), random.Random(case).randrange(largest)

        def limited(run: Path = run, limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            resume(run, whole)

        outcome = run_case(limited)
        assert outcome.kind == "refused" and "File too large" in outcome.text, (limit, outcome)
        assert not [path for path in run.iterdir() if path.name.endswith(UNFINISHED)]
        again = run_case(lambda run=run: resume(run, whole))
        assert again.kind == "right", (limit, again)
        shutil.rmtree(run)
