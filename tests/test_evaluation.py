"""How often a model is right: who is asked what, and whether the count and its interval are true."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import geminiq.generation.evaluation as evaluation
from geminiq.cli import app
from geminiq.data.microworld import SPLITS, Message, conversation
from geminiq.data.tokenizer import BPETokenizer, ChatTokenizer, Tokenizer
from geminiq.generation.chat import Conversation
from geminiq.generation.evaluation import (
    GROUPS,
    Prompt,
    Report,
    Result,
    Share,
    answer_all,
    ask,
    confidences,
    encode_prompt,
    evaluate,
    load_report,
    make_report,
    normalize,
    plot_report,
    questions,
    save_report,
)
from geminiq.generation.generate import generate, stream_text
from geminiq.models.transformer import Transformer
from geminiq.utils.checkpointing import save_checkpoint
from geminiq.utils.config import make_config
from geminiq.utils.device import UserError, make_generator
from helpers import GREEDY, decisive_model, tiny_model
from test_world import Pupil

REFUSAL = "The story does not say."


@cache
def learned(kind: type[BPETokenizer] = ChatTokenizer) -> Any:
    "A tokenizer of this world's words; do not change it, it is shared."
    return kind.train([message.content for i in range(80) for message in conversation("train", 0, i)], 450)


@cache
def asked(n: int = 400, kind: type[BPETokenizer] = ChatTokenizer) -> list[Prompt]:
    "The first questions of the test."
    return questions("test", n, 0, learned(kind), 2000)


# Intervals

@pytest.mark.parametrize(("right", "n", "low", "high"), [   # Newcombe 1998, Statistics in Medicine 17, table I
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1)])
def test_the_interval_is_the_published_one(right: int, n: int, low: float, high: float):
    assert Share(right, n).interval == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize("n", [1, 2, 10, 777])
def test_the_interval_of_none_all_and_any(n: int):
    for right in range(0, n + 1, max(1, n // 50)):
        low, high = Share(right, n).interval
        opposite = Share(n - right, n).interval
        assert 0 <= low <= right / n <= high <= 1 and low < high and opposite == pytest.approx((1 - high, 1 - low))
    assert Share(0, n).interval[0] == 0 and Share(n, n).interval[1] == 1
    assert Share(0, 0).interval == (0, 1) and Share(0, 0).value != Share(0, 0).value


# Prompts

def test_a_prompt_ends_with_the_question_and_never_holds_its_answer():
    for prompt in asked():
        assert prompt.messages[-1].role == "user" and prompt.messages[-1].content.endswith(prompt.question.text)
        assert all(message.question is not prompt.question for message in prompt.messages)
        end = [*learned().encode_message("user", prompt.messages[-1].content), learned().chat_ids["<|assistant|>"]]
        assert prompt.ids[-len(end):] == end
    assert [prompt.number for prompt in asked()] == list(range(400)) and "heard" not in {p.question.kind for p in asked()}


def test_sentences_are_counted_as_a_reader_counts_them():
    for prompt in asked(150):
        pupil = Pupil()
        for i, message in enumerate(prompt.messages):
            if message.role != "assistant":
                following = prompt.messages[i + 1].question if i + 1 < len(prompt.messages) else prompt.question
                pupil.hear(message, following)
        assert prompt.n_sentences == len(pupil.reader.told) > max(prompt.question.by, default=-1)


def test_what_does_not_fit_is_passed_over():
    room = sorted(len(prompt.ids) for prompt in asked(300))[150]
    fitting = questions("test", 120, 0, learned(), room)
    assert [p.number for p in fitting] == [p.number for p in asked(400) if len(p.ids) <= room][:120]
    with pytest.raises(UserError, match=r"hardly a question fits: .* room for 5"):
        questions("test", 10, 0, learned(), 5)
    with pytest.raises(UserError, match="split 'exam' is unknown"):
        questions("exam", 10, 0, learned(), 500)


def test_splits_and_seeds_ask_about_other_stories():
    stories = {(split, seed): {prompt.messages[0].content for prompt in questions(split, 200, seed, learned(), 900)}
               for split in SPLITS for seed in (0, 1)}
    found = list(stories.values())
    again = {text for i, first in enumerate(found) for other in found[i + 1:] for text in first & other}
    assert not {text for text in again if text.count(".") > 1}, again   # greetings and sums come again


class NoSystem:
    "A template that knows no system message, as some published ones."
    def __init__(self) -> None:
        self.templates = {"default": "…"}

    def apply_chat_template(self, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        if messages[0]["role"] == "system":
            raise UserError("System role not supported")
        return list(messages)


def test_a_template_without_system_messages_gets_the_story_with_the_first_question():
    told = Message("system", "Tom took the lamp."), Message("user", "Who has the lamp?")
    assert encode_prompt(NoSystem(), told) == [{"role": "user", "content": "Tom took the lamp.\n\nWho has the lamp?"}]
    assert encode_prompt(NoSystem(), told[1:]) == [{"role": "user", "content": "Who has the lamp?"}]


# Answers

class Parrot(nn.Module):
    "Says of each prompt what a function says, token by token, and sees nothing but tokens."

    def __init__(self, tokenizer: Tokenizer, prompts: Sequence[Prompt], says: Callable[[Prompt], str]):
        super().__init__()
        self.config = SimpleNamespace(max_seq_len=2060)
        self.embedding = nn.Embedding(tokenizer.vocab_size, 1)
        self.blocks = nn.ModuleList([nn.Module()])
        self.blocks[0].attention = SimpleNamespace(new_cache=lambda: SimpleNamespace(length=0))
        self.says = {tuple(p.ids): [*tokenizer.encode(says(p)), tokenizer.stop_ids[0]] for p in prompts}

    def hidden_states(self, tokens: Tensor, mask: Tensor | None, cache: Any) -> Tensor:   # (B, 1, 1)
        if cache[0].length == 0:
            masks = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
            self.rows = [self.says[tuple(row[kept].tolist())] for row, kept in zip(tokens, masks, strict=True)]
            self.step = 0
        cache[0].length += tokens.shape[1]
        self.step += 1
        return torch.tensor([[[row[min(self.step, len(row)) - 1]]] for row in self.rows])

    def logits(self, x: Tensor) -> Tensor:   # (B, V)
        return nn.functional.one_hot(x[:, 0], len(self.embedding.weight)).float()


@pytest.mark.parametrize("kind", [ChatTokenizer, BPETokenizer])
def test_who_always_knows_is_always_right(kind: type[BPETokenizer]):
    parrot: Any = Parrot(learned(kind), asked(400, kind), lambda prompt: prompt.question.answer)
    report = evaluate(parrot, learned(kind), n=130, batch_size=32, progress=False)
    assert report.tables["right"]["all questions"] == (130, 130)
    assert report.tables.pop("refused though the story says it")["answerable questions"].right == 0
    assert all(share.right == share.n for table in report.tables.values() for share in table.values())


def test_who_always_refuses_is_right_where_the_story_does_not_say():
    parrot: Any = Parrot(learned(), asked(), lambda prompt: " the story does not say\n")
    report = evaluate(parrot, learned(), n=400, progress=False)
    silent = sum(prompt.question.answer == REFUSAL for prompt in asked())
    story = [prompt for prompt in asked() if prompt.question.kind not in ("talk", "sum", "no_story")]
    assert 20 < silent < 120
    assert report.tables["right"] == {"all questions": (silent, 400), "questions about stories": (silent, len(story))}
    assert report.tables["by sentences that decide"]["the story does not say"] == (silent, silent)
    assert report.tables["refused though the story says it"]["answerable questions"] == (len(story) - silent,) * 2
    for name in GROUPS:
        assert sum(share.n for share in report.tables[name].values()) == len(story)
        assert sum(share.right for share in report.tables[name].values()) == silent


@pytest.mark.parametrize("how", [{}, {"pos_encoding": "alibi"}], ids=str)
@pytest.mark.parametrize("kind", [ChatTokenizer, BPETokenizer])
def test_in_a_batch_answers_are_what_they_are_alone(kind: type[BPETokenizer], how: dict):
    model = decisive_model(1, vocab_size=450, max_seq_len=400, **how)
    tokenizer, alone = learned(kind), []
    prompts = [prompt for prompt in asked(400, kind) if len(prompt.ids) <= 340][:9]
    for prompt in prompts:
        if kind is ChatTokenizer:
            row = generate(model, torch.tensor([prompt.ids]), 60, sampling=GREEDY, stop_ids=tokenizer.stop_ids)[0]
            alone.append(tokenizer.decode(row))
        else:
            text = "".join(f"{message.content}\n" for message in prompt.messages)
            alone.append("".join(stream_text(model, tokenizer, text, 60, GREEDY, stop_strings=["\n"])))
    assert answer_all(model, tokenizer, prompts, batch_size=4, progress=False) == alone
    assert len(set(alone)) > 1


def test_answers_are_those_of_a_conversation():
    model = decisive_model(vocab_size=450, max_seq_len=400)
    prompts = [prompt for prompt in asked() if len(prompt.ids) <= 340][9:17]
    replies = []
    for prompt in prompts:
        *before, last = [{"role": message.role, "content": message.content} for message in prompt.messages]
        told = before.pop(0)["content"] if before and before[0]["role"] == "system" else None
        talk = Conversation(model, learned(), system=told)
        talk.messages = before
        replies.append("".join(talk.reply(last["content"])))
        assert talk.read == prompt.ids and talk.dropped == 0
    assert answer_all(model, learned(), prompts, progress=False) == replies


def test_every_prompt_is_asked_once_and_the_first_batches_are_no_shorter_than_the_rest():
    parrot: Any = Parrot(learned(), asked(), lambda prompt: "Yes.")
    results = list(ask(parrot, learned(), asked(), 10, progress=False))
    assert sorted(result.prompt.number for result in results) == list(range(400))
    lengths = [len(result.prompt.ids) for result in results]
    assert abs(sum(lengths[:200]) / sum(lengths) - 0.5) < 0.1
    assert max(max(lengths[i:i + 10]) / min(lengths[i:i + 10]) for i in range(50, 350, 10)) < 3
    with pytest.raises(UserError, match="batch_size 0"):
        next(ask(parrot, learned(), asked(), 0))


@pytest.mark.parametrize("answer", ["The hat is in the garden.", " the hat is in THE garden ", "The hat is in the garden",
                                    "The hat is in the garden.\n"])
def test_capitals_blanks_and_the_final_stop_do_not_matter(answer: str):
    assert normalize(answer) == "the hat is in the garden"


@pytest.mark.parametrize("answer", ["The hat is in the garden!", "The hat is in the garden..", "The hat is  in the garden.",
                                    "hat is in the garden"])
def test_everything_else_matters(answer: str):
    assert normalize(answer) != "the hat is in the garden"


# How sure

def one_by_one(model: Transformer, result: Result) -> float:
    "The probability of an answer, token after token, each text read anew."
    product, read = 1.0, list(result.prompt.ids)
    for token in result.written:
        product *= model(torch.tensor([read]))[0, -1].softmax(-1)[token].item()
        read.append(token)
    return product


def written(prompts: Sequence[Prompt], lengths: Sequence[int], ends: Sequence[int]) -> list[Result]:
    "Answers of random tokens, of which some end and some do not."
    rng = make_generator(3)
    answers = [tuple(torch.randint(9, 450, (n,), generator=rng).tolist()) for n in lengths]
    return [Result(prompt, "?", answer + (end,) * (end >= 0)) for prompt, answer, end in zip(prompts, answers, ends, strict=True)]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("how", [{}, {"pos_encoding": "alibi"}, {"pos_encoding": "learned", "dropout": 0.4},
                                 {"attention_type": "sliding_window"}, {"final_logit_softcapping": 5.0}], ids=str)
def test_how_sure_is_the_product_of_the_tokens_probabilities(how: dict, batch_size: int):
    model = tiny_model(2, vocab_size=450, max_seq_len=400, **how).requires_grad_(False)
    prompts = [prompt for prompt in asked() if len(prompt.ids) <= 340][:9]
    stop = learned().stop_ids[0]
    results = written(prompts, [4, 1, 0, 60, 7, 7, 2, 0, 12], [stop, stop, stop, -1, -1, stop, stop, stop, stop])
    alone = [one_by_one(model.eval(), result) for result in results]
    sure = confidences(model.train(), learned(), results, batch_size, progress=False)
    assert sure == pytest.approx(alone, rel=1e-10) and model.training and len(set(sure)) == 9


@pytest.mark.parametrize("kind", [ChatTokenizer, BPETokenizer])
def test_how_sure_counts_the_tokens_that_were_written_and_the_end_if_there_is_one(kind: type[BPETokenizer]):
    model, tokenizer = decisive_model(1, vocab_size=450, max_seq_len=400), learned(kind)
    prompts = [prompt for prompt in asked(400, kind) if len(prompt.ids) <= 340][:9]
    endless = list(ask(model, tokenizer, prompts, progress=False))
    assert any(len(result.written) == 60 for result in endless)
    prompt, answer = endless[0].prompt, endless[0].written
    stops = evaluation._stops(tokenizer)
    for result in endless:
        ended = [token in stops for token in result.written]
        assert not any(ended[:-1]) and (ended[-1] or len(ended) == 60)
        assert evaluation._text(tokenizer, list(result.written)) == result.answer
    short = Result(prompt, "", (*answer[:3], sorted(stops)[0]))
    results = [*endless[1:], short, endless[0]]
    assert confidences(model, tokenizer, results, 5, progress=False) == pytest.approx(
        [one_by_one(model, result) for result in results], rel=1e-10)
    assert confidences(model, tokenizer, []) == []


def test_what_was_written_differs_from_the_text_written_again():
    model, tokenizer = decisive_model(1, vocab_size=450, max_seq_len=400), learned()
    result = next(ask(model, tokenizer, [prompt for prompt in asked() if len(prompt.ids) <= 340][:1], progress=False))
    again = Result(result.prompt, result.answer, tuple(tokenizer.encode(result.answer)))
    assert again.written != result.written
    first, other = confidences(model, tokenizer, [result, again], progress=False)
    assert first > 1e3 * other


def test_near_certainty_the_doubt_is_exact():
    sure = evaluation._probability(torch.tensor([[18., 0., 1.], [0., 20., 0.]]), [0, 1])     # in float32 it would be 1
    e = 2.718281828459045
    assert 1 - sure == pytest.approx((1 + e) / e**18 + 2 / e**20, rel=1e-6)


def test_how_sure_refuses_what_it_cannot_know():
    model, prompt = tiny_model(vocab_size=450, max_seq_len=400), asked()[0]
    with pytest.raises(ValueError, match=r"answer 'Yes\.' was written is not known: take the results that `ask` gives"):
        confidences(model, learned(), [Result(prompt, "Yes.")])
    with pytest.raises(UserError, match="batch_size 0"):
        confidences(model, learned(), written([prompt], [3], [-1]), 0)


# Reports

def report_of(says: Callable[[Prompt], str]) -> Report:
    "The report on somebody who was asked four hundred questions."
    return make_report([Result(prompt, says(prompt)) for prompt in asked()], split="test", seed=0, asked=400)


def test_a_report_is_read_as_it_was_written(tmp_path: Path):
    report = report_of(lambda prompt: prompt.question.answer if prompt.number % 3 else REFUSAL)
    save_report(report, tmp_path / "new" / "report.json")
    assert load_report(tmp_path / "new" / "report.json") == report
    share = json.loads((tmp_path / "new" / "report.json").read_text())["tables"]["right"]["all questions"]
    assert share["share"] == round(share["right"] / 400, 4) and share["low"] < share["share"] < share["high"]


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", "null", '{"about": {}}', '{"about": 3, "tables": {}}',
                                     '{"about": {}, "tables": []}',
                                     '{"about": {}, "tables": {"right": {"a": 3}}}', '{"about": {}, "tables": {"right": 3}}',
                                     '{"about": {}, "tables": {"right": {"a": {"right": 3, "n": 2}}}}',
                                     '{"about": {}, "tables": {"right": {"a": {"right": -1, "n": 2}}}}',
                                     '{"about": {}, "tables": {"right": {"a": {"right": true, "n": 2}}}}',
                                     '{"about": {}, "tables": {"right": {"a": {"right": 1.0, "n": 2}}}}',
                                     '{"about": {}, "tables": {"right": {"a": {"n": 2}}}}', "[" * 10**5])
def test_a_damaged_report_is_refused_in_one_line(damaged: str, tmp_path: Path):
    (tmp_path / "report.json").write_text(damaged)
    with pytest.raises(UserError, match=r"report\.json is") as error:
        load_report(tmp_path / "report.json")
    assert "\n" not in str(error.value)


def test_kinds_stand_the_best_first_and_the_picture_says_the_same():
    report = report_of(lambda prompt: prompt.question.answer if len(prompt.question.by) == 1 else "?")
    values = [share.value for share in report.tables["by kind"].values()]
    assert values == sorted(values, reverse=True) and len(values) >= 14
    assert list(report.tables["by sentences that decide"]) == ["1 sentence", "2 sentences", "3 or more", "the story does not say"]
    assert list(report.tables["by sentences told so far"]) == ["1 to 3", "4 to 6", "7 to 9", "10 to 12"]
    whole = report.tables["right"]["all questions"]
    picture = plot_report(report)
    assert f"all questions {whole.value:.1%}" in picture.alt and picture.png() == plot_report(report).png()
    assert f"{whole.value:.1%}" in str(report) and all(len(line) < 80 for line in str(report).splitlines())


def test_a_report_on_nothing_says_so():
    report = make_report([])
    assert "–" in str(report) and report.tables["right"]["all questions"] == (0, 0)
    assert plot_report(report).png()


# The command

@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    "Models that know nothing: one for conversations, one that continues texts, one that reads only a few words."
    found = {}
    for name, kind, longest in (("chat", ChatTokenizer, 600), ("text", BPETokenizer, 600), ("short", ChatTokenizer, 24)):
        config = make_config({"model": {"vocab_size": 450, "d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": longest},
                              "data": {"tokenizer_type": "chat" if kind is ChatTokenizer else "bpe"}})
        model = Transformer(config.model, make_generator(0))
        found[name] = save_checkpoint(tmp_path_factory.mktemp("checkpoints") / name, model, config, learned(kind))
    return found


def run(*words: object) -> Any:
    "The command in this process."
    return CliRunner().invoke(app, ["evaluate", *map(str, words)], prog_name="geminiq")


@pytest.mark.parametrize("name", ["chat", "text"])
def test_the_command_prints_a_table_and_writes_the_files(name: str, checkpoints: dict[str, Path], tmp_path: Path):
    result = run("--checkpoint", checkpoints[name], "--questions", 30, "--seed", 3, "--batch-size", 16, "--device", "cpu",
                 "--json", tmp_path / "report.json", "--plot", tmp_path / "report.png")
    assert result.exit_code == 0, result.output
    report = load_report(tmp_path / "report.json")
    assert result.stdout.startswith(f"{report}\n") and report.about["asked"] == 30 and report.about["seed"] == 3
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG") and f"written to {tmp_path}" in result.stdout


@pytest.mark.parametrize(("words", "message"), [
    (("--split", "exam"), "split 'exam' is unknown"), (("--questions", 0), "questions"), (("--json", "."), "is a folder"),
    (("--plot", "report.pdf"), "ends in .png"), (("--checkpoint", "/nowhere"), "no checkpoint"),
    (("--device", "abacus"), "abacus")])
def test_a_mistake_is_one_line(words: tuple, message: str, checkpoints: dict[str, Path]):
    given = words if "--checkpoint" in words else ("--checkpoint", checkpoints["chat"], *words)
    result = run(*given)
    assert result.exit_code == 2 and result.stdout == "" and message in result.stderr, result.output
    assert result.stderr.count("\n") == 1


def test_a_model_that_reads_too_little_is_told(checkpoints: dict[str, Path]):
    result = run("--checkpoint", checkpoints["short"])
    assert result.exit_code == 2 and "hardly a question fits" in result.stderr and result.stderr.count("\n") == 1


def test_ctrl_c_leaves_the_table_of_what_was_asked_and_no_file(checkpoints: dict[str, Path], tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch):
    whole_batch = evaluation._ask_batch
    calls = iter(range(9))

    def interrupted(*how: Any) -> list[Result]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return whole_batch(*how)

    monkeypatch.setattr(evaluation, "_ask_batch", interrupted)
    result = run("--checkpoint", checkpoints["chat"], "--questions", 50, "--batch_size", 8, "--json", tmp_path / "report.json")
    assert result.exit_code == 130 and "asked 16" in result.stdout and "16 questions that were asked" in result.stderr
    assert not (tmp_path / "report.json").exists()
    monkeypatch.setattr(evaluation, "_ask_batch", lambda *how: (_ for _ in ()).throw(KeyboardInterrupt))
    result = run("--checkpoint", checkpoints["chat"], "--questions", 50)
    assert result.exit_code == 130 and result.stdout == ""


def test_the_command_says_how_it_is_called():
    shown = run("--help")
    options = ("checkpoint", "split", "questions", "seed", "batch_size", "json", "plot", "device")
    assert shown.exit_code == 0 and all(f"--{option}" in shown.stdout for option in options)
