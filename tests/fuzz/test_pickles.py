"""Pickles as weights: nothing in them runs, what is no table of stored tensors is refused, and memory is that of the file."""

import collections
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import n_cases, run_case
from safetensors.torch import load_file

from geminiq.models.pretrained import load_pretrained
from geminiq.training.lora import add_lora, load_adapter, save_adapter
from helpers import reference, tiny_model
from test_pretrained import FIRST


class Canary:
    "Makes a folder if it is ever woken."

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder / "sprung"),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    "A published model without weights."
    reference(FIRST["GPT2"]).float().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "kept")
    return tmp_path


def spread(weights: dict, name: str, tensor: object) -> dict:
    return weights | {name: tensor}


WTE = "transformer.wte.weight"
WRONG: dict[str, Callable[[dict, Path], Any]] = {
    "a list": lambda weights, _: [*weights.values()],
    "nothing": lambda *_: None, "a number": lambda *_: 3, "a tensor": lambda *_: torch.ones(3),
    "numbers as names": lambda weights, _: dict(enumerate(weights.values())),
    "a table inside": lambda weights, _: {"state_dict": weights}, "a list inside": lambda weights, _: spread(weights, WTE, [1.0]),
    "None inside": lambda weights, _: spread(weights, WTE, None),
    "sparse": lambda weights, _: spread(weights, WTE, torch.eye(4).to_sparse()),
    "sparse and huge": lambda weights, _: spread(weights, WTE, torch.sparse_coo_tensor(size=(10**9, 10**9))),
    "rows": lambda weights, _: spread(weights, WTE, torch.eye(4).to_sparse_csr()),
    "only promised": lambda weights, _: spread(weights, WTE, torch.empty(10**6, 10**6, device="meta")),
    "expanded": lambda weights, _: spread(weights, WTE, torch.ones(1).expand(10**5, 10**5)),
    "expanded a little": lambda weights, _: spread(weights, WTE, torch.ones(16).expand(61, 16)),
    "expanded beside": lambda weights, _: spread(weights, "more", torch.ones(1).expand(10**6, 10**6)),
    "whole numbers": lambda weights, _: spread(weights, WTE, torch.ones(61, 16, dtype=torch.long)),
    "complex": lambda weights, _: spread(weights, WTE, torch.ones(61, 16, dtype=torch.complex64)),
    "quantized": lambda weights, _: spread(weights, WTE, torch.quantize_per_tensor(torch.ones(61, 16), 0.1, 0, torch.qint8)),
    "a canary": lambda weights, folder: spread(weights, "x", Canary(folder)),
    "only a canary": lambda _, folder: Canary(folder), "a counter": lambda *_: collections.Counter("abc"),
    "nothing in it": lambda *_: {}, "empty": lambda weights, _: spread(weights, WTE, torch.empty(0)),
    "another device": lambda weights, _: spread(weights, WTE, torch.ones(0, device="meta")),
}


def check(folder: Path, what: str) -> None:
    "Refused, and nothing ran."
    kind, text = run_case(lambda: load_pretrained(folder), megabytes=300)
    assert kind == "refused" and str(folder) in text, f"{what}: {kind} {text}"
    assert not (folder / "sprung").exists(), what


@pytest.mark.filterwarnings("ignore")   # PyTorch's own, on sparse and quantized tensors
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_table_of_tensors(zipped: bool, folder: Path) -> None:
    weights = load_file(folder / "kept")
    for what, make in WRONG.items():
        torch.save(make(weights, folder), folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        check(folder, f"{what}, zipped {zipped}")
    for content in (b"", b"\x80", pickle.dumps(weights.keys().__len__()), pickle.dumps(Canary(folder)),
    b"PK\3\4", os.urandom(999), b"\n" * 9):
        (folder / "pytorch_model.bin").write_bytes(content)
        check(folder, repr(content[:20]))


def test_a_compressed_archive(folder: Path) -> None:
    "A gigabyte of zeros is a megabyte of file."
    torch.save(load_file(folder / "kept"), folder / "small")
    with zipfile.ZipFile(folder / "small") as small, zipfile.ZipFile(folder / "pytorch_model.bin",
    "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in small.namelist():
            bomb.writestr(entry, small.read(entry) + (bytes(2 * 10**8) if entry.endswith("data.pkl") else b""))
    check(folder, "compressed")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_bytes(zipped: bool, folder: Path) -> None:
    buffer = io.BytesIO()
    torch.save(load_file(folder / "kept"), buffer, _use_new_zipfile_serialization=zipped)
    whole = buffer.getvalue()
    for case in range(n_cases(15)):
        draw, content = random.Random(case), bytearray(whole)
        for _ in range(draw.randrange(1, 20)):
            content[draw.randrange(min(len(content), draw.choice([200, 3000, 10**9])))] = draw.randrange(256)
        if draw.random() < 0.3:
            del content[draw.randrange(len(content)):]
        (folder / "pytorch_model.bin").write_bytes(content)
        kind, text = run_case(lambda: load_pretrained(folder))
        assert kind in ("right", "refused"), f"case {case}, zipped {zipped}: {text}"


def test_adapters(tmp_path: Path) -> None:
    model = tiny_model()
    add_lora(model, rank=2, alpha=4)
    folder = save_adapter(tmp_path / "adapter", model)
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    first = next(iter(weights))
    for tensor in (Canary(folder), [1], torch.ones(1).expand(10**5, 10**5), None):
        torch.save(weights | {first: tensor}, folder / "adapter_model.bin")
        kind, text = run_case(lambda: load_adapter(folder, tiny_model()), megabytes=300)
        assert kind == "refused" and not (folder / "sprung").exists(), (tensor, text)
    torch.save(weights, folder / "adapter_model.bin")
    settings = json.loads((folder / "adapter_config.json").read_text())
    values = [None, "x", -1, 0, 10**12, 1e300, [],
    [1], {}, {"q_proj": "x"}, {"(.*)*(.*)*x": 2}, {"q_proj": 10**12}, {"": 1}, True, "\x1b"]
    cases = [(key, value) for key in sorted(settings) for value in values]
    random.Random(0).shuffle(cases)
    for key, value in cases[:n_cases(25)]:
        (folder / "adapter_config.json").write_text(json.dumps(settings | {key: value}))
        kind, text = run_case(lambda: load_adapter(folder, tiny_model()))
        assert kind in ("right", "refused"), (key, value, text)
