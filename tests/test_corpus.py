"""The held-out text shares nothing with the training text, whatever the corpus."""

import codecs
import json
import os
import random
import re
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geminiq.data import corpus
from geminiq.data.corpus import (
    Document,
    Source,
    TextFile,
    decontaminate,
    describe_corpus,
    hold_out,
    load_corpus,
    open_corpus,
    split_corpus,
)
from geminiq.utils.device import UserError, make_generator

words = st.sampled_from("the a cat dog sees finds old new red blue house river".split())
paragraphs = st.lists(words, min_size=1, max_size=40).map(" ".join)
texts = st.lists(paragraphs, min_size=1, max_size=8).map("\n\n".join)


def runs(documents: list[Document], n: int) -> set[str]:
    "All runs of n words inside a paragraph, written out."
    split = [paragraph.split() for _, text in documents for paragraph in text.split("\n\n")]
    return {" ".join(found[i:i + n]) for found in split for i in range(len(found) - n + 1)}


def whole(documents: list[Document]) -> set[str]:
    "All paragraphs too short for such a run."
    split = [paragraph.split() for _, text in documents for paragraph in text.split("\n\n")]
    return {" ".join(found) for found in split if 0 < len(found) < 13}


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6), st.floats(0.05, 0.95), st.integers(0, 99))
def test_held_out_shares_no_paragraph_and_no_long_run(contents: list[str], share: float, seed: int):
    documents = [Document(str(i), text) for i, text in enumerate(contents)]
    train, val = split_corpus(documents, share, make_generator(seed))
    assert not runs(train, 13) & runs(val, 13)
    assert not whole(train) & whole(val)
    assert split_corpus(documents, share, make_generator(seed)) == (train, val)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=300), st.floats(0.05, 0.95))
def test_one_text_is_cut_once_and_nothing_of_the_training_part_is_lost(text: str, share: float):
    train, _ = split_corpus([Document("book", text)], share, make_generator(0))
    assert all(text.startswith(part) for _, part in train)


def test_bytes_that_are_not_text_are_refused(tmp_path):
    (tmp_path / "picture.txt").write_bytes(b"abc\xff\xd8")
    with pytest.raises(UserError, match="byte 0xff at position 3"):
        load_corpus(tmp_path / "picture.txt")


def decontaminate_slowly(held_out: list[Document], train: list[Document], n: int) -> list[Document]:
    "The same with sets of tuples of words, where lines are short."
    def found(paragraph: str) -> list[tuple]:
        split = paragraph.split()
        return [tuple(split[i:i + n]) for i in range(max(1, len(split) - n + 1))] if split else []

    def rest(paragraph: str) -> list[str]:
        lines = re.findall(r"[^\n]*\n|[^\n]+", paragraph)
        home = [i for i, line in enumerate(lines) for _ in line.split()]
        leaked = {i for k, run in enumerate(found(paragraph)) if run in seen
                  for i in range(home[k], home[min(k + n, len(home)) - 1] + 1)}
        if not leaked:
            return [paragraph] if paragraph.strip() else []
        groups = ["".join(lines[i] for i in group) for cut, group in groupby(range(len(lines)), leaked.__contains__) if not cut]
        return [text.strip("\n") for text in groups if len(text.split()) >= n]

    seen = {run for _, text in train for paragraph in text.split("\n\n") for run in found(paragraph)}
    fresh = [(title, [left for p in text.split("\n\n") for left in rest(p)]) for title, text in held_out]
    return [Document(title, "\n\n".join(kept)) for title, kept in fresh if kept]


strange = st.text(st.sampled_from("abab  \n\t\u00a0\u2028\x1fé🤖"), max_size=60)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts | strange, max_size=4), st.lists(texts | strange, max_size=4), st.integers(1, 14))
def test_hashes_drop_what_sets_of_words_drop(held_out: list[str], train: list[str], n: int):
    exam, homework = ([Document(str(i), text) for i, text in enumerate(part)] for part in (held_out, train))
    assert list(decontaminate(exam, homework, n)) == decontaminate_slowly(exam, homework, n)


def test_held_out_text_is_compared_in_batches_as_at_once(monkeypatch: pytest.MonkeyPatch):
    documents = [Document(str(i), "\n\n".join(f"{k} is a number, said {i}" for k in range(i, i + 9))) for i in range(30)]
    once = list(decontaminate(documents[:9], documents[12:], 3))
    monkeypatch.setattr(corpus, "_BATCH", 100)
    assert list(decontaminate(documents[:9], documents[12:], 3)) == once


def test_a_run_that_reaches_over_a_cut_is_found():
    words = [f"w{i}" for i in range(60_000)]       # one paragraph of more than one piece
    assert len(list(Document("", " ".join(words)).pieces())) > 1
    train = [Document("", " ".join(words))]
    cut = len(next(train[0].pieces()).split())
    assert list(decontaminate([Document("", " ".join(words[cut - 6:cut + 7]))], train)) == []
    assert list(decontaminate([Document("", " ".join([*words[cut - 6:cut + 6], "end"]))], train)) != []


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")) | strange, st.integers(1, 40),
       st.sampled_from(["\n", "\r\n"]))
def test_pieces_of_a_file_are_its_text(tmp_path_factory: pytest.TempPathFactory, text: str, size: int, newline: str):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes(text.replace("\n", newline).encode())
    file = TextFile("text", path, 0, path.stat().st_size)
    pieces = list(file.pieces(size))
    assert "".join(pieces) == path.read_text(encoding="utf-8")
    assert all(0 < len(piece) <= size for piece in pieces)
    for position in range(0, file.size + 1, 7):
        parts: list[Source] = list(file.cut(position))
        assert "\r" in text or "".join("".join(part.pieces(size)) for part in parts) == text


