"""The engine in the page computes what PyTorch does, for texts and models nobody would think of."""

import gzip
import json
import random
import shutil
import subprocess
from copy import deepcopy
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from geminiq.data.microworld import conversation
from geminiq.data.tokenizer import BPETokenizer, ChatTokenizer, train_tokenizer
from geminiq.generation.evaluation import evaluate
from geminiq.generation.generate import generate
from geminiq.generation.sampling import Sampling
from geminiq.models.attention import record_attention
from geminiq.models.transformer import Transformer
from geminiq.utils.checkpointing import load_course_model
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import UserError, make_generator
from geminiq.utils.live_parts import silenced
from geminiq.utils.web import web_file
from helpers import GREEDY, node
from test_tokenizer import LOSSLESS, foreign

STORY = "Mia went to the garden. Ben took the lamp, and then he gave it to Tom. Where is the lamp?"
WORDS = ["Mia", "lamp", "garden", "Tom", "is", "in", "the", "took", "where", "?", ".", "12", "naïve", "🙂", "▁", "  ", "\n"]
SETTINGS: list[dict[str, Any]] = [
    {"temperature": t, "topK": k, "topP": p, "minP": m}
    for t, k, p, m in product([0.3, 1, 2.5], [1, 7, 500], [0.2, 0.95, 1], [0, 0.1, 1])]


def ask(folder: Path, model: Transformer, tokenizer: BPETokenizer, **asked: list) -> dict[str, Any]:
    "What the engine makes of texts, strings, rows of tokens and logits."
    (folder / "model.gz").write_bytes(web_file(model, tokenizer, rounded=False))
    shutil.copy(Path(str(files("geminiq"))) / "explorables" / "engine.js", folder / "engine.mjs")
    shutil.copy(Path(__file__).parent / "engine.mjs", folder / "asked.mjs")
    nothing = {key: [] for key in ("texts", "strings", "rows", "logits", "settings", "without")}
    (folder / "asked.json").write_text(json.dumps(nothing | asked))
    subprocess.run([node(), folder / "asked.mjs", folder], check=True)
    return json.loads((folder / "answers.json").read_text())


@torch.no_grad()
def numbers(model: Transformer, ids: list[int]) -> torch.Tensor:
    "What PyTorch computes for a text, in the order of the engine: logits, and for each token attention and stream."
    stream: list[torch.Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, inputs: stream.append(inputs[0][0])) for block in model.blocks]
    hooks.append(model.norm.register_forward_pre_hook(lambda _, inputs: stream.append(inputs[0][0])))
    with record_attention(model) as weights:
        logits = model(torch.tensor([ids]))[0, -1]
    for hook in hooks:
        hook.remove()
    tokens = [torch.cat([*(w[0, :, t, :t + 1].flatten() for w in weights), *(x[t] for x in stream)]) for t in range(len(ids))]
    return torch.cat([logits, *tokens])


def some_texts(n: int, vocab_size: int, longest: int) -> list[list[int]]:
    "Rows of random tokens."
    rng = random.Random(0)
    return [[rng.randrange(vocab_size) for _ in range(rng.randint(1, longest))] for _ in range(n)]


def agrees(model: Transformer, tokenizer: BPETokenizer, texts: list[list[int]], folder: Path) -> None:
    "Logits, attention and stream are equal to rounding, and the greedy text is the same."
    said = ask(folder, model, tokenizer, texts=texts)
    computed, start = torch.frombuffer(bytearray((folder / "numbers").read_bytes()), dtype=torch.float32), 0
    for ids in texts:
        expected = numbers(model, ids)
        found = computed[start:start + len(expected)]
        start += len(expected)
        V = model.config.vocab_size
        assert (found[:V] - expected[:V]).abs().max() <= 1e-4 * expected[:V].abs().max()
        assert torch.allclose(found[V:], expected[V:], rtol=1e-4, atol=1e-5 * float(expected[V:].abs().max()))
    assert start == len(computed)
    for ids, written in zip(texts, said["written"], strict=True):
        length = min(40, model.config.max_seq_len - len(ids))
        expected = generate(model, torch.tensor([ids]), length, sampling=GREEDY, stop_ids=tokenizer.stop_ids)[0].tolist()
        assert written == expected[:len(written)] and (len(written) == length or written[-1] in tokenizer.stop_ids)


