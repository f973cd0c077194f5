"""Whole commands in processes of their own, and every mistake a user can make."""

import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ["--set", "model.vocab_size=320", "--set", "model.d_model=24", "--set", "model.n_layers=1", "--set", "model.n_heads=2",
         "--set", "model.max_seq_len=16", "--batch_size", "2", "--set", "training.eval_batches=1", "--max-steps", "4"]


def geminiq(*arguments: object, folder: Path, stdin: str = "") -> subprocess.CompletedProcess:
    "Run the command line."
    return subprocess.run([sys.executable, "-m", "geminiq", *map(str, arguments)], cwd=folder, input=stdin,
                          capture_output=True, text=True)


def refused(result: subprocess.CompletedProcess) -> str:
    "The one line that says what is wrong."
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    return result.stderr


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with a text and a small trained model."
    folder = tmp_path_factory.mktemp("cli")
    names = ["Ada", "Emmy", "Grace", "Mary", "Sofia", "Rosalind"]
    (folder / "text.txt").write_text("\n\n".join(f"{a} writes to {b} about {c}." for a in names for b in names for c in names))
    result = geminiq("train", "--train_path", "text.txt", "--output", "runs/a", *SMALL, folder=folder)
    assert result.returncode == 0, result.stderr
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    "Every file below a folder."
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


NEW = ["train", "--train_path", "text.txt", "--output", "runs/new", *SMALL]
MISTAKES = {
    "no such corpus": (["train", "--train_path", "none.txt"], "no corpus 'none.txt'"),
    "no such configuration": (["train", "--config", "none.yaml"], "no configuration 'none.yaml'"),
    "empty corpus": (["train", "--train_path", "empty.txt", *SMALL], "is empty"),
    "corpus shorter than a window": ([*NEW, "--set", "model.max_seq_len=99999"], "too few for one window of 99999"),
    "batch larger than the text": ([*NEW, "--batch_size", "99999"], "batch_size 99999 is more than"),
    "vocabulary too large": ([*NEW, "--set", "model.vocab_size=99999"], "vocab_size 99999 is more than this text supports"),
    "vocabulary too small": ([*NEW, "--set", "model.vocab_size=99"], "use at least"),
    "unknown key": ([*NEW, "--set", "training.warmup_step=3"], "training.warmup_step is unknown, did you mean warmup_steps?"),
    "unknown section": ([*NEW, "--set", "trainign.seed=3"], "trainign is unknown, did you mean training?"),
    "bad value": ([*NEW, "--set", "model.d_model=wide"], "model.d_model is 'wide'"),
    "sizes that do not fit": ([*NEW, "--set", "model.n_heads=7"], "d_model 24 is not a multiple of n_heads 7"),
    "not a change": ([*NEW, "--set", "max_steps"], "write section.key=value"),
    "bad YAML": (["train", "--config", "bad.yaml"], "bad.yaml is not valid YAML at line"),
    "bad key in YAML": (["train", "--config", "key.yaml"], "key.yaml: model.d_modle is unknown, did you mean d_model?"),
    "no such device": ([*NEW, "--set", "training.device=cuda:99"], "device 'cuda:99' is not available"),
    "a run is there already": (["train", "--train_path", "text.txt", "--output", "runs/a", *SMALL], "holds a run up to step-000004"),
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
    "a file for a folder": (["train", "--train_path", "text.txt", "--output", "text.txt/run", *SMALL], "text.txt"),
}


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
    assert message in refused(geminiq(*arguments, folder=work))
    assert contents(work) == before


def test_generate_streams_the_same_text_for_the_same_seed(work: Path):
    command = "generate", "--checkpoint", "runs/a", "--prompt", "Ada", "--max_tokens", 10
    texts = [geminiq(*command, "--seed", seed, folder=work).stdout for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2] and texts[0].startswith("Ada")


def test_both_spellings_and_any_key(work: Path):
    result = geminiq("train", "--train_path", "text.txt", "--output", "runs/spelled", *SMALL, "--max_steps", 2,
                     "--learning-rate", "1e-3", "--set", "training.warmup_steps=1", folder=work)
    assert result.returncode == 0, result.stderr
    saved = (work / "runs" / "spelled" / "step-000002" / "config.yaml").read_text()
    assert "max_steps: 2" in saved and "learning_rate: 0.001" in saved and "warmup_steps: 1" in saved


def test_chat_reads_lines_until_told_to_stop(work: Path):
    result = geminiq("chat", "--checkpoint", "runs/a", "--max_tokens", 4, folder=work, stdin="Ada\n\n/reset\nEmmy\n")
    assert result.returncode == 0 and "Ada" in result.stdout and "Emmy" in result.stdout and not result.stderr


def test_help_names_every_option():
    for command in ("train", "generate", "chat", "demo", "verify"):
        result = geminiq(command, "--help", folder=Path.cwd())
        assert result.returncode == 0 and "Usage" in result.stdout and not result.stderr
