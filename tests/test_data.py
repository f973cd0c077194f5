"""From text to files of tokens and shuffled batches: the same tokens whatever the way, little memory, no half files."""

import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geminiq.data import dataloader
from geminiq.data.corpus import CORPORA, Document, load_corpus, split_corpus
from geminiq.data.dataloader import (
    TOKENIZERS,
    Data,
    ShuffledBatchSampler,
    permute,
    prepare_chat,
    prepare_data,
    read_conversations,
    train_loader,
)
from geminiq.data.dataset import (
    HEADER,
    IGNORE_INDEX,
    ChatDataset,
    TextDataset,
    TokenFile,
    encode_conversation,
    pack,
    write_tokens,
)
from geminiq.data.microworld import Message, conversation, microworld
from geminiq.data.tokenizer import BPETokenizer, ChatTokenizer, encode_all, train_tokenizer
from geminiq.generation.generate import generate_text
from geminiq.training.trainer import make_trainer, resume_trainer
from geminiq.utils.checkpointing import load_checkpoint, save_checkpoint
from geminiq.utils.config import DataConfig, make_config
from geminiq.utils.device import UserError, make_generator
from geminiq.utils.files import lock_folder
from helpers import PEAK_MEMORY, tiny_tokenizer

PARAGRAPHS = [f"The {i}th paragraph says that {i} squared is {i * i}, and {i} cubed is {i ** 3}." for i in range(400)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    "A file of numbered paragraphs."
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(PARAGRAPHS))
    return path


def settings_for(text: Path, **changes: object) -> DataConfig:
    "Windows of 16 tokens of a file."
    return DataConfig(train_path=str(text), **{"seq_length": 16, **changes})


def test_prepared_data_is_what_the_small_functions_give(text: Path, tmp_path: Path):
    data = prepare_data(settings_for(text), 300, 0, tmp_path / "run")
    train, val = split_corpus(load_corpus(text), 0.1, make_generator(0))
    tokenizer = train_tokenizer((text for _, text in train), 300)
    assert isinstance(data.tokenizer, BPETokenizer) and data.tokenizer.model == tokenizer.model
    for part, documents in ((data.train, train), (data.val, val)):
        assert torch.equal(part.tokens[:], pack((text for _, text in documents), tokenizer))


def test_the_second_time_nothing_is_encoded(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = prepare_data(settings_for(text), 300, 0, tmp_path / "run")
    monkeypatch.setattr(dataloader, "encode_all", None)
    again = prepare_data(settings_for(text), 300, 0, tmp_path / "run")
    assert again.fingerprint() == first.fingerprint()
    assert again.train.tokens.path == first.train.tokens.path
    with pytest.raises(TypeError):
        prepare_data(settings_for(text, val_fraction=0.3), 300, 0, tmp_path / "run")   # another part is held out


@pytest.mark.parametrize("change", ["text", "tokenizer", "fraction"])
def test_another_text_tokenizer_or_split_is_another_file(change: str, text: Path, tmp_path: Path):
    first = prepare_data(settings_for(text), 300, 0, tmp_path / "run")
    fraction, vocab_size = 0.1, 300
    if change == "text":
        text.write_text(text.read_text().replace("7 squared", "7 sqvared"))
    elif change == "tokenizer":
        vocab_size = 310
    else:
        fraction = 0.2
    second = prepare_data(settings_for(text, val_fraction=fraction), vocab_size, 0, tmp_path / "run")
    assert second.fingerprint() != first.fingerprint()


def test_a_damaged_file_is_made_again(text: Path, tmp_path: Path):
    first = prepare_data(settings_for(text), 300, 0, tmp_path / "run")
    path, tokens = first.train.tokens.path, first.train.tokens[:]
    content = path.read_bytes()
    for damaged in (content[:-2], content[:HEADER] + b"\x05" + content[HEADER + 1:], b"", content[:100]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="remove it, and it is made again"):
            TokenFile(path)
        again = prepare_data(settings_for(text), 300, 0, tmp_path / "run")
        assert torch.equal(again.train.tokens[:], tokens) and path.read_bytes() == content


@pytest.mark.parametrize("content", [
    b"", b"[]", b"5", b'{"dtype": "<u2", "length": "x", "sha256": ""}', b'{"dtype": "<u2", "length": -1, "sha256": ""}',
    b'{"dtype": "O", "length": 0, "sha256": ""}', b'{"dtype": "<f4", "length": 0, "sha256": ""}', b"\xff" * 300,
    b'{"dtype": "<u2", "length": 1e999, "sha256": ""}', b'{"dtype": "<u2", "length": null, "sha256": ""}',
    b'{"dtype": ["<u2"], "length": 1, "sha256": ""}', b"[" * 300, b'{"dtype": "<u2", "length": 9' + b"9" * 200 + b"}",
])
def test_what_is_no_file_of_tokens_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "row.tokens").write_bytes(content.ljust(HEADER))
    for path in (tmp_path / "row.tokens", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"remove it, and it is made again|cannot be read"):
            TokenFile(path)


