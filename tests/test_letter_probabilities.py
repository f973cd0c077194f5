"""What a model of tokens expects of each letter: against plain loops over its vocabulary, for texts that are cut anywhere."""

from collections import Counter
from functools import cache
from math import log2

import pytest
import torch

from geminiq.data.tokenizer import BPETokenizer, ByteBPETokenizer, ChatTokenizer
from geminiq.models.transformer import Transformer
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import UserError, make_generator
from geminiq.utils.live_guessing import _played, bits_of_guesses, explore_guessing, letter_probabilities

TEXT = "Mia took the lamp. She went to the garden, and then there was another. Ben stayed in the kitchen."
KINDS = {"chat": ChatTokenizer, "plain": BPETokenizer, "bytes": ByteBPETokenizer}
V = 320
MORE = " a cat and a dog and the bird that sang"
STORIES = ["the lamp", "then there was a garden.", "Mia", "another  two", "t", " the", "Mathe"]


@cache
def tokenizer(kind: str):
    return KINDS[kind].train([TEXT + MORE] * 9, V)


@cache
def random_model() -> Transformer:
    "A model that finds some tokens much likelier than others."
    model = Transformer(ModelConfig(vocab_size=V, max_seq_len=60, d_model=32, n_layers=2, n_heads=4), make_generator(1))
    for parameter in model.requires_grad_(False).parameters():
        parameter.mul_(4 if parameter.ndim > 1 else 1)
    return model.double()


def spelled(kind: str) -> list[str]:
    "The letters of each token; a part of a letter has none."
    texts = [tokenizer(kind).decode([token]) for token in range(V)]
    return ["" if "\ufffd" in text else text for text in texts]


@cache
def forecast(read: tuple[int, ...]) -> list[float]:
    return random_model()(torch.tensor([read]))[0, -1].softmax(-1).tolist()


def begin(kind: str) -> tuple[int, ...]:
    found = tokenizer(kind)
    return (*found.start_ids, found.chat_ids["<|user|>"]) if kind == "chat" else tuple(found.start_ids)


def by_loops(kind: str, text: str) -> list[dict[str, float]]:
    "The definition: each letter, and each token that begins with what is known."
    tokens, words = tokenizer(kind).encode(text), spelled(kind)
    ends = [len("".join(words[token] for token in tokens[:i])) for i in range(len(tokens) + 1)]   # letters before token i
    found = []
    for place, right in enumerate(text):
        i = max(0, sum(end < place for end in ends) - 1)             # the token in which the letter before stands
        read, known = (*begin(kind), *tokens[:i]), text[ends[i]:place]
        p = forecast(read)
        total = sum(p[v] for v in range(V) if words[v].startswith(known)) if known else 1
        over = place == ends[i + 1]                                  # the text's own token ends here
        end = tokens[i] if over else next((v for v in reversed(range(V)) if known and words[v] == known), None)
        longer, ended = Counter[str](), Counter[str]()
        for v in range(V):
            if len(words[v]) > len(known) and words[v].startswith(known):
                longer[words[v][len(known)]] += p[v]
            if end is not None and words[v]:
                ended[words[v][0]] += p[end] * forecast((*read, end))[v]
        both = longer + ended
        both[right] = ended[right] if over else longer[right]
        found.append({letter: share / total for letter, share in both.items()})
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", STORIES)
def test_it_is_what_plain_loops_find(kind: str, text: str):
    found = letter_probabilities(random_model(), tokenizer(kind), text)
    assert len(found) == len(text)
    for p, expected in zip(found, by_loops(kind, text), strict=True):
        assert 0 < sum(p.values()) < 1 + 1e-9
        assert p == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [TEXT[:40], *STORIES])
def test_the_bits_of_the_letters_are_those_of_the_tokens(kind: str, text: str):
    *tokens, last = tokenizer(kind).encode(text)
    words, read, bits = spelled(kind), begin(kind), 0.0
    for token in tokens:
        bits -= log2(forecast(read)[token])
        read = (*read, token)
    bits -= log2(sum(forecast(read)[v] for v in range(V) if words[v].startswith(words[last])))
    found = letter_probabilities(random_model(), tokenizer(kind), text)
    assert sum(-log2(p[letter]) for letter, p in zip(text, found, strict=True)) == pytest.approx(bits, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_before_changes_nothing_wherever_it_ends(kind: str):
    text = "Ben took the lamp."
    whole = letter_probabilities(random_model(), tokenizer(kind), text)
    for cut in range(len(text) + 1):
        rest = letter_probabilities(random_model(), tokenizer(kind), text[cut:], text[:cut])
        assert len(rest) == len(text) - cut
        for p, expected in zip(rest, whole[cut:], strict=True):
            assert p == pytest.approx(expected, abs=1e-12)


def test_a_model_does_not_know_that_a_word_goes_on():
    "Where the letters so far are a token, what comes after it has its chance, though the text's own token is longer."
    word, words = spelled("plain")[tokenizer("plain").encode("another")[0]], spelled("plain")
    length = next(n for n in range(len(word) - 1, 0, -1) if word[:n] in words)
    assert length >= 1 and word.startswith("an")
    after = letter_probabilities(random_model(), tokenizer("plain"), "another")[length]
    assert after[word[length]] > 0 and after["."] > 0 and after[" "] > 0


def test_training_and_evaluation_are_left_as_they_were():
    config = ModelConfig(vocab_size=V, max_seq_len=60, d_model=32, n_layers=1, n_heads=4, dropout=0.5)
    model = Transformer(config, make_generator(1))
    once, again = (letter_probabilities(model, tokenizer("plain"), "the lamp") for _ in range(2))
    assert once == again and model.training


@pytest.mark.parametrize(("text", "said"), [
    ("日本", "'日' is no token"), ("a▁b", "'▁' is no token"), ("the lamp " * 40, "at most 60")])
def test_what_cannot_be_guessed_is_refused(text: str, said: str):
    with pytest.raises(UserError, match=said):
        letter_probabilities(random_model(), tokenizer("plain"), text)
    assert letter_probabilities(random_model(), tokenizer("plain"), "", "the lamp") == []


def test_capitals_count_with_small_letters():
    played = _played([{"a": 0.25, "A": 0.25, "b": 0.4, "ß": 0.1}] * 3, "", "AbA", "abß")
    assert played["ranks"] == [1, 2, 1] and played["orders"] == ["abß"] * 3
    assert played["bits"] == [1, round(-log2(0.4), 3), 1]
    game = explore_guessing(random_model(), tokenizer("plain"), [("Mia took the ", "LAMP."), ("The", "\nlamp, 's'")])
    assert game.alphabet == "abcdefghijklmnopqrstuvwxyz\n ',." and [len(text["ranks"]) for text in game.texts] == [5, 10]


def test_scores_count_what_was_guessed():
    game = explore_guessing(random_model(), tokenizer("plain"), [("Mia took the ", "lamp."), ("Ben ", "stayed")])
    assert game.scores() == {}
    game.guesses = [[0, 0], []]
    first = game.texts[0]
    assert game.scores() == {"model, by guesses": bits_of_guesses(first["ranks"][:2]), "model": sum(first["bits"][:2]) / 2}
    game.guesses = [[0, 3], [1]]
    assert game.scores() == {"reader": 1.0, "model, by guesses": bits_of_guesses([first["ranks"][1], game.texts[1]["ranks"][0]]),
                             "model": (first["bits"][1] + game.texts[1]["bits"][0]) / 2}