def test_a_file_on_the_disk_is_split_as_its_text_in_memory(tmp_path):
    (tmp_path / "book.txt").write_text("\n\n".join(f"Paragraph {i}, of {i * i}." for i in range(500)))
    parts = hold_out(open_corpus(tmp_path), 0.1, make_generator(0))
    assert parts[1] == [TextFile("book.txt", tmp_path / "book.txt", parts[0][0].end, (tmp_path / "book.txt").stat().st_size)]
    read = [[("book.txt", "".join(source.pieces())) for source in part] for part in parts]
    assert read == [list(part) for part in hold_out(load_corpus(tmp_path), 0.1, make_generator(0))]


def test_bytes_that_are_not_text_are_refused_wherever_they_are(tmp_path):
    (tmp_path / "long.txt").write_bytes(b"word " * 200_000 + b"\xff")
    with pytest.raises(UserError, match="byte 0xff at position 1000000"):
        load_corpus(tmp_path / "long.txt")


def sentence(draw: random.Random) -> str:
    "Words that hardly ever occur together again."
    return " ".join(f"w{draw.randrange(5000)}" for _ in range(draw.randint(15, 25))) + "."


SHAPES = {   # how sentences become a text
    "one line": " ".join,
    "lines": "\n".join,
    "CRLF": "\r\n".join,
    "paragraphs": "\n\n".join,
    "wrapped": lambda said: "\n".join(text.replace(" ", "\n", 1) for text in said),
    "jsonl": lambda said: "\n".join(json.dumps({"id": i, "role": "user", "text": text}) for i, text in enumerate(said)) + "\n\n",
    "log": lambda said: "\n".join(f"2024-05-01 12:{i // 60:02d}:{i % 60:02d} INFO worker: {text}" for i, text in enumerate(said)),
    "long lines": lambda said: "\n".join(" ".join(said[i:i + 200]) for i in range(0, len(said), 200)),
    "no ends": lambda said: " ".join(said).replace(".", ""),
    "nested json": lambda said: json.dumps([{"text": text} for text in said]),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_sentences", [40, 3000])
def test_what_repeats_goes_and_about_the_fraction_asked_for_stays(shape: str, n_sentences: int, tmp_path: Path):
    draw = random.Random(n_sentences)
    said = [sentence(draw) for _ in range(n_sentences)]
    for place in range(n_sentences * 9 // 10 + 2, n_sentences, 40):
        said[place] = said[place - n_sentences // 2]     # the held-out end repeats some of the beginning
    (tmp_path / "text.txt").write_bytes(SHAPES[shape](said).encode())
    train, held_out = split_corpus(load_corpus(tmp_path / "text.txt"), 0.1, make_generator(0))
    whole = sum(part.size for part in (*train, *held_out))
    assert (0.02 if n_sentences == 40 else 0.05) < sum(part.size for part in held_out) / whole < 0.11
    texts = [Document("", "".join(part.pieces())) for part in train]
    assert not runs(texts, 13) & runs(held_out, 13)


def test_where_all_is_repeated_nothing_is_kept():
    documents = [Document("", "the same line of text with more than thirteen words in it, over and over again\n" * 500)]
    assert split_corpus(documents, 0.1, make_generator(0))[1] == []


def test_a_mark_before_a_text_is_not_text(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF8 + "naïve".encode())
    (tmp_path / "b.txt").write_bytes(codecs.BOM_UTF8)
    assert load_corpus(tmp_path) == [("a.txt", "naïve")]
    assert open_corpus(tmp_path)[0].size == len("naïve".encode())


def test_a_folder_is_read_but_for_what_is_hidden_and_what_is_left_is_said(tmp_path: Path):
    for name in ["b.TXT", "a.Md", "deep/er/c.rst", "code.py", "Makefile", "more.py", ".git/d.txt", "deep/.venv/e.md", ".f.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "g.txt").touch()
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    assert [title for title, _ in load_corpus(tmp_path)] == ["a.Md", "b.TXT", os.path.join("deep", "er", "c.rst")]
    assert describe_corpus(tmp_path) == ("3 files, 22 bytes; left out: 3 hidden, 2 .py, 1 without an ending, "
                                         "1 .txt, 1 empty")
    assert describe_corpus(tmp_path / "b.TXT") == "1 file, 5 bytes"
    assert describe_corpus("pydocs") == "the built-in corpus pydocs"


@pytest.mark.parametrize(("content", "message"), [
    (b"\0" * 1000, "is not text: it holds a byte 0 at position 0"),
    (b"word " * 200_000 + b"\0", "is not text: it holds a byte 0 at position 1000000"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text: it holds a byte 0"),
    ("text".encode("utf-16"), "is text in UTF-16: save it as UTF-8"),
    ("text".encode("utf-16-be"), "is not text"),
    ("text".encode("utf-32"), "is text in UTF-16: save it as UTF-8"),
    ("naïve".encode("latin-1"), "byte 0xef at position 2.: save it as UTF-8"),
    (b"\xed\xa0\x80", "byte 0xed at position 0"),
])
def test_what_is_no_text_is_refused_with_the_reason(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "file.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_corpus(tmp_path)


@pytest.mark.parametrize("name", ["", "  ", "nowhere", "a" * 5000, "a\0b", "/dev/null"])
def test_what_is_no_corpus_is_refused(name: str):
    with pytest.raises(UserError, match=r"no corpus|cannot be read"):
        open_corpus(name)
