"""A checkpoint damaged in any way is refused in a line; one that somebody edited and signed anew is right or refused."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from harness import n_cases, run_case
from safetensors.torch import load_file, save_file

from geminiq.generation.generate import generate
from geminiq.training.callbacks import Callback
from geminiq.training.trainer import make_trainer, resume_trainer
from geminiq.utils.checkpointing import last_whole, latest_checkpoint, load_checkpoint
from helpers import tiny_run


class Stop(Callback):
    "One step is enough."

    def on_step_end(self, trainer: Any, entry: dict) -> None:
        trainer.stop("one step is enough")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A run stopped after its first step."
    folder = tmp_path_factory.mktemp("checkpoints")
    make_trainer(tiny_run(folder), folder / "run", [Stop()], progress=False).train()
    return folder / "run"


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    "Nothing waits for the disk, which would take most of the time."
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def use(path: Path) -> None:
    "Read the latest checkpoint, and write with it."
    model, _, tokenizer = load_checkpoint(path)
    assert not model.training
    tokens = torch.tensor([tokenizer.encode("Ada writes")[:3]])
    assert generate(model, tokens, 3).shape[-1] > 0


def go_on(path: Path) -> None:
    "One more step."
    trainer = resume_trainer(path, callbacks=[Stop()], progress=False)
    before = trainer.step
    trainer.train()
    assert trainer.step == before + (before < trainer.settings.max_steps)


def sign(folder: Path) -> None:
    "Write the fingerprints anew, as somebody does who wants an edited checkpoint to be read."
    sums = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
                   for file in sorted(folder.iterdir()) if file.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_text(sums)


def damaged(content: bytes, choose: random.Random) -> bytes:
    "Cut, with other bytes, with bytes more or less."
    content, place = bytearray(content), choose.randrange(max(1, len(content)))
    how = choose.randrange(5)
    if how == 0:
        return bytes(content[:place])
    if how == 1:
        content[place] ^= 1 << choose.randrange(8)
    elif how == 2:
        del content[place:place + choose.randint(1, 50)]
    elif how == 3:
        content[place:place] = choose.randbytes(choose.randint(1, 50))
    else:
        content[place:place + 8] = choose.randbytes(8)
    return bytes(content)


FILES = ("model.safetensors", "config.yaml", "tokenizer.model", "training.safetensors", "training.json", "SHA256SUMS")


@pytest.mark.parametrize("name", FILES)
def test_damage_is_noticed(name: str, run: Path, tmp_path: Path) -> None:
    "Whatever was changed; the line names the folder, and nothing is read."
    for case in range(n_cases(4)):
        copy = shutil.copytree(run, tmp_path / str(case))
        folder = latest_checkpoint(copy)
        content = damaged((folder / name).read_bytes(), random.Random(f"{name} {case}"))
        if content == (folder / name).read_bytes():
            continue
        (folder / name).write_bytes(content)
        outcome = run_case(lambda folder=folder: use(folder))
        harmless = name == "SHA256SUMS" and last_whole(copy)     # a line more, or a name of no file less
        assert outcome.kind == ("right" if harmless else "refused") and (harmless or folder.name in outcome.text), (case, outcome)


# Edited, and signed anew

VALUES: tuple[Any, ...] = (None, -1, 0, 1.5, 2, 10**30, "x", "", [], [1, 2], {}, {"a": 1}, True, float("nan"), float("inf"))


def edit_state(folder: Path, choose: random.Random) -> None:
    state = json.loads((folder / "training.json").read_text())
    state[choose.choice(["step", "windows_read", "scaler", "data", "more"])] = choose.choice(VALUES)
    if choose.random() < 0.3:
        del state[choose.choice(list(state))]
    if choose.random() < 0.1:
        state = choose.choice(VALUES)
    (folder / "training.json").write_text(json.dumps(state))


def edit_config(folder: Path, choose: random.Random) -> None:
    values = yaml.safe_load((folder / "config.yaml").read_text())
    section = values["model"]
    key = choose.choice(list(section))
    section[key] = choose.choice([*VALUES, 3, 7, 64, 1000, 10**6, 10**9])
    (folder / "config.yaml").write_text(yaml.safe_dump(values))


def edit_tensors(folder: Path, choose: random.Random, name: str = "model.safetensors") -> None:
    tensors = load_file(folder / name)
    key = choose.choice(list(tensors))
    changes: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda t: t[:1].clone(), lambda t: t.flatten().clone(), lambda t: t.long(), lambda t: t.bool(), lambda t: t.half(),
        lambda t: t * torch.nan, lambda t: t[..., None].clone(), lambda t: torch.zeros(0), lambda t: t.to(torch.float8_e5m2)]
    how = choose.randrange(len(changes) + 3)
    if how < len(changes):
        tensors[key] = changes[how](tensors[key])
    elif how == len(changes):
        tensors["more"] = torch.zeros(3)
    else:
        tensors["other"] = tensors.pop(key)
    save_file(tensors, folder / name)


def edit_means(folder: Path, choose: random.Random) -> None:
    edit_tensors(folder, choose, "training.safetensors")


def edit_bytes(folder: Path, choose: random.Random) -> None:
    file = folder / choose.choice(FILES[:-1])
    file.write_bytes(damaged(file.read_bytes(), choose))


def edit_tokenizer(folder: Path, choose: random.Random) -> None:
    file = folder / "tokenizer.model"
    file.write_bytes(damaged(file.read_bytes(), choose))


EDITS = {edit: use_it for edit, use_it in ((edit_state, go_on), (edit_means, go_on), (edit_config, use), (edit_tensors, use),
                                           (edit_tokenizer, use), (edit_bytes, use))}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_what_was_edited_and_signed_is_right_or_refused(edit: Callable[[Path, random.Random], None], run: Path, tmp_path: Path) -> None:
    ends = []
    for case in range(n_cases(8)):
        copy = shutil.copytree(run, tmp_path / str(case))
        folder = latest_checkpoint(copy)
        edit(folder, random.Random(case))
        sign(folder)
        outcome = run_case(lambda copy=copy: EDITS[edit](copy))
        assert outcome.kind in ("right", "refused"), (case, outcome.text)
        ends.append(outcome.kind)
        shutil.rmtree(copy)
    assert "refused" in ends
