"""Whole commands as they are typed, and every mistake a user can make."""

import json
import os
import re
import subprocess
import sys
from contextlib import chdir
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import geminiq.generation.chat as geminiq_chat
from geminiq import __version__
from geminiq.cli import app
from geminiq.data.pretrained_tokenizer import save_tokenizer
from geminiq.models.pretrained import save_pretrained
from geminiq.utils.checkpointing import load_checkpoint
from geminiq.utils.config import PRESETS, preset_names
from geminiq.utils.device import UserError
from helpers import LETTERS, Terminal

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


def geminiq(*arguments: object, folder: Path, stdin: str | bytes = "", charset: str = "utf-8", **more: Any,
            ) -> subprocess.CompletedProcess:
    "Run the command line in this process, which saves the time that another needs to start."
    words = [str(argument) for argument in arguments]
    with chdir(folder):
        result = CliRunner(charset=charset).invoke(app, words, input=stdin, prog_name="geminiq", **more)
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
    "nothing to look at": (["generate", "--checkpoint", "runs/a", "--image", "x.png"], "a model of text, which sees no picture"),
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
    result = geminiq("chat", "--checkpoint", "runs/a", "--max_tokens", 4, folder=work, stdin="Ada\n\n/reset\nEmmy\n")
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
                         40, "--max_seq_len", 64, "--rope_scaling", method, "--seed", 1, folder=work)
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
    presets = {"microworld", "mini", "mistral", "mixtral"}
    for words, expected in (("geminiq tr", {"train"}), ("geminiq train --config mi", presets),
                            ("geminiq train --learn", {"--learning_rate"})):
        asked = {"_GEMINIQ_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        assert set(geminiq(folder=Path.cwd(), env=asked).stdout.split()) == expected


def test_the_version():
    assert geminiq("--version", folder=Path.cwd()).stdout == f"geminiq {__version__}\n"


def test_help_does_not_wait_for_pytorch():
    code = "import sys, geminiq.cli; print([name for name in sys.modules if name.split('.')[0] in ('torch', 'pydantic')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


# Text is text

@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    "What training is asked for; it does not begin."
    asked: list[Any] = []

    def stop(settings: Any, *more: object) -> None:
        asked.append(settings)
        raise UserError("asked")

    monkeypatch.setattr("geminiq.training.trainer.make_trainer", stop)
    return asked


@pytest.mark.parametrize("name", ["notes #1.txt", "2024", "[draft] a.txt", "yes", "null", "{a: b}", "'quoted'", " a",
                                  "日本 👩‍👩‍👧.txt"])
def test_a_text_is_taken_as_it_is_typed(name: str, settings: list[Any], tmp_path: Path):
    options = ["--train_path", name, "--val_path", name, "--output", name]
    assert refused(geminiq("train", *options, folder=tmp_path)) == "error: asked\n"
    assert (settings[0].data.train_path, settings[0].data.val_path) == (name, name)


def test_the_home_folder_is_found_without_the_shell(settings: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    refused(geminiq("train", "--train_path=~/a.txt", "--set", "data.val_path=~/b.txt", "--output=~/run", folder=tmp_path))
    assert (settings[0].data.train_path, settings[0].data.val_path) == (f"{tmp_path}/a.txt", f"{tmp_path}/b.txt")
    assert geminiq("config", "init", "~/mine.yaml", folder=Path.cwd()).returncode == 0 and (tmp_path / "mine.yaml").is_file()


@pytest.mark.parametrize("options", [["--seed", "1", "--seed", "1"], ["--batch_size", "1", "--batch-size", "2"],
                                     ["--seed", "1", "--set", "training.seed=1"], ["--resume", "--resume"],
                                     ["--set", "model.d_ff=8", "--set", "model.d_ff=8"],
                                     ["--set", "model.rope_scaling={}", "--set", "model.rope_scaling.factor=2"]])
def test_what_is_given_twice_is_refused(options: list[str], settings: list[Any], tmp_path: Path):
    assert "given twice: leave one out" in refused(geminiq("train", *options, folder=tmp_path)) and not settings


# The terminal

def test_a_console_that_is_not_utf_8_and_bytes_that_are_no_text(work: Path):
    model = ["--checkpoint", "runs/a", "--max_tokens", "4", "--max_seq_len", "64"]
    result = geminiq("generate", *model, "--prompt", "Ada 日本 \udcff", folder=work, charset="cp1252")
    assert (result.returncode, result.stderr) == (0, "") and result.stdout.startswith("Ada ?? ?")
    result = geminiq("chat", *model, folder=work, stdin=b"Ada \xff\n")
    assert (result.returncode, result.stderr) == (0, "") and "Ada \ufffd" in result.stdout
    result = geminiq("train", "--help", folder=work, charset="ascii")
    assert result.returncode == 0 and "Usage" in result.stdout


def test_control_characters_are_shown_and_do_nothing(work: Path):
    evil = "Ada \x1b]0;mine\x07\x1b[2J\u202e\x9b"
    model = ["--checkpoint", "runs/a", "--max_tokens", "3", "--max_seq_len", "64"]
    result = geminiq("generate", *model, "--prompt", evil, folder=work)
    assert result.returncode == 0 and result.stdout.startswith(r"Ada \x1b]0;mine\x07\x1b[2J\u202e\x9b"), result.stderr
    said = refused(geminiq("generate", "--checkpoint", f"{evil}\nx", folder=work))
    assert said.rstrip("\n").isprintable()


def test_nobody_listens_any_more(work: Path):
    code = "import os, sys; from geminiq.cli import app; sys.argv = ['geminiq', 'config', 'list']; app()"
    reading, writing = os.pipe()
    os.close(reading)
    for output, status, said in ((writing, 141, ""), (os.open("/dev/full", os.O_WRONLY), 2, "error: No space left on device\n")):
        result = subprocess.run([sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True)
        assert (result.returncode, result.stderr) == (status, said)


def test_a_person_at_the_prompt(work: Path):
    terminal = Terminal(["-m", "geminiq", "chat", "--checkpoint", "runs/a", "--max_tokens", "3"], work, patience=300)
    terminal.expect("> ")
    terminal.interrupt("Ctrl-D leaves")
    terminal.expect("> ")
    terminal.type("Adx\x1b[D\x1b[C\x7fa\r")    # left, right, rub out
    terminal.expect("Ada")
    terminal.expect("\n> ")
    terminal.type("\x1b[A\r")                  # the line before, once more
    terminal.expect("Ada")
    terminal.expect("\n> ")
    terminal.type("\x04")
    assert terminal.status() == 0
    os.close(terminal.terminal)


def test_gnu_threads_look_out_for_a_moment_only():
    result = subprocess.run([sys.executable, "-c", "import geminiq, torch"], capture_output=True, text=True, check=True,
                            env={**{key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"},
                                 "OMP_DISPLAY_ENV": "verbose"})
    assert "GOMP_SPINCOUNT" not in result.stderr or "GOMP_SPINCOUNT = '1000'" in result.stderr
    assert "GOMP_SPINCOUNT" in result.stderr or sys.platform != "linux"


# chat

def test_chat_answers_what_is_for_the_program(work: Path):
    lines = "\n   \n/help\n/halp me\nAda\n /etc\n/reset\n" + "Emmy " * 30 + "\n/quit\nnever"
    result = geminiq("chat", "--checkpoint", "runs/a", "--max_tokens", 4, folder=work, stdin=lines)
    assert result.returncode == 0 and result.stdout.count("forgets everything") == 2 and "/halp me is unknown" in result.stdout
    assert result.stdout.count("> ") == 9 and "Ada" in result.stdout and " /etc" in result.stdout and "never" not in result.stdout


TEMPLATE = ("{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def test_chat_speaks_with_a_published_model_as_its_template_says(work: Path, monkeypatch: pytest.MonkeyPatch):
    model, _, tokenizer = load_checkpoint(work / "runs" / "a")
    save_pretrained(work / "published", model, "llama", tokenizer)
    save_tokenizer(tokenizer, work / "published", TEMPLATE)
    seen = []

    def stream(model: Any, tokens: Any, *more: Any, **how: Any) -> Any:
        seen.append(tokens[0].tolist())
        return real(model, tokens, *more, **how)

    real = geminiq_chat.stream
    monkeypatch.setattr(geminiq_chat, "stream", stream)
    result = geminiq("chat", "--checkpoint", "published", "--max_tokens", 4, folder=work,
                     stdin="Ada\nEmmy\n" + "Ada " * 30 + "\nA\n")
    assert result.returncode == 0, result.stderr
    assert "error: this message takes" in result.stderr and result.stderr.count("\n") == 1
    first, *later = seen
    marks = [tokenizer.chat_ids[f"<|{name}|>"] for name in ("user", "end", "assistant")]
    assert first == [marks[0], *tokenizer.encode("Ada"), *marks[1:]]
    assert len(seen) == 3 and all(len(ids) <= 12 and ids[0] == marks[0] and ids[-1] == marks[2] for ids in later)
    assert "> Ada\nAda" not in result.stdout      # an answer is not a continuation


# Before anything long begins

def test_what_is_hardly_meant_is_said(work: Path):
    more = ["--parallel", "fsdp", "--set", "training.warmup_steps=5", "--train_path", "short.txt",
            "--set", "training.gradient_accumulation=6"]
    (work / "short.txt").write_text(LETTERS[:3000])
    result = geminiq("train", "--output", "runs/said", *small(batch_size=60), *more, folder=work)
    notes = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert result.returncode == 0 and len(notes) == 3, result.stdout + result.stderr
    assert "warm-up of 5 steps" in notes[0] and "times, and will know it by heart" in notes[1] and "torchrun" in notes[2]
    assert re.match(r"short.txt: 1 file, [\d,]+ bytes\n[\d,]+ parameters on", result.stdout)
    again = geminiq("train", "--resume", "--output", "runs/said", "--max_steps", 3, folder=work)
    assert again.returncode == 0 and "nothing to do" in again.stdout and "--max_steps 8" in again.stdout


@pytest.mark.parametrize(("options", "message"), [
    (["--output", ""], "'' is no path"), (["--config", ""], "no configuration ''"),
    (["--set", "model.n_layers=200", "--set", "model.d_model=12288", "--device", "cpu"], "this machine has"),
    (["--set", "model.d_ff=1000000000000"], "TB in float32")])
def test_what_cannot_be_is_refused_before_the_text_is_read(options: list[str], message: str, settings: list[Any], tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert message in refused(geminiq("train", "--train_path", "none.txt", *options, folder=tmp_path)) and not settings


def test_a_folder_that_cannot_be_is_said_before_the_text_is_read(tmp_path: Path):
    (tmp_path / "file").write_text("")
    said = refused(geminiq("train", "--train_path", "none.txt", "--output", "file/run", folder=tmp_path))
    assert "file/run" in said and "none.txt" not in said


def test_export_asks_for_what_it_needs_before_it_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    said = refused(geminiq("export", "--checkpoint", "none", "--output", "out", folder=tmp_path))
    assert "huggingface_hub" in said and 'pip install "geminiq[hub]"' in said


def test_demo_speaks_before_pytorch_is_there(tmp_path: Path):
    code = "import sys; sys.modules['torch'] = None; from geminiq.cli import app; sys.argv = ['geminiq', 'demo']; app()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.startswith(f"geminiq {__version__}: a small language model answers")
    assert "Loading PyTorch" in result.stdout


def test_demo_asks_three_questions_and_talks(work: Path):
    model = "model: {vocab_size: 1200, d_model: 24, n_layers: 1, n_heads: 2, max_seq_len: 96}\n"
    (work / "short.yaml").write_text(
        f"{model}data: {{train_path: microworld, tokenizer_type: chat}}\n"
        "training: {max_steps: 2, batch_size: 2, eval_batches: 1, eval_every: 1, warmup_steps: 1}\n")
    result = geminiq("demo", "--config", "short.yaml", "--output", "runs/demo", folder=work, stdin="Hello!\n")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("Where is Ben?") == 4 and "Ben is in the kitchen." in result.stdout   # ours, untrained, two steps
    assert "Now you" in result.stdout and result.stdout.count("\n> ") == 2
    (work / "text.yaml").write_text(f"{model}data: {{train_path: text.txt}}\n")
    assert "learns to continue texts" in refused(geminiq("demo", "--config", "text.yaml", folder=work))
    (work / "narrow.yaml").write_text((work / "short.yaml").read_text().replace("96", "20"))
    assert "max_seq_len 20" in refused(geminiq("demo", "--config", "narrow.yaml", "--output", "runs/narrow", folder=work))
