"""Whole commands as they are typed, and every mistake a user can make."""

import json
import re
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from geminiq import __version__
from geminiq.cli import app
from geminiq.utils.config import PRESETS, preset_names
from helpers import LETTERS

pytestmark = pytest.mark.slow   # most start a process or more


def small(max_steps: int = 4, batch_size: int = 2, **model: int) -> list[str]:
    "Options of a model that trains in a moment."
    sizes = {"vocab_size": 320, "d_model": 24, "n_layers": 1, "n_heads": 2, "max_seq_len": 16, **model}
    changes = [*(f"model.{key}={value}" for key, value in sizes.items()), "training.eval_batches=1"]
    return [*(word for change in changes for word in ("--set", change)), "--batch_size", str(batch_size),
            "--max-steps", str(max_steps)]


def geminiq_process(*arguments: object, folder: Path, stdin: str = "") -> subprocess.CompletedProcess:
    "Run the command line as people do."
    return subprocess.run([sys.executable, "-m", "geminiq", *map(str, arguments)], cwd=folder, input=stdin,
                          capture_output=True, text=True)


def geminiq(*arguments: object, folder: Path, stdin: str = "", **more: object) -> subprocess.CompletedProcess:
    "Run the command line in this process, which saves the time that another needs to start."
    with chdir(folder):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, prog_name="geminiq", **more)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def refused(result: subprocess.CompletedProcess) -> str:
    "The one line that says what is wrong."
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result.stderr


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with a text and a small trained model."
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(LETTERS)
    result = geminiq("train", "--train_path", "text.txt", "--output", "runs/a", *small(), folder=folder)
    assert result.returncode == 0, result.stderr
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    "Every file below a folder, but for the tokens of a text, which stay for the next attempt."
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*")
            if file.is_file() and ".tokens" not in file.name and not file.name.startswith(".")}


def new(*more: str, output: str = "runs/new", **sizes: int) -> list[str]:
    "A training in a new folder."
    return ["train", "--train_path", "text.txt", "--output", output, *small(**sizes), *more]


SEARCH = ["generate", "--checkpoint", "runs/a", "--beam_search", "--max_tokens", "4"]
MISTAKES = {
    "no such corpus": (["train", "--train_path", "none.txt"], "no corpus 'none.txt'"),
    "no such configuration": (["train", "--config", "none.yaml"], "no configuration 'none.yaml'"),
    "empty corpus": (["train", "--train_path", "empty.txt", *small()], "is empty"),
    "corpus shorter than a window": (new(max_seq_len=99999), "too few for one window of 99999"),
    "batch larger than the text": (new(batch_size=99999), "batch_size 99999 is more than"),
    "vocabulary too large": (new(vocab_size=99999), "vocab_size 99999 is more than this text supports"),
    "vocabulary too small": (new(vocab_size=99), "use at least"),
    "unknown key": (new("--set", "training.warmup_step=3"), "training.warmup_step is unknown, did you mean warmup_steps?"),
    "unknown section": (new("--set", "trainign.seed=3"), "trainign is unknown, did you mean training?"),
    "bad value": (new("--set", "model.d_ff=wide"), "model.d_ff is 'wide'"),
    "sizes that do not fit": (new(n_heads=7), "d_model 24 is not a multiple of n_heads 7"),
    "not a change": (new("--set", "max_steps"), "write section.key=value"),
    "bad YAML": (["train", "--config", "bad.yaml"], "bad.yaml is not valid YAML at line"),
    "bad key in YAML": (["train", "--config", "key.yaml"], "key.yaml: model.d_modle is unknown, did you mean d_model?"),
    "no such device": (new("--set", "training.device=cuda:99"), "device 'cuda:99' is not available"),
    "a run is there already": (new(output="runs/a"), "holds a run up to step-000004"),
    "nothing to resume": (["train", "--resume", "--output", "runs/none"], "no checkpoint at 'runs/none'"),
    "another configuration": (["train", "--resume", "--output", "runs/a", "--set", "model.d_model=48"], "d_model was 24, now 48"),
    "another seed": (["train", "--resume", "--output", "runs/a", "--seed", "5"], "training.seed was 0, now 5"),
    "no checkpoint": (["generate", "--checkpoint", "none"], "no checkpoint at 'none'"),
    "truncated checkpoint": (["generate", "--checkpoint", "truncated"], "not what was saved"),
    "edited checkpoint": (["generate", "--checkpoint", "edited"], "config.yaml is not what was saved"),
    "a pickle in disguise": (["chat", "--checkpoint", "pickle"], "not what was saved"),
    "more than the context": (["generate", "--checkpoint", "runs/a", "--max_tokens", "99"], "exceed the max_seq_len 16"),
    "bad temperature": (["generate", "--checkpoint", "runs/a", "--temperature", "-1"], "temperature -1.0"),
    "bad top-p": (["chat", "--checkpoint", "runs/a", "--top_p", "7"], "top_p 7.0"),
    "a reply too long": (["chat", "--checkpoint", "runs/a", "--max_tokens", "16"], "max_tokens 16 must be between 1 and 15"),
    "longer windows than texts": (new("--seq_length", "17"), "data.seq_length 17 is more than model.max_seq_len 16"),
    "a path for a preset": (["train", "--config", "configs/small_model.yaml"], "did you mean the preset small?"),
    "unknown command": (["trian"], "No such command 'trian'"),
    "unknown option": (["train", "--learning_rat", "1e-3"], "--learning_rate"),
    "no number": (["train", "--max-steps", "many"], "--max_steps"),
    "nothing to generate from": (["generate"], "Missing option '--checkpoint' (see"),
    "drawing in a search": ([*SEARCH, "--temperature", "0.5", "--top-p", "0.9"], "leave out --temperature, --top_p"),
    "a search without beam search": ([*SEARCH[:3], "--num-beams", "3"], "--num_beams without --beam_search"),
    "more texts than beams": ([*SEARCH, "--num_beams", "2", "--num_return", "3"], "2"),
    "angles for no length": ([*SEARCH[:3], "--rope_scaling", "yarn"], "say how long, with --max_seq_len"),
    "a shorter text": (["chat", *SEARCH[1:3], "--max_seq_len", "8"], "max_seq_len 8 is less than the model's 16"),
    "unknown scaling": ([*SEARCH[:3], "--max_seq_len", "32", "--rope_scaling", "yarm"], "did you mean yarn?"),
    "a pickle": (["generate", "--checkpoint", "runs/model.pt"], "is a pickle"),
    "a picture for a model of text": ([*SEARCH[:3], "--image", "scene.png"], "sees no picture"),
    "a configuration that is there": (["config", "init", "key.yaml"], "key.yaml exists already"),
    "unknown preset": (["config", "init", "new.yaml", "--from", "mistrel"], "did you mean the preset mistral?"),
    "a file for a folder": (["train", "--train_path", "text.txt", "--output", "text.txt/run", *small()], "text.txt"),
}