def test_it_computes_what_the_course_model_computes(tmp_path: Path):
    course = load_course_model()
    rng = random.Random(1)
    said = [STORY, *(" ".join(rng.choices(WORDS, k=rng.randint(0, 12))) for _ in range(199))]
    agrees(course.model, course.tokenizer,
           [course.tokenizer.apply_chat_template([{"role": "user", "content": text}]) for text in said], tmp_path)


KINDS: list[dict[str, Any]] = [
    {}, {"attention_type": "gqa", "n_kv_heads": 2}, {"n_kv_heads": 1, "attention_type": "gqa", "qk_norm": True},
    {"rope_interleaved": True, "rope_base": 500.0}, {"pos_encoding": "alibi", "n_heads": 3, "d_model": 48},
    {"pos_encoding": "none", "tie_embeddings": False}, {"attention_scale": 0.3, "norm_eps": 1e-3}, {"head_dim": 20, "d_ff": 37},
    {"attention_type": "flash", "n_layers": 1}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_computes_what_other_models_compute(kind: dict[str, Any], tmp_path: Path):
    tokenizer = train_tokenizer([STORY] * 20, 300)
    config = ModelConfig(**{"vocab_size": 300, "max_seq_len": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, **kind})
    model = Transformer(config, generator=make_generator(0))
    for p in model.parameters():
        p.data.mul_(3) if p.ndim > 1 else p.data.add_(torch.randn(p.shape, generator=make_generator(1)) / 3)
    agrees(model, tokenizer, some_texts(12, 300, 50), tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS[:6], ids=str)
def test_without_a_part_it_computes_what_pytorch_does(kind: dict[str, Any], tmp_path: Path):
    tokenizer = train_tokenizer([STORY] * 20, 300)
    model = Transformer(ModelConfig(**{"vocab_size": 300, "max_seq_len": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, **kind}))
    for p in model.parameters():
        p.mul_(3)
    texts = some_texts(5, 300, 50)
    without = [["0.attention"], ["1.attention"], ["0.feed_forward"], ["1.attention", "1.feed_forward"], ["1"],
               ["0.1", "1.feed_forward"], []]
    for parts, logits in zip(without, ask(tmp_path, model, tokenizer, texts=texts, without=without)["broken"], strict=True):
        with silenced(model, parts):
            for ids, found in zip(texts, logits, strict=True):
                expected = model(torch.tensor([ids]))[0, -1]
                assert (torch.tensor(found) - expected).abs().max() <= 1e-4 * expected.abs().max(), parts


def strange_strings(n: int) -> list[str]:
    "Strings of everything: letters of all writings, emoji, signs of control, spaces of all kinds."
    rng = random.Random(2)
    signs = [lambda: rng.choice(WORDS), lambda: chr(rng.randrange(32)), lambda: chr(rng.randrange(0x590, 0x700)),
             lambda: chr(rng.randrange(0x1f300, 0x1f650)), lambda: rng.choice("\u200d\ufe0f\u20e3\xa0\u3000\ufeff\ufffd"),
             lambda: chr(rng.randrange(0xe000)) if rng.random() < 0.9 else chr(rng.randrange(0x10000, 0x110000)),
             lambda: rng.choice("<|end|> ▁ "), lambda: " " * rng.randint(1, 4), lambda: rng.choice(STORY)]
    made = ["".join(sign() for sign in rng.choices(signs, k=rng.randint(0, 40))).encode("utf-8", "ignore").decode()
            for _ in range(n)]
    return [*made, "", STORY * 1200, "a" * 100_000, "Where " * 100 + "🙂" * 1000]


@pytest.mark.parametrize("name", ["course", "bpe"])
def test_its_tokens_are_those_of_the_tokenizer(name: str, tmp_path: Path):
    course = load_course_model()
    tokenizer = course.tokenizer if name == "course" else train_tokenizer([STORY, "naïve 日本 a  b   c"] * 20, 330)
    V = tokenizer.vocab_size
    model = course.model if name == "course" else Transformer(ModelConfig(vocab_size=V, d_model=16, n_heads=2, n_layers=1))
    strings, rows = strange_strings(5000), some_texts(1000, V, 30)
    said = ask(tmp_path, model, tokenizer, strings=strings, rows=rows)
    for text, ids in zip(strings, said["encoded"], strict=True):
        assert ids == tokenizer.encode(text), repr(text[:100])
    for ids, text in zip(rows, said["decoded"], strict=True):
        assert text == tokenizer.decode(ids), ids


def test_its_draws_are_cut_as_those_of_the_lesson(tmp_path: Path):
    tokenizer = train_tokenizer([STORY] * 20, 300)
    model = Transformer(ModelConfig(vocab_size=300, d_model=16, n_heads=2, n_layers=1))
    logits = 3 * torch.randn(300, generator=make_generator(3))
    said = ask(tmp_path, model, tokenizer, logits=logits.tolist(), settings=SETTINGS)["candidates"]
    for how, found in zip(SETTINGS, said, strict=True):
        sampling = Sampling(how["temperature"], top_k=how["topK"], top_p=how["topP"], min_p=how["minP"])
        expected = sampling.change(logits[None]).softmax(-1)[0]
        assert torch.allclose(torch.tensor(found, dtype=torch.float32), expected, atol=1e-6), how


def test_a_tokenizer_of_another_kind_is_refused():
    refused = 0
    for changes in LOSSLESS:
        tokenizer = BPETokenizer(foreign(**changes))
        model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, d_model=16, n_heads=2, n_layers=1))
        try:
            web_file(model, tokenizer)
        except UserError as error:
            refused += 1
            assert "byte-pair encoding within words" in str(error)
    assert refused >= 6


