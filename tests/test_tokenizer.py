"""The tokenizer, on texts nobody would think of."""

import io
import json
import random
from array import array
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from geminiq.course.tokenizer import museum
from geminiq.data.corpus import load_corpus
from geminiq.data.pretrained_tokenizer import _byte_letters
from geminiq.data.tokenizer import (
    _CUT,
    BPETokenizer,
    ByteBPETokenizer,
    id_type,
    learn_merges,
    train_tokenizer,
    train_tokenizer_apart,
)
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
            "allow_whitespace_only_pieces": True, "minloglevel": 2, "hard_vocab_limit": False,
            "num_threads": 1}
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


BYTES = ByteBPETokenizer.train([TEXT] * 20, vocab_size=310)


@settings(max_examples=1000, deadline=None)
@given(strange, st.randoms(use_true_random=False))
def test_our_own_gives_back_the_text_however_it_comes(text: str, dice: random.Random):
    ids = BYTES.encode(text)
    assert BYTES.decode(ids) == text
    assert all(0 <= i < BYTES.eos_id for i in ids)
    ends = sorted(dice.choices(range(len(text) + 1), k=3))
    parts = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    assert list(BYTES.encode_iterable(parts)) == ids
    for piece in BYTES.stream(ids):
        piece.encode()     # no half characters


@given(st.lists(st.integers(0, BYTES.eos_id)))
def test_any_tokens_of_our_own_can_be_shown(ids: list[int]):
    assert len(BYTES.pieces(ids)) == len(ids)
    assert "".join(BYTES.stream(ids)) == BYTES.decode(ids)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("abc 1.\n", max_size=12), max_size=6), st.integers(0, 30))
def test_learning_fast_is_learning_as_in_the_exercise(texts: list[str], n_merges: int):
    words = Counter(word.encode() for text in texts for word in _CUT.findall(text))
    for solution in museum.solutions["learn"]:
        assert learn_merges(texts, n_merges) == solution(dict(words), n_merges)


@pytest.fixture(scope="module")
def theirs():
    "Hugging Face's byte-pair encoding with our merges and our cuts, and learned by itself from the same text."
    tokenizers = pytest.importorskip("tokenizers")
    texts = [text for _, text in islice(load_corpus("pydocs"), 60)]
    ours = ByteBPETokenizer.train(texts, 1000)
    letter = {byte: name for name, byte in _byte_letters().items()}
    names = ["".join(letter[byte] for byte in piece) for piece in ours._bytes[:-1]]
    pairs = [(names[left], names[right]) for left, right in ours.merges]
    cut = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(_CUT.pattern), "isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    same = tokenizers.Tokenizer(tokenizers.models.BPE({name: i for i, name in enumerate(names)}, pairs))
    same.pre_tokenizer = cut
    learned = tokenizers.Tokenizer(tokenizers.models.BPE())
    learned.pre_tokenizer = cut
    learned.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=999, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return ours, same, learned, names


def test_hugging_face_gives_the_same_tokens(theirs):
    ours, same, _, _ = theirs
    dice = random.Random(0)
    signs = "abcdefgABC   \n\n\t.,;:!?'-_()[]{}0123456789éäößñçαβγδабвгд漢字語🙂"
    texts = ["".join(dice.choices(signs, k=dice.randrange(60))) for _ in range(2000)]
    texts += [text[:2000] for _, text in islice(load_corpus("pydocs"), 100)]
    for text in texts:
        assert ours.encode(text) == same.encode(text).ids, text


def test_hugging_face_learns_the_same_pieces(theirs):
    _, _, learned, names = theirs
    assert len(set(learned.get_vocab()) & set(names)) > 0.97 * len(names)     # equally frequent ones come in another order


def test_our_own_is_saved_and_read(tmp_path: Path):
    BYTES.save(tmp_path / "t.json")
    assert ByteBPETokenizer.load(tmp_path / "t.json").merges == BYTES.merges


@pytest.mark.parametrize("content", [
    "", "{}", "[1]", '{"merges": [[97, 98]]}', '{"kind": "byte_bpe", "merges": 3}', '{"kind": "byte_bpe", "merges": [[97]]}',
    '{"kind": "byte_bpe", "merges": [[97, 256]]}', '{"kind": "byte_bpe", "merges": [[97, -1]]}',
    '{"kind": "byte_bpe", "merges": [[97, true]]}', '{"kind": "byte_bpe", "merges": [["a", "b"]]}',
    json.dumps({"kind": "byte_bpe", "merges": [[97, 98], [256, 258]]})])
def test_a_file_that_is_none_of_our_own_is_refused(content: str, tmp_path: Path):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match=r"t\.json"):
        ByteBPETokenizer.load(tmp_path / "t.json")


@pytest.mark.parametrize(("size", "advice"), [(256, "at least 257"), (5000, "at most")])
def test_a_vocabulary_that_cannot_be_filled_is_refused(size: int, advice: str):
    with pytest.raises(UserError, match=advice):
        ByteBPETokenizer.train([TEXT], size)