IN_A_PROCESS = {"a pickle in disguise", "unknown command"}   # of their own


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_the_value_and_leaves_all_files_alone(mistake: str, work: Path):
    arguments, message = MISTAKES[mistake]
    checkpoint = work / "runs" / "a" / "step-000004"
    (work / "empty.txt").write_text(" \n")
    (work / "bad.yaml").write_text("model:\n  d_model: [24\n")
    (work / "key.yaml").write_text("model:\n  d_modle: 24\n")
    for name, file, damage in (("truncated", "model.safetensors", lambda data: data[:-50]),
                               ("edited", "config.yaml", lambda data: data.replace(b"n_heads: 2", b"n_heads: 4")),
                               ("pickle", "model.safetensors", lambda data: b"\x80\x04\x8c\x02os.")):
        (work / name).mkdir(exist_ok=True)
        for original in checkpoint.iterdir():
            data = original.read_bytes()
            (work / name / original.name).write_bytes(damage(data) if original.name == file else data)
    before = contents(work)
    run = geminiq_process if mistake in IN_A_PROCESS else geminiq
    assert message in refused(run(*arguments, folder=work))
    assert contents(work) == before


def test_generate_streams_the_same_text_for_the_same_seed(work: Path):
    command = "generate", "--checkpoint", "runs/a", "--prompt", "Ada", "--max_tokens", 10
    texts = [geminiq(*command, "--seed", seed, folder=work).stdout for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2] and texts[0].startswith("Ada")


def test_both_spellings_and_any_key(work: Path):
    result = geminiq("train", "--train_path", "text.txt", "--output", "runs/spelled", *small(max_steps=2),
                     "--learning-rate", "1e-3", "--set", "training.warmup_steps=1", folder=work)
    assert result.returncode == 0, result.stderr
    saved = (work / "runs" / "spelled" / "step-000002" / "config.yaml").read_text()
    assert "max_steps: 2" in saved and "learning_rate: 0.001" in saved and "warmup_steps: 1" in saved


