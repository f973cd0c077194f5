"""Tokenizers: damaged ones, foreign ones, texts of any kind to learn from and to encode: right, or one line that says why not."""

import io
import random
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import sentencepiece
from harness import n_cases, run_cases

from geminiq.data.tokenizer import BPETokenizer, train_tokenizer
from geminiq.utils.device import UserError
from helpers import tiny_tokenizer


def any_text(draw: random.Random, n: int) -> str:
    "Characters from all over Unicode, or few that mean something here."
    if draw.random() < 0.5:
        return "".join(draw.choices(" \t\n\r▁<|end|>ab\x00\ufffd\ufeff🤖é\u00a0\u2028\u3000", k=draw.randrange(n)))
    codes = [draw.randrange(draw.choice([128, 0x800, 0xD800, sys.maxunicode + 1])) for _ in range(draw.randrange(n))]
    return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def keeps_texts(tokenizer: BPETokenizer, draw: random.Random) -> None:
    "Whatever the text, it comes back; whatever the tokens, they can be shown."
    for _ in range(20):
        text = any_text(draw, 60)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == "".join(tokenizer.stream(ids)) == text
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        ids = draw.choices(range(tokenizer.vocab_size), k=20)
        assert tokenizer.decode(ids) == tokenizer._pieces.decode(ids)
        tokenizer.pieces(ids)
    assert 0 <= tokenizer.pad_id < tokenizer.vocab_size and 0 <= tokenizer.eos_id < tokenizer.vocab_size


def load(model: bytes) -> BPETokenizer:
    "As from a file."
    with TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.model")
        path.write_bytes(model)
        return BPETokenizer.load(path)


def damaged(seed: int) -> None:
    "One byte flipped, some replaced, or the end lost."
    draw = random.Random(seed)
    model = bytearray(tiny_tokenizer().model)
    place = draw.randrange(0 if draw.random() < 0.5 else len(model) - 200, len(model))
    if draw.random() < 0.6:
        model[place] ^= 1 << draw.randrange(8)
    elif draw.random() < 0.5:
        model[place:place + draw.randrange(20)] = draw.randbytes(draw.randrange(20))
    else:
        del model[place:]
    keeps_texts(load(bytes(model)), draw)


def foreign(seed: int) -> None:
    "A model trained with any options."
    draw = random.Random(seed)
    options = {name: draw.choice(values) for name, values in {
        "model_type": ["bpe", "bpe", "unigram", "char", "word"], "byte_fallback": [True, True, True, False],
        "normalization_rule_name": ["identity", "identity", "identity", "nmt_nfkc", "nfkc_cf"],
        "add_dummy_prefix": [False, False, False, True], "remove_extra_whitespaces": [False, False, False, True],
        "allow_whitespace_only_pieces": [True, False], "treat_whitespace_as_suffix": [True, False],
        "split_by_whitespace": [True, False], "split_by_number": [True, False], "split_digits": [True, False],
        "user_defined_symbols": [[], ["fox", " a "], ["▁", "<x y>"], ["\n"]], "control_symbols": [[], ["<a>"]],
        "character_coverage": [0.5, 0.9995, 1.0], "eos_id": [3, 3, 3, -1], "pad_id": [0, -1], "vocab_size": [300, 340],
    }.items()}
    english = "the quick brown fox.\n\tdef f(x):  return x  # naïve\n" * 20
    text = draw.choice([english, "中文没有空格" * 50, any_text(draw, 500) + "ab"])
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([text] * 9), model_writer=model, bos_id=2, unk_id=1,
                                                 hard_vocab_limit=False, num_threads=1, minloglevel=9, **options)
    except (RuntimeError, OSError):
        return      # no model came of it
    keeps_texts(load(model.getvalue()), draw)


def learned(seed: int) -> None:
    "Our own, from any text; what a refusal advises is right."
    draw = random.Random(seed)
    texts = [any_text(draw, draw.choice([1, 30, 300])) for _ in range(draw.randrange(4))]
    size = draw.choice([-1, 1, 270, 280, 290, 400])
    for _ in range(3):
        try:
            return keeps_texts(train_tokenizer(texts, size), draw)
        except UserError as error:
            if not (advice := re.search(r"use at (?:least|most) (\d+)", str(error))):
                raise
            size = int(advice[1])
    raise AssertionError(f"the advice leads nowhere: {size}")


def test_damaged_tokenizers():
    tiny_tokenizer()
    n = n_cases(80)
    assert n / 2 < len(run_cases(damaged, n)) < n


def test_foreign_tokenizers():
    n = n_cases(60)
    assert n / 4 < len(run_cases(foreign, n)) < n * 3 / 4


def test_tokenizers_learned_from_any_text():
    n = n_cases(60)
    refusals = run_cases(learned, n)
    assert len(refusals) < n / 2 and not any("INTERNAL" in text for text in refusals)
