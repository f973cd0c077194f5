"""Texts of all byte shapes, alone and in folders, from the disk to windows: right, or one line that says why not."""

import os
import random
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness import n_cases, run_cases

from geminiq.data.corpus import Source, describe_corpus, load_corpus, open_corpus, split_corpus
from geminiq.data.dataloader import prepare_data
from geminiq.data.dataset import HEADER, TextDataset, TokenFile, write_tokens
from geminiq.utils.config import DataConfig
from geminiq.utils.device import UserError, make_generator
from helpers import tiny_tokenizer

WORDS = ["the", "cat", "naïve", "▁", "<|end|>", "中文", "🤖", "x" * 300, "\ufeff", "\u2028", "e\u0301", "\x1b[2J", "]}"]
MARKS = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff", b""]


def sentences(draw: random.Random) -> str:
    "Some words, between white space of one kind or another."
    spaces = draw.choice([" ", "\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\t", "  ", "", "\u00a0", " \n \n "])
    return spaces.join(draw.choices(WORDS, k=draw.choice([0, 1, 5, 200, 4000])))


def content(draw: random.Random) -> bytes:
    "The bytes of a file that somebody may have."
    text = sentences(draw)
    kind = draw.randrange(8)
    if kind == 0:
        return draw.randbytes(draw.choice([0, 1, 3, 100, 10_000]))
    if kind == 1:
        return draw.choice([b"\0", b" ", b"\n", b"\r", b"\r\n", b"\t \n", b"a", b"\xc3"]) * draw.choice([1, 13, 300_000])
    if kind == 2:
        return text.encode(draw.choice(["utf-16", "utf-16-be", "utf-32", "utf-8-sig", "utf-7"]))
    if kind == 3:
        return draw.choice(MARKS) + text.encode()
    if kind == 4:
        return text.encode() + draw.choice([b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf0\x9f", b"\0", b"\xef\xbb\xbf"])
    if kind == 5:
        return text.encode()[draw.randrange(3):]      # perhaps in the middle of a character
    return (text * draw.choice([1, 1, 30]))[:300_000].encode()


def damaged_folder(draw: random.Random, folder: Path) -> Path:
    "A corpus as it may lie on a disk: a file, or a folder of odd names, links, hidden and empty things."
    names = [b"a.txt", b"B.TXT", b"c.Md", b".hidden.txt", b"d.rst.gz", b"\xff\xfe.txt", "ü\n\x1b.txt".encode(), b"-f.txt",
             b".git/g.txt", b"deep/er/h.md", b"i.txt/j.txt", b"x" * 200 + b".txt", b".txt", b"..txt"]
    for name in draw.sample(names, draw.randint(1, 8)):
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content(draw) if draw.random() < 0.5 else sentences(draw).encode())
    if draw.random() < 0.3:
        (folder / "link.txt").symlink_to(draw.choice(["nowhere", ".", "a.txt", "link.txt", "/dev/zero"]))
    if draw.random() < 0.2:
        os.mkfifo(folder / "pipe.txt")
    return folder / "a.txt" if (folder / "a.txt").is_file() and draw.random() < 0.5 else folder


def runs(parts: Iterable[Source]) -> set[tuple[str, ...]]:
    "All runs of 13 words inside paragraphs."
    found = (paragraph.split() for part in parts for paragraph in "".join(part.pieces()).split("\n\n"))
    return {tuple(words[i:i + 13]) for words in found for i in range(len(words) - 12)}


def check_corpus(seed: int) -> None:
    "Read, describe, split and encode one."
    draw = random.Random(seed)
    with TemporaryDirectory() as name:
        folder = Path(name, "corpus")
        folder.mkdir()
        path = damaged_folder(draw, folder)
        sources = open_corpus(path)
        read = load_corpus(path)
        assert describe_corpus(path).startswith(f"{len(read)} file")
        assert all(text.strip() and "\0" not in text for _, text in read)
        assert ["".join(source.pieces(draw.randint(1, 50))) for source in sources] == [text for _, text in read]
        fraction = draw.choice([0.05, 0.1, 0.5, 0.95])
        train, val = split_corpus(read, fraction, make_generator(seed))
        assert not runs(train) & runs(val)
        data = prepare_data(DataConfig(train_path=str(path), seq_length=8, val_fraction=fraction), 290, seed, Path(name, "run"),
                            tiny_tokenizer())
        assert data.train.tokens[:].max() < 290 and len(data.val) > 0 and train


def test_corpora():
    tiny_tokenizer()
    n = n_cases(100)
    assert n / 10 < len(run_cases(check_corpus, n)) < n * 9 / 10


def check_token_file(seed: int) -> None:
    "A file of tokens, damaged somewhere, is what it was or is refused."
    draw = random.Random(seed)
    with TemporaryDirectory() as name:
        path = Path(name, "row.tokens")
        vocab_size = draw.choice([300, 70_000])
        tokens = [draw.randrange(vocab_size) for _ in range(draw.choice([0, 1, 9, 1000]))]
        write_tokens(path, [tokens], vocab_size)
        whole = bytearray(path.read_bytes())
        if draw.random() < 0.5:      # in the header or after it
            place = draw.randrange(draw.choice([HEADER, len(whole)]))
            whole[place:place + draw.randrange(4)] = draw.randbytes(draw.randrange(4))
        elif draw.random() < 0.5:
            whole = whole[:draw.randrange(len(whole))]
        else:
            header = draw.choice(["dtype", "length", "sha256"]).encode()
            value = draw.choice([b"null", b"[]", b"{}", b"-1", b"1e999", b"9" * 50, b'"x"', b'"<f8"', b'"O"', b"true", b"NaN"])
            start = whole.index(header) + len(header) + 3
            end = min(place for place in (whole.find(b",", start), whole.find(b"}", start)) if place > 0)
            whole = (whole[:start] + value + whole[end:HEADER]).ljust(HEADER)[:HEADER] + whole[HEADER:]
        path.write_bytes(whole)
        row = TokenFile(path)
        assert row[:].tolist() == tokens
        TextDataset(row, 8)


def test_token_files():
    n = n_cases(150)
    assert n / 2 < len(run_cases(check_token_file, n)) < n


def test_a_corpus_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    "Whoever runs this may read everything, so the refusal is the system's in name only."
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.txt"))

    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"a\.txt' cannot be read: Permission denied"):
        open_corpus(tmp_path)
