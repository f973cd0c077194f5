"Every command, every option, with what nobody should give it: exit 0, or 2 with one line."

import random
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import typer
from harness import n_cases, run_case
from typer.testing import CliRunner

from geminiq.cli import app
from geminiq.course import lessons
from geminiq.generation.generate import generate_text
from geminiq.models.pretrained import save_pretrained
from geminiq.training.trainer import Trainer
from geminiq.utils.checkpointing import build_model, save_checkpoint
from geminiq.utils.config import make_config
from geminiq.utils.device import UserError
from helpers import tiny_tokenizer

WRONG = ["", " ", "0", "1", "2", "-1", "0.5", "1e-45", "1e-320", "1e308", "nan", "inf", "-inf", str(10**12), str(2**63),
    "9" * 5000, "0x_",
         "2001-99-99", "[" * 1000, "yes", "null", "true", "auto", "cpu", "cuda:99", "tiny", "yarn", "é日本", "\udcff",
         "\x1b[2J", "a\nb", "\0",
         "x" * 5000, "~", "~nobody/x", ".", "..", "/dev/null", "/proc/self/mem", "file.txt", "run", "model.d_ff=8",
         "model.d_model=x",
         "vision.image_size=[]", "[draft] #1", "-h", "--", "1GB", "5TB", "llama", "pydocs", "'"]
ENOUGH = {   # of each command, what it needs; the model is small, and training does not begin
    "config show": ["tiny"], "config init": ["new.yaml"], "config list": [], "config schema": [],
    "train": ["--train_path", "file.txt", "--output", "new", "--config", "small.yaml"],
    "generate": ["--checkpoint", "run", "--max_tokens", "3"], "chat": ["--checkpoint", "run"],
    "export": ["--checkpoint", "run", "--output", "published"], "demo": ["--no-chat", "--config", "small.yaml",
    "--output", "new"],
    "course": []}
SETTINGS: dict[str, Any] = {"model": {"vocab_size": 290, "max_seq_len": 32, "d_model": 16, "n_layers": 1, "n_heads": 2},
                            "data": {"train_path": "file.txt"}}


def parameters(command: str) -> list[Any]:
    "What a command takes."
    found: Any = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    return [parameter for parameter in found.params if parameter.name != "help"]


CASES = [(command, parameter, value) for command in ENOUGH for parameter in parameters(command) for value in WRONG]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with a text, a configuration and a model."
    folder = tmp_path_factory.mktemp("options")
    config = make_config(SETTINGS)
    model = build_model(config)
    save_checkpoint(folder / "run", model, config, tiny_tokenizer())
    save_pretrained(folder / "theirs", model, "llama", tiny_tokenizer())
    (folder / "file.txt").write_text("the cat sat on the mat.\n\n" * 90)
    (folder / "small.yaml").write_text(str(SETTINGS))
    generate_text(model, tiny_tokenizer(), "the", 2)     # what is slow the first time
    return folder


def arguments(command: str, parameter: Any, value: str) -> list[str]:
    "The command with what it needs, and one option of this value."
    name = next((name for name in parameter.opts if name.startswith("-")), None)
    enough = ENOUGH[command]
    if name is None:
        return [*command.split(), value, *enough[1:]]
    if name in enough:
        at = enough.index(name)
        enough = enough[:at] + enough[at + (1 if parameter.is_flag else 2):]
    return [*command.split(), *enough, *([name] if parameter.is_flag else [f"{name}={value}"])]


def stopped(self: Trainer) -> None:
    raise UserError("training would begin")


def unopened(folder: Path, browser: bool) -> None:
    raise UserError("JupyterLab would begin, and not end")


@pytest.mark.parametrize("case", range(n_cases(12)))
def test_any_option_with_any_value(case: int, work: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Trainer, "train", stopped)
    monkeypatch.setattr(lessons, "open_lab", unopened)
    monkeypatch.setenv("HOME", str(work))
    chosen = random.Random(case).sample(CASES, 10)

    def try_them() -> None:
        for command, parameter, value in chosen:
            words = arguments(command, parameter, value)
            result = CliRunner().invoke(app, words, input="the\n", prog_name="geminiq")
            if result.exception and not isinstance(result.exception, SystemExit):
                raise RuntimeError(str(words)[:300]) from result.exception
            error = result.stderr.splitlines()[-1] if result.exit_code else ""
            assert result.exit_code in (0, 2), (words, result.stderr)
            assert not error or (error.startswith("error: ") and error.isprintable()), (words, error)
            assert not error or result.stderr.count("\n") == 1 or "step/s" in result.stderr, (words, result.stderr)
            assert "\x1b" not in result.output and "Traceback" not in result.output, words

    with chdir(work):
        outcome = run_case(try_them, seconds=30)
    assert outcome.kind == "right", f"case {case}: {outcome.text}"