@pytest.fixture
def impatient() -> Iterator[None]:
    "A test that fails when it has waited for half a minute, as opening a pipe would for ever."
    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", [".lock", "train-*.tokens", "val-*.tokens"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(name: str, text: Path, tmp_path: Path):
    run = tmp_path / "run"
    with lock_folder(run):
        prepare_data(settings_for(text), 300, 0, run)
    path = next(run.glob(name))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"is not a file, .* move it away") as caught, lock_folder(run):
        prepare_data(settings_for(text), 300, 0, run)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and path.is_fifo()
    with pytest.raises(UserError, match="is not a file of tokens: remove it"):
        TokenFile(path)


@pytest.mark.parametrize("wrong", [300, 70_000, -1])
def test_tokens_beyond_the_vocabulary_are_refused(wrong: int, tmp_path: Path):
    with pytest.raises(UserError, match="not all below the vocab_size 300"):
        write_tokens(tmp_path / "row.tokens", [[1, 2], [], [wrong, 299]], 300)
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_no_half_file(tmp_path: Path):
    def interrupted():
        yield np.arange(1000).tolist()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "row.tokens", interrupted(), 2000)
    assert not list(tmp_path.iterdir())


@given(st.lists(st.lists(st.integers(0, 70_000), max_size=20), max_size=5), st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_a_file_gives_back_its_tokens(tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], start: int, n: int):
    path = tmp_path_factory.mktemp("tokens") / "row.tokens"
    tokens = [token for part in parts for token in part]
    vocab_size = max([0, *tokens]) + 1
    row = write_tokens(path, parts, vocab_size)
    assert len(row) == len(tokens) and row[:].tolist() == tokens
    assert row[start:start + n].tolist() == tokens[start:start + n]
    assert row.dtype.itemsize == (2 if vocab_size <= 2**16 else 4)


def test_windows_of_a_file_are_those_of_a_tensor(tmp_path: Path):
    tokens = torch.arange(1000)
    row = write_tokens(tmp_path / "row.tokens", [tokens.tolist()], 1000)
    for (x, y), (x2, y2) in zip(TextDataset(row, 7), TextDataset(tokens, 7), strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2) and x.dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_tokens_do_not_depend_on_the_number_of_processes(workers: int):
    tokenizer = train_tokenizer(PARAGRAPHS, 300)
    texts = [*PARAGRAPHS[:40], "", "naïve ▁ 🤖\x00"]
    assert [part.tolist() for part in encode_all(tokenizer, texts, workers)] == [tokenizer.encode(text) for text in texts]


