"""The held-out text shares nothing with the training text, whatever the corpus."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geminiq.data import corpus
from geminiq.data.corpus import Document, Source, TextFile, decontaminate, hold_out, load_corpus, open_corpus, split_corpus
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
    "The same with sets of tuples of words."
    def found(paragraph: str) -> set[tuple]:
        split = paragraph.split()
        return {tuple(split[i:i + n]) for i in range(max(1, len(split) - n + 1))} if split else set()

    seen = {run for _, text in train for paragraph in text.split("\n\n") for run in found(paragraph)}
    fresh = [(title, [p for p in text.split("\n\n") if p.strip() and not seen & found(p)]) for title, text in held_out]
    return [Document(title, "\n\n".join(kept)) for title, kept in fresh if kept]


strange = st.text(st.sampled_from("ab \n\t\u00a0\u2028\x1fé🤖"), max_size=60)


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
@given(st.text(st.characters(exclude_categories=["Cs"])) | strange, st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
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