def test_chat_reads_lines_until_told_to_stop(work: Path):
    result = geminiq_process("chat", "--checkpoint", "runs/a", "--max_tokens", 4, folder=work, stdin="Ada\n\n/reset\nEmmy\n")
    assert result.returncode == 0 and "Ada" in result.stdout and "Emmy" in result.stdout and not result.stderr


def test_beam_search_prints_texts_with_scores_the_best_first(work: Path):
    result = geminiq(*SEARCH, "--prompt", "Ada", "--num_return", 3, folder=work)
    assert result.returncode == 0, result.stderr
    scores = [float(line.split("\tAda")[0]) for line in result.stdout.splitlines() if "\tAda" in line]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert geminiq(*SEARCH, "--prompt", "Ada", folder=work).stdout == result.stdout.split("\n", 1)[0] + "\n"


def test_texts_longer_than_trained(work: Path):
    for method in ("none", "linear", "ntk", "yarn"):
        result = geminiq("generate", "--checkpoint", "runs/a/step-000004/model.safetensors", "--prompt", "Ada", "--max_tokens",
                         40, "--max_seq_len", 64, "--rope_scaling", method, folder=work)
        assert result.returncode == 0 and len(result.stdout) > 40, result.stderr
    result = geminiq("chat", "--checkpoint", "runs/a", "--max_tokens", 30, "--max-seq-len", 64, folder=work, stdin="Ada\n")
    assert result.returncode == 0, result.stderr


def test_train_prints_perplexity_and_accuracy_at_the_end(work: Path):
    result = geminiq(*new(output="runs/told"), "--val-path", "text.txt", "--seq-length", 8, folder=work)
    assert result.returncode == 0, result.stderr
    assert re.search(r"held-out loss [\d.]+ → [\d.]+ .*, perplexity \d+ → [\d.]+, accuracy [\d.]+% → [\d.]+%", result.stdout)


def test_config_shows_writes_and_explains(work: Path):
    result = geminiq("config", "init", "own.yaml", "--from", "mixtral", folder=work)
    assert result.returncode == 0 and "train --config own.yaml" in result.stdout
    shown = [geminiq("config", "show", name, folder=work).stdout for name in ("own.yaml", "mixtral")]
    assert shown[0] == shown[1] and "num_experts: 8\n" in shown[0]
    assert "d_model: 48\n" in geminiq("config", "show", "tiny", "--set", "model.d_model=48", folder=work).stdout
    schema = json.loads(geminiq("config", "schema", folder=work).stdout)
    assert schema == json.loads((PRESETS / "schema.json").read_text(encoding="utf-8"))
    assert all(name in geminiq("config", "list", folder=work).stdout for name in preset_names())


COMMANDS = ("verify", "course", "config list", "config show", "config init", "config schema", "train", "generate", "chat",
            "export", "demo")


def test_help_names_every_option_in_full_and_shows_examples():
    assert geminiq(folder=Path.cwd()).stdout == geminiq("--help", folder=Path.cwd()).stdout
    assert "Usage" in geminiq("config", folder=Path.cwd()).stdout
    for command in COMMANDS:
        result = geminiq(*command.split(), "--help", folder=Path.cwd(), env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
        assert result.returncode == 0 and "Usage" in result.stdout and not result.stderr
        assert geminiq(*command.split(), "-h", folder=Path.cwd()).returncode == 0
        assert "Examples:" in result.stdout and max(map(len, result.stdout.splitlines())) <= 80
        for option in parameters(command):
            assert re.search(rf"{option}\b", result.stdout), (command, option)


def parameters(command: str) -> list[str]:
    "The options of a command, as they are typed."
    found: Any = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    return [name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts) if name[0] == "-"]


def test_all_presets_are_in_the_help_and_completed():
    shown = " ".join(geminiq("train", "--help", folder=Path.cwd()).stdout.split())
    assert all(re.search(rf"\b{name}\b", shown) for name in preset_names())
    for words, expected in (("geminiq tr", {"train"}), ("geminiq train --config m", {"medium", "mistral", "mixtral"}),
                            ("geminiq train --learn", {"--learning_rate"})):
        asked = {"_GEMINIQ_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        assert set(geminiq(folder=Path.cwd(), env=asked).stdout.split()) == expected


def test_the_version():
    assert geminiq("--version", folder=Path.cwd()).stdout == f"geminiq {__version__}\n"


def test_help_does_not_wait_for_pytorch():
    code = "import sys, geminiq.cli; print([name for name in sys.modules if name.split('.')[0] in ('torch', 'pydantic')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