def test_a_script_without_a_main_guard_may_encode_in_parallel(text: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text("from geminiq.data.tokenizer import *\n"
                      f"t = train_tokenizer([open({str(text)!r}).read()], 300)\n"
                      "print(sum(map(len, encode_all(t, ['one', 'two'] * 9, workers=2))) > 9)")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_process_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch):
    tokenizer = train_tokenizer(PARAGRAPHS, 300)
    parts = encode_all(tokenizer, (text for _ in range(100) for text in PARAGRAPHS), workers=1)
    next(parts)
    mine = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not mine.exists():
        pytest.skip("the children of a process are listed by Linux alone")
    for child in mine.read_text().split():
        if "_work()" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), 9)
    with pytest.raises(RuntimeError, match="has ended with exit code -9"):
        list(parts)


def test_a_tokenizer_is_read_where_it_is_and_else_learned_and_written(text: Path, tmp_path: Path):
    path = tmp_path / "tokenizers" / "mine.model"
    config = settings_for(text, tokenizer_path=str(path))
    learned = prepare_data(config, 300, 0, tmp_path / "run").tokenizer
    assert [file.name for file in path.parent.iterdir()] == ["mine.model"]
    train_tokenizer(PARAGRAPHS[:200], 300).save(path)
    assert prepare_data(config, 300, 0, tmp_path / "run").tokenizer.encode(PARAGRAPHS[0]) != learned.encode(PARAGRAPHS[0])
    with pytest.raises(UserError, match=r"mine\.model has 300 tokens, and model\.vocab_size is 301"):
        prepare_data(config, 301, 0, tmp_path / "run")


def test_another_text_may_be_held_out(text: Path, tmp_path: Path):
    held_out = tmp_path / "val.txt"
    held_out.write_text("What is measured on is somebody else's text. " * 20)
    data = prepare_data(settings_for(text, val_path=str(held_out)), 300, 0, tmp_path / "run")
    assert data.tokenizer.decode(data.val.tokens[:]) == held_out.read_text()
    assert data.tokenizer.decode(data.train.tokens[:]) == text.read_text()


