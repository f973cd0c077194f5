"""Every field of every family's config.json, damaged: read, or refused in one line that names the file, the key and the value."""

import json
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import n_cases, run_case
from pydantic import ValidationError

from geminiq.data.pretrained_tokenizer import load_tokenizer
from geminiq.models.pretrained import _KINDS, FAMILIES, load_pretrained
from geminiq.models.vision import ImageClassifier, VisionEncoder
from helpers import ALONE, SHAPE, Case, reference
from test_pretrained import FIRST, YARN
from test_pretrained_images import EYE, llava
from test_pretrained_images import reference as reference_with_images
from test_pretrained_tokenizer import FAMILIES as TOKENIZERS

MODELS = {**{case.family: case for case in FIRST.values()},
          "Llama, YaRN": Case("Llama", "", SHAPE | {"rope_parameters": YARN | {"attention_factor": 1.1}}),
          "ViT": Case("ViT", "", EYE | {"num_labels": 5}), "LLaVA": llava("", ALONE)}
WRONG: list[Any] = [None, "wide", "", [], [2], [1,
    [2]], {}, {"a": 1}, True, False, 0, -1, 1, 2, 3, 1.5, -0.5, 10**9, 10**12, 10**30,
                    -(10**12), 1e-300, 1e300, "\n\x1b[2J", [10**12, 10**12], [None], {"rope_type": "linear"}, {"type": "yarn"},
                    {"rope_type": ["x"]}, {"rope_type": "llama3", "factor": 8}, {"full_attention": 1}, {"rope_theta": "x"}]
GONE = object()


def write(name: str, folder: Path) -> dict:
    "A tiny published model; its config.json."
    case = MODELS[name]
    theirs = (reference_with_images if case.family in ("ViT", "LLaVA") else reference)(case)
    theirs.float().save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict]]:
    "Each of them."
    folders = {name: tmp_path_factory.mktemp(name.split(",")[0]) for name in MODELS}
    return {name: (folder, write(name, folder)) for name, folder in folders.items()}


def fields(settings: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    "Every key that we read, or that is there, as a path; also in tables inside."
    family = FAMILIES[settings["model_type"]].defaults if settings.get("model_type") in FAMILIES else {}
    for key in sorted(settings.keys() | family.keys()):
        yield (*path, key)
        if isinstance(settings.get(key), dict):
            yield from fields(settings[key], (*path, key))


def damaged(settings: dict, path: tuple, value: Any) -> dict:
    "A copy in which one value is another, or gone."
    changed = json.loads(json.dumps(settings))
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    if value is not GONE:
        place[path[-1]] = value
    elif isinstance(place, list) or path[-1] in place:
        del place[path[-1]]
    return changed


def load_and_run(folder: Path) -> None:
    "Read, and predict once."
    warnings.simplefilter("ignore")   # a tied model with a head of its own
    model = load_pretrained(folder).model
    with torch.no_grad():
        if isinstance(model, ImageClassifier | VisionEncoder):
            size = getattr(model, "encoder", model).config.image_size
            seen = torch.ones(1, 3, *((size, size) if isinstance(size, int) else size))
        else:
            seen = torch.tensor([[5, 6, 7]])
        assert model(seen).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_one_damaged_value(name: str, published: dict, tmp_path: Path) -> None:
    folder, settings = published[name]
    shutil.copytree(folder, tmp_path / "damaged")
    cases = [(path, value) for path in fields(settings) for value in [GONE, *WRONG]]
    random.Random(name).shuffle(cases)
    for i, (path, value) in enumerate(cases[:n_cases(4)]):
        (tmp_path / "damaged" / "config.json").write_text(json.dumps(damaged(settings, path, value)))
        kind, text = run_case(lambda: load_and_run(tmp_path / "damaged"))
        case = f"{name}, case {i}: {path} = {'gone' if value is GONE else value!r}: {text}"
        assert kind in ("right", "refused"), case
        if kind == "refused":
            assert str(tmp_path / "damaged") in text, case
        if path[-1] in _KINDS and path[-2:-1] != ("label2id",) and value is not GONE and not is_of_its_kind(path[-1], value):
            assert kind == "refused" and path[-1] in text and json.dumps(value)[:70] in text, case


def is_of_its_kind(key: str, value: Any) -> bool:
    "What the table of keys says."
    try:
        _KINDS[key].validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


# The tokenizer beside it


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    "Every place in a JSON; of a long list or table, the first few."
    inside = list(value.items())[:40] if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, found in inside:
        yield (*path, key)
        yield from places(found, (*path, key))


def read_and_use(folder: Path) -> None:
    "Read, and there and back."
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("Ada writes <x> é\n to Grace")
    tokenizer.decode(ids), tokenizer.pieces(ids), list(tokenizer.stream([0, 1, 2, 10**6]))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_one_damaged_value_of_a_tokenizer(name: str, tmp_path: Path) -> None:
    for file in sorted(TOKENIZERS[name](tmp_path).glob("*.json")):
        whole = json.loads(file.read_text())
        cases = [(path, value) for path in places(whole) for value in [GONE, *WRONG]]
        random.Random(name + file.name).shuffle(cases)
        for i, (path, value) in enumerate(cases[:n_cases(2)]):
            file.write_text(json.dumps(damaged(whole, path, value)))
            kind, text = run_case(lambda: read_and_use(tmp_path))
            assert kind in ("right", "refused"), f"{name}, {file.name}, case {i}: {path} = {value!r}: {text}"
        file.write_text(json.dumps(whole))
