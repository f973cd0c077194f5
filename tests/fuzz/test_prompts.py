"Prompts of any characters: what is printed commands no terminal, and nothing ends in a traceback."

import random
from contextlib import chdir
from pathlib import Path

import pytest
from harness import n_cases, run_case
from typer.testing import CliRunner

from geminiq.cli import app
from geminiq.utils.checkpointing import build_model, save_checkpoint
from geminiq.utils.config import make_config
from helpers import tiny_tokenizer

STRANGE = ["\x1b[2J", "\x1b]0;x\x07", "\0", "\x7f", "\x9b", "\r", "\t", "\n", "\u2028", "\u202e", "\ufeff", "\ud800",
    "\udcff", "▁", "</s>", "<|user|>",
           "👩‍👩‍👧", "é", "e\u0301", "日本", "\u00a0", " ", "a", "the", "<0x0A>", "\U0010ffff", "/quit", "/x"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with a model."
    folder = tmp_path_factory.mktemp("prompts")
    config = make_config({"model": {"vocab_size": 290, "max_seq_len": 400, "d_model": 16, "n_layers": 1, "n_heads": 2}})
    save_checkpoint(folder / "run", build_model(config), config, tiny_tokenizer())
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
