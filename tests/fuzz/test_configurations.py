"Configurations as nobody would write them: every key with what it should not be, damaged files, any change."

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from harness import n_cases, run_case

from geminiq.models.transformer import Transformer
from geminiq.utils.config import PARTS, Config, Section, _section_in, format_config, load_config, make_config
from geminiq.utils.device import UserError
from geminiq.utils.files import parse_yaml

WRONG: list[Any] = [
    None, True, False, "", " ", "x", "auto", "0", "1e3", "yes", "~", "a\nb", "\x1b[2J", "\0", "\ud800", "é日本",
    "x" * 5000, b"\xff",
    0, 1, -1, 2, 3, 7, 2**31, 2**53, 2**63, -2**63, 10**12, 16**5000, -16**5000, 0.0, 0.5, 1.5, -0.5, 1e-45, 1e308, -1e308,
    float("inf"), float("-inf"), float("nan"), 192.0, [], [0.9], [0.9, 0.95], [1, 2, 3], [None], [[]], {}, {"a": 1}, {1: 2},
    {"type": "yarn"}, {"type": "yarn", "factor": 1e308}, [{}], [{"d_ff": 0}], [{"d_model": 2}], [{"layers": [{}]}],
    [{"attention_type": "linear"}], {None: None}, {"a", "b"}, (1, 2), object]
FULL = yaml.safe_load(format_config(load_config("vision_language")))
FULL["model"]["rope_scaling"] = {"type": "yarn", "factor": 2.0}


def places(kind: type[Section], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    "Every key, with the sections around it."
    found = []
    for key, field in kind.model_fields.items():
        inner = _section_in(field)
        found += [(*path, key), *(places(inner, (*path, key)) if inner else [])]
    return found


KEYS = places(Config)


def mutated(random: random.Random, n: int) -> dict[Any, Any]:
    "The full configuration, with some keys wrong, missing, doubled under another name, or not keys at all."
    values = copy.deepcopy(FULL)
    for path in random.sample(KEYS, n):
        *sections, key = path
        inner: Any = values
        for name in sections:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            how = random.random()
            if how < 0.8:
                inner[key] = random.choice(WRONG)
            elif how < 0.9:
                inner.pop(key, None)
            else:
                inner[random.choice([key + "s", key.upper(), "", "\x1b", 7, None])] = inner.pop(key, 1)
    return values


def build(config: Config) -> None:
    "What the configuration describes, without memory; big ones may take long, and are not built."
    if config.model.n_layers * config.model.num_experts <= 64:
        with torch.device("meta"):
            Transformer(config.model)


for key in PARTS:      # all parts are imported once, here, and not in every case
    [PARTS[key][name] for name in PARTS[key]]
build(make_config(FULL))


def check(case: object, function: Any) -> None:
    "A case ends well, or in one line."
    outcome = run_case(function)
    assert outcome.kind != "fault", f"case {case}: {outcome.text}"


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_every_key_with_every_wrong_value(path: tuple[str, ...]):
    def try_all() -> None:
        for value in WRONG:
            values: Any = {}
            inner = values
            for name in path[:-1]:
                inner[name] = {"type": "yarn", "factor": 2} if name == "rope_scaling" else {}
                inner = inner[name]
            inner[path[-1]] = value
            try:
                config = make_config(values)
                if path[0] == "model":
                    build(config)
            except UserError as error:
                assert str(error).isprintable() and len(str(error)) < 2000, error
    check(path, try_all)


@pytest.mark.parametrize("case", range(n_cases(10)))
def test_a_full_configuration_with_several_mistakes(case: int):
    chance = random.Random(case)

    def try_some() -> None:
        for _ in range(10):
            try:
                config = make_config(mutated(chance, chance.randint(1, 4)))
                assert make_config(parse_yaml(format_config(config), "written")) == config
                build(config)
            except UserError as error:
                assert str(error).isprintable(), error
    check(case, try_some)


def damaged(content: bytes, chance: random.Random) -> bytes:
    "The bytes of a file after something has happened to it."
    at, end = sorted((chance.randrange(len(content)), chance.randrange(len(content))))
    return chance.choice([
        content[:at], content[at:], content[:at] + content[end:], content[:at] + chance.randbytes(3) + content[at:],
        content.decode().encode("utf-16"), content.decode().encode("utf-32"), "é".encode("latin-1") + content,
        b"\xef\xbb\xbf" + content,
        chance.randbytes(200), b"\0" * 100, b"\x89PNG\r\n\x1a\n" + content, b"[" * 10_000, b"model: " + b"{a: " * 1000,
        b"- " * 1000,
        b"", b"---\n---\n", b"model: &m\n  d_model: *m\n", b"model: &m {layers: [*m, *m]}\n",
        b"!!python/object:os.system {}",
        b"a: &a [x]\n" + b"".join(b"%c: &%c [*%c, *%c, *%c]\n" % (i + 1, i + 1, i, i, i) for i in range(97, 121)),
        content[:at].rpartition(b"\n")[0] + chance.choice([b"\n  - x\n", b"\n\tx: 1\n", b"\n? [a]\n: b\n", b"\n<<: *x\n",
        b"\n%TAG\n"])])


@pytest.mark.parametrize("case", range(n_cases(8)))
def test_a_damaged_file(case: int, tmp_path: Path):
    chance = random.Random(case)
    content = (Path(__file__).parents[1] / "data" / "specification.yaml").read_bytes()

    def try_some() -> None:
        for _ in range(8):
            (tmp_path / "c.yaml").write_bytes(damaged(content, chance))
            try:
                load_config(tmp_path / "c.yaml")
            except UserError as error:
                assert str(error).isprintable(), error
    check(case, try_some)


WORDS = ["model", "training", "data", "vision", "d_model", "layers", "rope_scaling", "type", "betas", "x", "", ".", "=",
    " ", "#", "[", "{",
         "}", "]" * 1000, "[" * 1000, "{a: " * 500, "&a", "*a", "!!binary", "!!float", "!!set", "0x_", "9" * 5000,
         "2001-99-99", "1e999", ".inf",
         "~", "null", "'", '"', ":", "- ", "\n", "\0", "\x1b", "\ud800", "é", "<<", "%", "@", "`", "? "]


@pytest.mark.parametrize("case", range(n_cases(8)))
def test_any_change(case: int):
    chance = random.Random(case)

    def try_some() -> None:
        for _ in range(10):
            change = "".join(chance.choices(WORDS, k=chance.randint(0, 5)))
            key = ".".join(chance.choice(KEYS)) if chance.random() < 0.6 else ""
            for text in (f"{key}={change}", f"{key}{change}", change):
                try:
                    load_config("tiny", [text])
                except UserError as error:
                    assert str(error).isprintable() and len(str(error)) < 2000, error
    check(case, try_some)
