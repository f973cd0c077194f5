"""The tokenizer, on texts nobody would think of."""

import io
from array import array

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


def test_a_tokenizer_that_changes_spaces_is_not_used_word_by_word():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([TEXT] * 20), model_writer=model, model_type="bpe",
                                             vocab_size=300, byte_fallback=True, minloglevel=2)
    tokenizer = BPETokenizer(model.getvalue())
    plain = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert tokenizer.encode("  The quick  fox") == plain.encode("  The quick  fox")


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


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "t.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        BPETokenizer.load(tmp_path / "t.model")


@pytest.mark.parametrize(("vocab_size", "n_bytes"), [(300, 2), (2**16, 2), (2**16 + 1, 4), (200_000, 4)])
def test_ids_take_as_few_bytes_as_the_largest_needs(vocab_size: int, n_bytes: int):
    ids = array(id_type(vocab_size), [0, vocab_size - 1])
    assert ids.itemsize == n_bytes and ids[1] == vocab_size - 1
