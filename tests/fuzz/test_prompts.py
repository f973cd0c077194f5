"Prompts of any characters: what is printed commands no terminal, and nothing ends in a traceback."

import random
from contextlib import chdir
from pathlib import Path

import pytest
from harness import n_cases, run_case
from typer.testing import CliRunner

from geminiq.cli import app
from geminiq.data.tokenizer import ChatTokenizer
from geminiq.utils.checkpointing import build_model, save_checkpoint
from geminiq.utils.config import make_config
from helpers import tiny_tokenizer

STRANGE = ["\x1b[2J", "\x1b]0;x\x07", "\0", "\x7f", "\x9b", "\r", "\t", "\n", "\u2028", "\u202e", "\ufeff", "\ud800",
    "\udcff", "▁", "</s>", "<|user|>",
           "👩‍👩‍👧", "é", "e\u0301", "日本", "\u00a0", " ", "a", "the", "<0x0A>", "\U0010ffff", "/quit", "/x"]
COMMANDS = ["/help", "/reset", "/system", "/temperature", "/save", "/load", "/story", "/quit", "/"]
AFTER = ["", " ", " 0.7", " nan", " -0", " 1e999", " talk", " .", " /dev/null", " ~", " damaged", " " + "x" * 5000]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with a model."
    folder = tmp_path_factory.mktemp("prompts")
    config = make_config({"model": {"vocab_size": 290, "max_seq_len": 400, "d_model": 16, "n_layers": 1, "n_heads": 2}})
    save_checkpoint(folder / "run", build_model(config), config, tiny_tokenizer())
    answering = config.model_copy(update={"data": config.data.model_copy(update={"tokenizer_type": "chat"})})
    save_checkpoint(folder / "chat", build_model(config), answering, ChatTokenizer(tiny_tokenizer().model))
    (folder / "damaged").write_text('{"system": null, "messages": [{"role": "user"')
    return folder


@pytest.mark.parametrize("case", range(n_cases(4)))
def test_any_prompt(case: int, work: Path):
    chance = random.Random(case)

    def try_some() -> None:
        for _ in range(3):
            text = "".join(chance.choices(STRANGE, k=chance.randint(0, 12)))
            typed = text.encode("utf-8", "surrogatepass") + chance.randbytes(chance.randint(0, 3))
            for charset in ("utf-8", "cp1252"):
                for words, lines in ((["generate", "--prompt", text, "--stop", text + "x"], b""), (["chat"], typed)):
                    words = [*words, "--checkpoint", "run", "--max_tokens", "5"]
                    result = CliRunner(charset=charset).invoke(app, words, input=lines, prog_name="geminiq")
                    if result.exception and not isinstance(result.exception, SystemExit):
                        raise result.exception
                    assert result.exit_code == 0, (words, result.stderr)
                    shown = result.output.replace("\n", "").replace("\t", "")
                    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown), (words, shown)

    with chdir(work):
        outcome = run_case(try_some, seconds=30)
    assert outcome.kind == "right", f"case {case}: {outcome.text}"


@pytest.mark.parametrize("case", range(n_cases(3)))
def test_any_chat(case: int, work: Path):
    chance = random.Random(case)

    def line() -> bytes:
        kind = chance.choices(["words", "command", "both"], [3, 3, 1])[0]
        command = chance.choice(COMMANDS) + chance.choice(AFTER) if kind != "words" else ""
        known = STRANGE if kind == "words" else [text for text in STRANGE if text[0] != "/"]   # a file stays in the folder
        words = "".join(chance.choices(known, k=0 if kind == "command" else chance.randint(0, 9)))
        typed = command + words * chance.choice([1, 1, 1, 60])
        return typed.encode("utf-8", "surrogatepass") + chance.randbytes(chance.randint(0, 2))

    def try_some() -> None:
        for checkpoint in ("run", "chat"):
            typed = b"\n".join(line() for _ in range(15)) + b"\n"
            words = ["chat", "--checkpoint", checkpoint, "--max_tokens", "5"]
            result = CliRunner().invoke(app, words, input=typed, prog_name="geminiq")
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert result.exit_code == 0, (typed, result.stderr)
            assert all(said.startswith("error: ") for said in result.stderr.splitlines()), result.stderr
            assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in result.output), typed

    with chdir(work):
        outcome = run_case(try_some, seconds=30)
    assert outcome.kind == "right", f"case {case}: {outcome.text}"
