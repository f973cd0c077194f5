"""Beam search finds the texts and scores that `transformers` finds, and in the limit the best of all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reference import PAIRS, Pair, exact, prompts  # noqa: F401  (a fixture)

from geminiq.generation.beam_search import beam_search
from geminiq.models.attention import ATTENTIONS
from geminiq.models.transformer import Transformer
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import make_generator


@pytest.fixture(params=["GPT-2", "LLaMA"])
def pair(request: pytest.FixtureRequest, exact: None) -> Pair:   # noqa: F811
    "One of each kind."
    return PAIRS[request.param]()


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("stops", [0, 1, 3])
def test_texts_and_scores_are_those_of_transformers(pair: Pair, early_stopping: bool | str, length_penalty: float, stops: int):
    tokens, attention_mask = prompts()
    stop_ids = torch.randperm(40, generator=make_generator(stops))[:stops].add(1).tolist()
    how = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    theirs = pair.reference.generate(tokens, attention_mask=attention_mask.long(), num_beams=4, num_return_sequences=3,
                                     do_sample=False, max_new_tokens=9, eos_token_id=stop_ids or None, pad_token_id=0,
                                     return_dict_in_generate=True, output_scores=True, **how)
    ours = beam_search(pair.model, tokens, 9, num_beams=4, num_return_sequences=3, attention_mask=attention_mask,
                       stop_ids=stop_ids, **how)
    expected = zip(theirs.sequences[:, tokens.shape[1]:].tolist(), theirs.sequences_scores.tolist(), strict=True)
    for (wanted, score), found in zip(expected, (text for row in ours for text in row), strict=True):
        assert found.tokens == wanted[:len(found.tokens)]
        assert set(wanted[len(found.tokens):]) <= {0, *stop_ids[:1]}     # what they fill up with
        assert found.score == pytest.approx(score, rel=1e-5)


def small(seed: int = 0, **choices) -> Transformer:
    "A random model with logits far enough apart."
    config = ModelConfig(vocab_size=11, max_seq_len=24, d_model=16, n_layers=2, n_heads=4, n_kv_heads=4, sliding_window=4,
                         block_size=4, tie_embeddings=False, **choices)
    model = Transformer(config, make_generator(seed)).double().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(8)
    return model


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_kind_of_cache_follows_the_beams(attention: str):
    model = small(attention_type=attention)
    tokens = torch.randint(11, (3, 7), generator=make_generator(1))
    attention_mask = torch.arange(7) >= torch.tensor([0, 2, 5])[:, None]
    how = {"max_tokens": 12, "num_beams": 3, "num_return_sequences": 3, "attention_mask": attention_mask, "stop_ids": [4]}
    cached, again = beam_search(model, tokens, **how), beam_search(model, tokens, use_cache=False, **how)
    assert [text.tokens for row in cached for text in row] == [text.tokens for row in again for text in row]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 8), st.sampled_from([-1.0, 0.0, 1.0]))
def test_what_is_found_is_scored_right(seed: int, num_beams: int, max_tokens: int, length_penalty: float):
    model, prompt = small(seed), torch.tensor([[1, 2]])
    found, = beam_search(model, prompt, max_tokens, num_beams=num_beams, num_return_sequences=num_beams,
                         length_penalty=length_penalty, stop_ids=[0, 5])
    assert found and sorted(found, key=lambda text: -text.score) == found
    assert len({tuple(text.tokens) for text in found}) == len(found)
    for text in found:
        whole = torch.cat([prompt, torch.tensor([text.tokens])], dim=1)
        logs = model(whole)[0, 1:-1].log_softmax(-1)[range(len(text.tokens)), text.tokens]
        assert text.score == pytest.approx(logs.sum().item() / len(text.tokens) ** length_penalty, rel=1e-9)
        assert not {0, 5} & set(text.tokens[:-1])
