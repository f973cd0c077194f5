"""The held-out text shares nothing with the training text, whatever the corpus."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geminiq.data.corpus import Document, load_corpus, split_corpus
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