@pytest.mark.parametrize("kind", [{"norm_type": "layernorm"}, {"ffn_type": "geglu"}, {"pos_encoding": "learned"}, {"bias": True},
                                  {"attention_type": "sliding_window"}, {"use_moe": True}, {"scale_embeddings": True},
                                  {"norm_placement": "post"}, {"activation": "relu"}, {"ffn_bias": True},
                                  {"layers": ({"attention_type": "linear"}, {})}, {"final_logit_softcapping": 30.0}], ids=str)
def test_a_model_of_another_kind_is_refused(kind: dict[str, Any]):
    tokenizer = ChatTokenizer.train([STORY] * 20, 300)
    model = Transformer(ModelConfig(**{"vocab_size": 300, "d_model": 16, "n_heads": 2, "n_layers": 2, **kind}))
    with pytest.raises(UserError, match=rf"a page cannot compute (\w*{next(iter(kind)).split('_')[-1]}|\w*bias)"):
        web_file(model, tokenizer)


def test_eight_bits_are_enough(tmp_path: Path):
    course = load_course_model()
    small, file = deepcopy(course.model), load(gzip.decompress(web_file(course.model, course.tokenizer)))
    for name, weights in small.named_parameters():
        weights.data = file[name] * file[f"{name}.scale"][:, None] if f"{name}.scale" in file else file[name]
    rows = [course.tokenizer.apply_chat_template([message._asdict() for message in conversation("test", 0, number)])[:384]
            for number in range(20)]
    with torch.no_grad():
        guesses = [torch.cat([model(torch.tensor([row])).argmax(-1)[0] for row in rows]) for model in (course.model, small)]
    same = guesses[0] == guesses[1]
    assert len(same) >= 2000 and same.float().mean() >= 0.99
    right = [evaluate(model, course.tokenizer, n=400, progress=False).tables["right"]["all questions"].value
             for model in (course.model, small)]
    assert abs(right[0] - right[1]) <= 0.005
