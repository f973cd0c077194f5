"""The chat to look into, behind its picture: what decided each token, and what becomes of what is asked."""

from collections.abc import Iterator
from functools import cache

import pytest
import torch

import geminiq.generation.chat as chat_module
import geminiq.utils.chat_explorable as chat_explorable
from geminiq.data.tokenizer import BPETokenizer, ChatTokenizer
from geminiq.generation.chat import Conversation
from geminiq.generation.generate import generate
from geminiq.models.attention import record_attention
from geminiq.models.transformer import Transformer
from geminiq.utils.chat_explorable import ChatExplorable, explore_chat, look_back
from geminiq.utils.config import ModelConfig
from helpers import GREEDY, LETTERS, agree, decisive_model

KINDS = {"plain": {}, "grouped": {"attention_type": "gqa", "n_kv_heads": 2}, "window": {"attention_type": "sliding_window"},
         "sparse": {"attention_type": "sparse"}, "flash": {"attention_type": "flash"}, "linear": {"attention_type": "linear"},
         "alibi": {"pos_encoding": "alibi"}, "learned": {"pos_encoding": "learned"}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_read", [1, 7])
def test_looking_back_sees_what_reading_at_once_sees(kind: str, n_read: int):
    model = decisive_model(**KINDS[kind])
    read = list(range(3, 3 + n_read))
    written = generate(model, torch.tensor([read]), 9, sampling=GREEDY)[0].tolist()
    with record_attention(model) as weights, torch.no_grad():
        logits = model(torch.tensor([[*read, *written[:-1]]]))[0]
    steps = list(look_back(model, read, written))
    assert [int(step.logits.argmax()) for step in steps] == written
    for i, step in enumerate(steps):
        S = n_read + i
        agree(step.logits, logits[S - 1], 1e-9)
        agree(step.attention, torch.cat(weights)[:, :, S - 1, :S], 1e-9)


@cache
def tokenizer() -> ChatTokenizer:
    "A tokenizer for conversations."
    return ChatTokenizer.train([LETTERS], 330)


def talk(kind: type[BPETokenizer] = ChatTokenizer, max_seq_len: int = 96, **changes: int) -> Conversation:
    "A conversation with a random model."
    config = ModelConfig(**{"vocab_size": 330, "max_seq_len": max_seq_len, "d_model": 16, "n_layers": 2, "n_heads": 2,
                            "tie_embeddings": False, **changes})
    return Conversation(Transformer(config), kind(tokenizer().model), max_tokens=12)


@pytest.fixture
def explorer() -> Iterator[ChatExplorable]:
    made = explore_chat(talk())
    yield made
    made.close()


def test_what_is_asked_is_answered_and_looked_into(explorer: ChatExplorable):
    seen: list[str] = []
    explorer.observe(lambda change: seen.append(change["new"]), "writing")
    explorer.asked = "Ada?"
    messages, turn = explorer.conversation.messages, explorer.turns[0]
    assert (turn["question"], turn["answer"]["text"]) == ("Ada?", messages[1]["content"])
    assert seen[-1] == "" and (len(seen) < 2 or seen[-2] == messages[1]["content"])
    assert turn["answer"]["tokens"] == [p.replace("▁", " ") for p in tokenizer().pieces(explorer.conversation.written)]
    assert (explorer.asked, explorer.note, explorer.turn, explorer.live) == ("", "", 0, True)
    assert explorer.table[1:] == [["you", "Ada?"], ["model", messages[1]["content"]]] and "Ada?" in explorer.html()


def test_a_page_stays_light(explorer: ChatExplorable):
    for _ in range(25):
        explorer.asked = "Ada writes to Emmy."
    details = ["tokens" in turn["answer"] for turn in explorer.turns]
    assert details == [False] * 12 + [True] * 8 and explorer.turn == 19 and len(explorer.conversation.messages) == 50
    assert "have no room any more" in explorer.note
    assert len(explorer.html()) < 150_000
    assert [turn["question"] for turn in explore_chat(explorer.conversation, "again").turns] == ["Ada writes to Emmy."] * 20


def test_many_heads_and_a_long_answer_stay_light():
    conversation = talk(max_seq_len=1300, n_layers=8, n_heads=8)
    conversation.messages = [{"role": "user", "content": "Ada " * 900}, {"role": "assistant", "content": "Emmy " * 200}]
    answer = explore_chat(conversation).turns[0]["answer"]
    assert len(answer["tokens"]) == 64 and len(answer["read"]) == 512 and len(answer["seen"]) < 140_000


def test_what_cannot_be_is_said_and_changes_nothing(explorer: ChatExplorable):
    explorer.asked = "Ada " * 5000
    assert "this message takes" in explorer.note and explorer.turns == explorer.conversation.messages == []
    explorer.temperature = -1.0
    assert explorer.note.startswith("temperature -1.0")
    assert explorer.temperature == explorer.conversation.sampling.temperature == 0
    explorer.system = "Be brief."
    assert explorer.note == "" and explorer.conversation.system == "Be brief."
    explorer.asked = "\ud800</script>"
    explorer.resets += 1
    assert explorer.turns == explorer.conversation.messages == [] and explorer.conversation.system == "Be brief."


def test_an_interrupted_reply_stays(explorer: ChatExplorable, monkeypatch: pytest.MonkeyPatch):
    def stream(*_: object, **__: object) -> Iterator[torch.Tensor]:
        yield torch.tensor([tokenizer().encode("Ada")[0]])
        raise KeyboardInterrupt

    monkeypatch.setattr(chat_module, "stream", stream)
    explorer.asked = "Who?"
    assert explorer.note == "cut short" and explorer.turns[0]["answer"]["text"] == "Ada" and explorer.asked == ""


def test_a_model_that_continues_texts_is_looked_into_too():
    conversation = talk(BPETokenizer)
    explorer = explore_chat(conversation)
    assert not explorer.answers
    explorer.asked = "Ada writes"
    explorer.system = "Be brief."
    assert "takes no system message" in explorer.note and explorer.system == ""
    assert explorer.turns[0]["answer"]["read"][-1] == " writes"
    again = explore_chat(conversation, "again").turns[0]["answer"]
    assert again == explorer.turns[0]["answer"]


def test_of_two_of_one_content_the_newer_answers():
    older, newer = explore_chat(talk(), "twin"), explore_chat(talk(), "twin")
    assert older.key == newer.key and older.comm is None and newer.html() == newer.html()
    assert explore_chat(talk(), "another").key != newer.key
    assert chat_explorable._OPEN[newer.key] is newer
