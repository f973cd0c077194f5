"""Beam search finds the texts and scores that `transformers` finds, and in the limit the best of all."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geminiq.data.tokenizer import BPETokenizer
from geminiq.generation.beam_search import beam_search, beam_search_text
from geminiq.models.attention import ATTENTIONS
from geminiq.models.transformer import Transformer
from geminiq.utils.device import UserError, make_generator
from helpers import GPT2, SHAPE, Case, Pair, decisive_model, published, reference, texts, tiny_tokenizer


@pytest.fixture(params=[Case("GPT2", "tied", GPT2), Case("Llama", "grouped", SHAPE)], ids=str)
def pair(request: pytest.FixtureRequest, exact: None, tmp_path: Path) -> Pair:
    "One of each kind."
    return published(reference(request.param), tmp_path)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("stops", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(3, marks=pytest.mark.slow)])
def test_texts_and_scores_are_those_of_transformers(pair: Pair, early_stopping: bool | str, length_penalty: float, stops: int):
    tokens, attention_mask = texts()
    stop_ids = torch.randperm(40, generator=make_generator(stops))[:stops].add(1).tolist()
    how = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    theirs = pair.theirs.generate(tokens, attention_mask=attention_mask.long(), num_beams=4, num_return_sequences=3,
                                  do_sample=False, max_new_tokens=9, eos_token_id=stop_ids or None, pad_token_id=0,
                                  return_dict_in_generate=True, output_scores=True, **how)
    ours = beam_search(pair.ours, tokens, 9, num_beams=4, num_return_sequences=3, attention_mask=attention_mask,
                       stop_ids=stop_ids, **how)
    expected = zip(theirs.sequences[:, tokens.shape[1]:].tolist(), theirs.sequences_scores.tolist(), strict=True)
    for (wanted, score), found in zip(expected, (text for row in ours for text in row), strict=True):
        assert found.tokens == wanted[:len(found.tokens)]
        assert set(wanted[len(found.tokens):]) <= {0, *stop_ids[:1]}     # what they fill up with
        assert found.score == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_kind_of_cache_follows_the_beams(attention: str):
    model = decisive_model(vocab_size=11, attention_type=attention)
    tokens = torch.randint(11, (3, 7), generator=make_generator(1))
    attention_mask = torch.arange(7) >= torch.tensor([0, 2, 5])[:, None]
    how = {"max_tokens": 12, "num_beams": 3, "num_return_sequences": 3, "attention_mask": attention_mask, "stop_ids": [4]}
    cached, again = beam_search(model, tokens, **how), beam_search(model, tokens, use_cache=False, **how)
    assert [text.tokens for row in cached for text in row] == [text.tokens for row in again for text in row]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 8), st.sampled_from([-1.0, 0.0, 1.0]))
def test_what_is_found_is_scored_right(seed: int, num_beams: int, max_tokens: int, length_penalty: float):
    model, prompt = decisive_model(seed, vocab_size=11), torch.tensor([[1, 2]])
    found, = beam_search(model, prompt, max_tokens, num_beams=num_beams, num_return_sequences=num_beams,
                         length_penalty=length_penalty, stop_ids=[0, 5])
    assert found and sorted(found, key=lambda text: -text.score) == found
    assert len({tuple(text.tokens) for text in found}) == len(found)
    for text in found:
        whole = torch.cat([prompt, torch.tensor([text.tokens])], dim=1)
        logs = model(whole)[0, 1:-1].log_softmax(-1)[range(len(text.tokens)), text.tokens]
        assert text.score == pytest.approx(logs.sum().item() / len(text.tokens) ** length_penalty, rel=1e-9)
        assert not {0, 5} & set(text.tokens[:-1])


@pytest.fixture
def tokenizer() -> BPETokenizer:
    "Any will do."
    return tiny_tokenizer()


@pytest.fixture
def writer() -> Transformer:
    "A random model that writes tokens of this tokenizer."
    return decisive_model(3, vocab_size=290, max_seq_len=32)


@pytest.mark.parametrize("stop_ids", [None, [5, 260]])
def test_texts_are_those_of_the_tokens(writer: Transformer, tokenizer: BPETokenizer, stop_ids: list[int] | None):
    ids = torch.tensor([[*tokenizer.start_ids, *tokenizer.encode("the cat")]])
    how = {"num_beams": 5, "length_penalty": 0.5, "num_return_sequences": 3}
    stops = tokenizer.stop_ids if stop_ids is None else stop_ids
    found, = beam_search(writer, ids, 12, stop_ids=stops, **how)
    texts = beam_search_text(writer, tokenizer, "the cat", 12, stop_ids=stop_ids, **how)
    assert [text.score for text in texts] == [hypothesis.score for hypothesis in found]
    assert [text.text for text in texts] == [tokenizer.decode(hypothesis.tokens) for hypothesis in found]
    assert [text.score for text in texts] == sorted((text.score for text in texts), reverse=True)


def test_a_text_ends_where_the_tokenizer_ends_texts(tokenizer: BPETokenizer, writer: Transformer,
                                                    monkeypatch: pytest.MonkeyPatch):
    def ends_at_once(tokens: torch.Tensor, *more: object) -> torch.Tensor:
        return torch.zeros(*tokens.shape, 16, dtype=torch.float64)

    monkeypatch.setattr(writer, "hidden_states", ends_at_once)
    logits = torch.full((290,), -30.0, dtype=torch.float64)
    logits[tokenizer.eos_id] = 0.0
    monkeypatch.setattr(writer, "logits", lambda x: logits.expand(*x.shape[:-1], 290))
    best, = beam_search_text(writer, tokenizer, "the cat", max_tokens=12)
    assert best.text == "" and best.score == pytest.approx(0.0, abs=1e-9)


def test_a_prompt_must_be_there_and_fit(writer: Transformer, tokenizer: BPETokenizer):
    with pytest.raises(UserError, match="`lengthen`"):
        beam_search_text(writer, tokenizer, "the cat")   # 100 new tokens
    bare = BPETokenizer(tokenizer.model)
    bare.start_ids = []
    with pytest.raises(UserError, match="the prompt must not be empty"):
        beam_search_text(writer, bare, "", max_tokens=5)
