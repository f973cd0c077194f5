"""The tokenizer, on texts nobody would think of."""

import io
import random
from array import array
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from geminiq.data.tokenizer import BPETokenizer, id_type, train_tokenizer, train_tokenizer_apart
from geminiq.utils.device import UserError

TEXT = "The quick brown fox jumps over the lazy dog.\n\n    def f(x):\n        return x  # naïve\n"
TOKENIZER = train_tokenizer([TEXT] * 20, vocab_size=360)
strange = st.text(st.characters(exclude_categories=["Cs"])) | st.text(" \t\n▁<|end>ab\x00\ufffd🤖")


@settings(max_examples=1000, deadline=None)
@given(strange)
def test_decoding_gives_back_the_text(text: str):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert all(0 <= i < TOKENIZER.vocab_size for i in ids)
    assert not {TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id, *TOKENIZER.chat_ids.values()} & set(ids)


@settings(max_examples=1000, deadline=None)
@given(strange | st.text(" \n.ab"))
def test_encoding_word_by_word_gives_the_tokens_of_encoding_at_once(text: str):
    text = text.replace("▁", "")
    assert TOKENIZER.encode(text) == TOKENIZER._pieces.encode(text)


def foreign(**changes: object) -> bytes:
    "A SentencePiece model that differs from ours in some options of its training."
    model = io.BytesIO()
    ours = {"model_type": "bpe", "vocab_size": 340, "pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "byte_fallback": True,
            "normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True, "minloglevel": 2, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([TEXT] * 20), model_writer=model, **{**ours, **changes})
    return model.getvalue()


LOSSLESS: list[dict] = [
    {}, {"model_type": "unigram"}, {"model_type": "char"},
    {"treat_whitespace_as_suffix": True}, {"split_by_whitespace": False}, {"split_digits": True},
    {"split_by_unicode_script": False}, {"allow_whitespace_only_pieces": False},
    {"user_defined_symbols": ["fox", "<x y>"]}, {"control_symbols": ["<a>"]}, {"unk_surface": "?!"}, {"bos_id": -1},
    {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2}, {"eos_piece": "<end>", "unk_piece": "<?>"},
    {"model_type": "unigram", "split_by_whitespace": False, "user_defined_symbols": ["▁the", "dog."]},
]
LOSSY = [
    ({"add_dummy_prefix": True}, "adds a space to every text"),
    ({"add_dummy_prefix": True, "treat_whitespace_as_suffix": True}, "adds a space to every text"),
    ({"remove_extra_whitespaces": True}, "removes or changes spaces"),
    *[({"normalization_rule_name": rule}, "changes characters") for rule in ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")],
    ({"byte_fallback": False}, "no token for each byte"),
    ({"byte_fallback": False, "model_type": "unigram"}, "no token for each byte"),
    ({"model_type": "word", "use_all_vocab": True}, "no token for a space"),
    ({"eos_id": -1}, "no token that ends a text"),
]


@pytest.mark.parametrize("options", LOSSLESS, ids=str)
def test_a_model_made_elsewhere_loses_nothing_and_is_decoded_as_by_its_maker(options: dict, tmp_path: Path):
    (tmp_path / "t.model").write_bytes(foreign(**options))
    tokenizer, theirs = BPETokenizer.load(tmp_path / "t.model"), sentencepiece.SentencePieceProcessor(str(tmp_path / "t.model"))
    draw = random.Random(0)
    letters = " \t\n▁theqfox. <x y>\x00é🤖\u00a0ﬁ"
    texts = [TEXT, "  ", *("".join(draw.choices(letters, k=draw.randrange(40))) for _ in range(200))]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        if "▁" not in text:
            assert tokenizer.encode(text) == theirs.encode(text)
    for _ in range(300):
        ids = draw.choices(range(tokenizer.vocab_size), k=9)
        assert tokenizer.decode(ids) == theirs.decode(ids)
    assert tokenizer.decode([theirs.unk_id()]) == options.get("unk_surface", " ⁇ ")
    assert 0 <= tokenizer.pad_id < tokenizer.vocab_size and tokenizer.start_ids == [theirs.eos_id()]


@pytest.mark.parametrize(("options", "reason"), LOSSY, ids=str)
def test_a_model_that_would_change_texts_is_refused_with_the_reason(options: dict, reason: str, tmp_path: Path):
    (tmp_path / "t.model").write_bytes(foreign(**options))
    with pytest.raises(UserError, match=reason):
        BPETokenizer.load(tmp_path / "t.model")


@pytest.mark.parametrize("text", ["中文没有空格的文本" * 300, "中文没有空格的文本" * 3000 + " 空", "one\ntwo\nthree\n" * 9])
def test_a_text_with_hardly_a_space_gives_a_tokenizer_that_keeps_spaces(text: str):
    tokenizer = train_tokenizer([text], 280)
    assert tokenizer.decode(tokenizer.encode("a b  c ▁ d")) == "a b  c ▁ d"
    assert not tokenizer._why_not_lossless()


def test_learning_in_a_process_of_its_own_gives_the_same():
    assert train_tokenizer_apart([TEXT] * 20, 360).model == TOKENIZER.model
    with pytest.raises(UserError, match="vocab_size 100 has no room"):
        train_tokenizer_apart([TEXT] * 20, 100)


@settings(max_examples=500, deadline=None)
@given(strange)
def test_streaming_gives_back_the_text_in_whole_characters(text: str):
    pieces = list(TOKENIZER.stream(TOKENIZER.encode(text)))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)))
def test_any_tokens_can_be_shown(ids: list[int]):
    "A model may write any tokens, half characters too."
    "".join(TOKENIZER.stream(ids)).encode()
    assert len(TOKENIZER.pieces(ids)) == len(ids)


@pytest.mark.parametrize("content", [b"not a model", b"", TOKENIZER.model[:-3], TOKENIZER.model[:1000], b"\0" * 500])
def test_a_file_that_is_no_tokenizer_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "t.model").write_bytes(content)
    with pytest.raises(UserError, match="not a SentencePiece model, or is damaged"):
        BPETokenizer.load(tmp_path / "t.model")
    for name in ("t.model/x", "nowhere", "."):
        with pytest.raises(UserError, match="cannot be read"):
            BPETokenizer.load(tmp_path / name)


def test_a_tokenizer_is_seen_whole_while_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    TOKENIZER.save(tmp_path / "t.model")
    other = BPETokenizer(foreign())
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        other.save(tmp_path / "t.model")
    assert [file.name for file in tmp_path.iterdir()] == ["t.model"]
    assert BPETokenizer.load(tmp_path / "t.model").model == TOKENIZER.model


@pytest.mark.parametrize(("vocab_size", "n_bytes"), [(300, 2), (2**16, 2), (2**16 + 1, 4), (200_000, 4)])
def test_ids_take_as_few_bytes_as_the_largest_needs(vocab_size: int, n_bytes: int):
    ids = array(id_type(vocab_size), [0, vocab_size - 1])
    assert ids.itemsize == n_bytes and ids[1] == vocab_size - 1
