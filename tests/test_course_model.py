"""The model that comes with the course is the one its report describes, and small enough to come along."""

import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from geminiq.data.microworld import conversation
from geminiq.generation.chat import Conversation
from geminiq.generation.evaluation import evaluate, load_report
from geminiq.training.callbacks import Callback, TrainingRun, read_log
from geminiq.training.trainer import make_trainer
from geminiq.utils.checkpointing import Checkpoint, load_checkpoint, load_course_model, save_checkpoint
from geminiq.utils.config import load_config

ROOT = Path(__file__).parents[1]
FOLDER = Path(str(files("geminiq"))) / "weights" / "microworld"


@pytest.fixture(scope="module")
def course() -> Checkpoint:
    "The model, its configuration and its tokenizer."
    return load_course_model()


def test_it_is_small_and_brings_its_report():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 5_000_000
    assert {file.name for file in FOLDER.iterdir()} == {
        "model.safetensors", "config.yaml", "tokenizer.model", "SHA256SUMS", "report.json", "log.jsonl"}


def test_it_is_right_as_often_as_its_report_says(course: Checkpoint):
    said, n = load_report(FOLDER / "report.json").tables["right"]["questions about stories"], 500
    found = evaluate(course.model, course.tokenizer, n=n, progress=False).tables["right"]["questions about stories"]
    spread = (said.value * (1 - said.value) * (1 / found.n - 1 / said.n)) ** 0.5   # of a part of the same questions
    assert abs(found.value - said.value) < 4 * spread, (found, said)


class TwentySteps(Callback):
    def on_step_end(self, trainer: TrainingRun, entry: dict) -> None:
        if trainer.step == 20:
            trainer.stop("that is enough")


def test_its_recipe_still_begins_as_it_began(tmp_path: Path):
    config = load_config("microworld", ["training.eval_batches=1"])
    assert load_course_model().config.model == config.model
    history = make_trainer(config, tmp_path / "run", [TwentySteps()], progress=False).train()
    recorded = {entry["step"]: entry["loss"] for entry in read_log(FOLDER, 20) if "loss" in entry}
    assert recorded.keys() == set(range(1, 21)) and recorded[20] < recorded[1] - 1
    for entry in history[1:]:      # processors differ in how they multiply 16 bits
        assert entry["loss"] == pytest.approx(recorded[entry["step"]], rel=0.005), entry


def test_its_second_part_is_the_one_that_make_model_trains(course: Checkpoint):
    said = subprocess.run(["make", "-n", "model"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    line = next(line for line in said.replace("\\\n", " ").splitlines() if "--init_from" in line).split()
    given = {name: line[line.index(f"--{name}") + 1] for name in ("init_from", "seed", "max_steps", "set")}
    second = load_config("microworld", [given.pop("set"), *(f"training.{name}={value}" for name, value in given.items())])
    assert course.config == second


def test_it_says_who_it_is_and_what_the_story_leaves_open(course: Checkpoint):
    chat = Conversation(course.model, course.tokenizer)
    assert "".join(chat.reply("Where is Mia?")) == "There is no story yet. Tell me one."
    assert "".join(chat.reply("Who are you?")) == "I am Mini, a small language model. I answer questions about stories."
    assert "".join(chat.reply("Tom went to the garden. Where is Tom?")) == "Tom is in the garden."
    assert "".join(chat.reply("Where is Julia?")) == "The story does not say."


def test_a_long_conversation_with_it_stays_right_on_the_whole(course: Checkpoint):
    right = asked = 0
    for number in range(12):
        chat = Conversation(course.model, course.tokenizer)
        messages = conversation("test", 7, number)
        if messages[0].role == "system":
            chat.system = messages.pop(0).content
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            asked += 1
            right += "".join(chat.reply(question.content)) == answer.content
    assert asked > 60 and right / asked > 0.7, (right, asked)


def test_sixteen_bits_are_read_as_thirty_two(course: Checkpoint, tmp_path: Path):
    assert all(p.dtype == torch.float32 for p in course.model.parameters())
    half = save_checkpoint(tmp_path / "half", course.model, course.config, course.tokenizer, dtype=torch.float16)
    again = load_checkpoint(half).model
    for p, q in zip(course.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)     # they were of 16 bits already