@pytest.mark.parametrize(("changes", "message"), [
    ({"seq_length": 10**6}, "training part of corpus .*text.txt.* too few for one window of 1000000"),
    ({"seq_length": None}, "data.seq_length is empty"),
    ({"seq_length": 3000}, "held-out part of corpus .*text.txt.* too few for one window of 3000"),
    ({"val_path": "nowhere"}, "no corpus 'nowhere'"),
])
def test_what_cannot_be_prepared_is_said(changes: dict, message: str, text: Path, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        prepare_data(settings_for(text, **changes), 300, 0, tmp_path / "run")
    assert not list(tmp_path.glob("run/*tokens"))


def test_where_all_repeats_the_training_text_that_is_the_reason(text: Path, tmp_path: Path):
    text.write_text("the same line of text with more than thirteen words in it, over and over again\n" * 500)
    with pytest.raises(UserError, match=r"nothing is left of it, since all of it repeats .* another text as data\.val_path"):
        prepare_data(settings_for(text), 290, 0, tmp_path / "run")


def test_lines_without_blank_ones_have_a_held_out_part(text: Path, tmp_path: Path):
    text.write_text("\n".join([*PARAGRAPHS, *PARAGRAPHS[:3]]))
    data = prepare_data(settings_for(text), 300, 0, tmp_path / "run")
    assert len(data.train) / 12 < len(data.val) < len(data.train) / 8


def test_what_a_folder_gave_and_what_was_left_is_said_before_training(text: Path, tmp_path: Path):
    (tmp_path / "notes" / ".git").mkdir(parents=True)
    text.rename(tmp_path / "notes" / "TEXT.TXT")
    (tmp_path / "notes" / "code.py").touch()
    config = make_config({"model": {"vocab_size": 300, "max_seq_len": 16, "d_model": 16, "n_layers": 1, "n_heads": 2},
                          "training": {"batch_size": 2}, "data": {"train_path": str(tmp_path / "notes")}})
    notices = make_trainer(config, tmp_path / "run", progress=False).notices
    size = (tmp_path / "notes" / "TEXT.TXT").stat().st_size
    assert notices == [f"{tmp_path / 'notes'}: 1 file, {size:,} bytes; left out: 1 hidden, 1 .py"]


def test_an_interrupted_save_keeps_the_tokenizer_before(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geminiq.utils.files.os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_data(settings_for(text, tokenizer_path=str(tmp_path / "t" / "mine.model")), 300, 0, tmp_path / "run")
    assert not list((tmp_path / "t").iterdir())


def test_a_corpus_of_ones_own_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CORPORA, "numbered", lambda: [Document(str(i), text) for i, text in enumerate(PARAGRAPHS)])
    data = prepare_data(settings_for(Path("numbered")), 300, 0, tmp_path)
    assert len(data.train) > 9 * len(data.val) > 0


@pytest.mark.slow
def test_processes_at_the_same_time_prepare_the_same(text: Path, tmp_path: Path):
    program = ("import sys; from geminiq.data.dataloader import prepare_data; from geminiq.utils.config import DataConfig;"
               f"print(prepare_data(DataConfig(train_path={str(text)!r}, seq_length=16), 300, 0, sys.argv[1]).fingerprint())")
    processes = [subprocess.Popen([sys.executable, "-c", program, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
                 for _ in range(3)]
    assert len({process.communicate()[0] for process in processes}) == 1
    assert sorted(file.suffix for file in (tmp_path / "run").iterdir()) == [".lock", ".tokens", ".tokens"]


@given(st.integers(1, 3000), st.integers(0, 2**32 - 1), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_an_epoch_holds_every_number_once(n: int, seed: int, epoch: int):
    assert sorted(permute(np.arange(n), n, seed, epoch).tolist()) == list(range(n))


def test_every_order_of_a_few_is_about_as_frequent():
    counts: dict[tuple, int] = {}
    for epoch in range(6000):
        order = tuple(permute(np.arange(4), 4, 0, epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((n - 250) ** 2 / 250 for n in counts.values()) < 60   # χ² with 23 degrees of freedom


def test_numbers_do_not_stay_where_they_were_nor_beside_each_other():
    n = 100_000
    order = permute(np.arange(n), n, 7, 0).astype(float)
    others = [permute(np.arange(n), n, seed, epoch) for seed, epoch in ((7, 1), (8, 0))]
    for other in (np.arange(n), np.roll(order, 1), np.roll(order, 2), *others):
        assert abs(np.corrcoef(order, other)[0, 1]) < 5 / n**0.5
    cells = np.histogram2d(np.arange(n), order, bins=20)[0]
    assert ((cells - n / 400) ** 2 / (n / 400)).sum() < 361 + 6 * (2 * 361) ** 0.5


def test_a_place_far_ahead_costs_no_more_than_the_first():
    "A billion windows, and a place in the thousandth epoch: no list, no permutation, no reading up to there."
    sampler = ShuffledBatchSampler(10**9, 16, seed=3, start=10**12)
    assert list(islice(sampler, 2)) == [sampler.batch(10**12), sampler.batch(10**12 + 16)]
    assert all(0 <= i < 10**9 for i in sampler.batch(10**12))
    tracemalloc.start()
    next(iter(ShuffledBatchSampler(10**8, 16, seed=0)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6, "bytes"


def test_whoever_goes_on_with_other_batches_goes_on_exactly_there():
    "Each window once in each epoch, whatever the sizes of the batches, and across the ends of epochs."
    for n in (5, 7, 12):
        whole = [window for batch in islice(ShuffledBatchSampler(n, 1, seed=4), 4 * n) for window in batch]
        for epoch in range(4):
            assert sorted(whole[epoch * n:][:n]) == list(range(n))
        choose, read = random.Random(n), []
        while len(read) < 3 * n:
            size, batches = choose.randint(1, n), choose.randint(1, 3)
            for batch in islice(ShuffledBatchSampler(n, size, seed=4, start=len(read)), batches):
                assert len(batch) == size
                read += batch
        assert read[:4 * n] == whole[:len(read)]


def test_reading_on_is_never_having_stopped(text: Path, tmp_path: Path):
    data: Data = prepare_data(settings_for(text), 300, 0, tmp_path / "run")
    whole = list(islice(train_loader(data.train, 4, seed=0), 30))
    for (x, y), (x2, y2) in zip(whole[21:], islice(train_loader(data.train, 4, seed=0, start=84), 9), strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


BIG = PEAK_MEMORY + """
import sys, torch, sentencepiece, numpy
from geminiq.data.dataloader import prepare_data
from geminiq.utils.config import DataConfig
before = peak_memory()
data = prepare_data(DataConfig(train_path=sys.argv[1], seq_length=64), 2048, 0, sys.argv[2])
for i in range(0, len(data.train), 97): data.train[i]
print((peak_memory() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's own count")
def test_sixty_megabytes_of_text_need_no_sixty_megabytes_more(tmp_path: Path):
    documents = load_corpus("pydocs")
    with (tmp_path / "big.txt").open("w") as file:
        for copy in range(34):
            for _, text in documents:
                file.write(text.replace("the", f"the{copy}") + "\n\n")
    assert (tmp_path / "big.txt").stat().st_size > 60e6
    done = subprocess.run([sys.executable, "-c", BIG, tmp_path / "big.txt", tmp_path / "run"],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 160, "MB beyond what the imports take"


@pytest.fixture
def letters() -> Iterator[type]:
    "A tokenizer of one's own, entered under the name letters."

    @TOKENIZERS.register("letters")
    class Letters:
        "A token for each letter; 0 ends a text."
        pad_id, bos_id, eos_id, start_ids, stop_ids = 0, None, 0, [0], [0]

        def __init__(self, letters: str):
            self.letters, self.vocab_size = letters, len(letters) + 1

        @classmethod
        def train(cls, texts: Iterable[str], vocab_size: int) -> "Letters":
            return cls("".join(sorted(set("".join(texts))))[:vocab_size - 1])

        @classmethod
        def load(cls, path: Path) -> "Letters":
            return cls(Path(path).read_text(encoding="utf-8"))

        def save(self, path: Path) -> None:
            Path(path).write_text(self.letters, encoding="utf-8")

        def encode(self, text: str) -> list[int]:
            return [self.letters.index(letter) + 1 for letter in text if letter in self.letters]

        def pieces(self, ids: Iterable[int]) -> list[str]:
            return ["</s>" if i == 0 else self.letters[i - 1] for i in ids]

        def decode(self, ids: Iterable[int]) -> str:
            return "".join(self.stream(ids))

        def stream(self, ids: Iterable[int], continued: bool = False) -> Iterator[str]:
            return (self.letters[i - 1] for i in ids if 0 < i <= len(self.letters))

    yield Letters
    del TOKENIZERS["letters"]


def test_a_tokenizer_of_ones_own_is_trained_with_saved_loaded_and_written_with(letters: type, tmp_path: Path):
    (tmp_path / "text.txt").write_text("\n\n".join(f"line {i}, its square {i * i}" for i in range(300)))
    config = make_config({
        "model": {"vocab_size": 60, "max_seq_len": 16, "d_model": 16, "n_layers": 1, "n_heads": 2},
        "training": {"max_steps": 3, "batch_size": 2, "eval_batches": 1},
        "data": {"train_path": str(tmp_path / "text.txt"), "tokenizer_type": "letters"}})
    make_trainer(config, tmp_path / "run", progress=False).train()
    model, again, tokenizer = load_checkpoint(tmp_path / "run")
    assert isinstance(tokenizer, letters) and again.data.tokenizer_type == "letters"
    assert set(generate_text(model, tokenizer, "line ", 5)) <= set(tokenizer.letters)
    longer = make_config({**config.model_dump(), "training": {**config.training.model_dump(), "max_steps": 4}})
    assert len(resume_trainer(tmp_path / "run", longer, progress=False).train()) == 5     # and one before the first
    with pytest.raises(UserError, match="tokenizer_type letters keeps a Letters, not a BPETokenizer"):
        save_checkpoint(tmp_path / "other", model, again, tiny_tokenizer())
    with pytest.raises(UserError, match=r"tokenizer_type 'letter' is unknown: did you mean letters\?"):
        make_config({"data": {"tokenizer_type": "letter"}})


def say(*contents: str) -> dict:
    "A conversation in which user and assistant take turns."
    return {"messages": [{"role": role, "content": content}
                         for role, content in zip(("user", "assistant") * 9, contents, strict=False)]}


def write_lines(path: Path, *lines: object) -> Path:
    "A file of JSON, a value a line."
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_conversations_of_a_file_are_read_and_held_out(tmp_path: Path):
    lines = [say(f"What is {i} plus {i}?", f"{2 * i}.", "Thanks!", "Welcome.") for i in range(40)]
    path = write_lines(tmp_path / "sums.jsonl", *lines)
    settings = DataConfig(train_path=str(path), tokenizer_type="chat", seq_length=48, val_fraction=0.25)
    data = prepare_chat(settings, 330, seed=0)
    assert (len(data.train), len(data.val)) == (30, 10)
    for i, (inputs, targets) in enumerate(data.train[i] for i in range(30)):
        assert data.tokenizer.decode(inputs).startswith(f"What is {i} plus {i}?{2 * i}.Thanks!")
        assert data.tokenizer.decode(targets[targets != IGNORE_INDEX]) == f"{2 * i}.Welcome."
    again = prepare_chat(settings, 330, seed=0)
    assert again.fingerprint() == data.fingerprint()
    write_lines(path, *lines[:-15], *lines[:15])
    assert prepare_chat(settings, 330, seed=0).fingerprint() != data.fingerprint()


@pytest.mark.parametrize("line", [7, [], {}, {"messages": 3}, {"messages": [{"role": "user"}]}, {"messages": ["hi"]},
                                  {"messages": [{"role": "tool", "content": "x"}]},
                                  {"messages": [{"role": "user", "content": 3}]}])
def test_a_line_that_is_no_conversation_is_named(tmp_path: Path, line: object):
    path = write_lines(tmp_path / "some.jsonl", say("a", "b"), line, say("c", "d"))
    with pytest.raises(UserError, match=r"some\.jsonl, line 2: .*should be different") as caught:
        read_conversations(path)
    assert "\n" not in str(caught.value)


def test_a_conversation_longer_than_a_window_keeps_its_first_answers():
    messages = [Message(role, word) for word in ("one", "two", "three", "four") for role in ("user", "assistant")]
    tokenizer = ChatTokenizer.train(["one two three four "] * 20, 290)
    full_inputs, full_targets = encode_conversation(messages, tokenizer, 10_000)
    for length in range(len(tokenizer.encode("one")) + 6, len(full_inputs)):
        inputs, targets = encode_conversation(messages, tokenizer, length)
        assert len(inputs) <= length and torch.equal(inputs, full_inputs[:len(inputs)])
        assert torch.equal(targets, full_targets[:len(inputs)])


def test_stories_count_as_often_as_their_weight_says():
    tokenizer = ChatTokenizer.train([text for _, text in microworld(100)], 1000)
    make = partial(conversation, "train", 0)
    never, always = (ChatDataset(make, 300, tokenizer, 256, weight) for weight in (0.0, 1.0))
    often = ChatDataset(make, 300, tokenizer, 256, 0.3)
    counts = [[int((data[i][1] != IGNORE_INDEX).sum()) for i in range(300)] for data in (never, often, always)]
    with_story = [i for i in range(300) if counts[0][i] < counts[2][i]]
    assert len(with_story) > 100 and all(counts[1][i] in (counts[0][i], counts[2][i]) for i in range(300))
    assert 0.2 < sum(counts[1][i] == counts[2][i] for i in with_story) / len(with_story) < 0.4
