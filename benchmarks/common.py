"""What the benchmarks share: the machine, two models of one shape, and timing them in turn."""

import os
import platform
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")   # the peers are built in memory

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from geminiq.models.transformer import Transformer
from geminiq.utils.config import ModelConfig


class Size(NamedTuple):
    """How large a model is, and the batch it is trained with."""
    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int   # of the LLaMA
    batch: int


SIZES = {"tiny": Size(2048, 128, 192, 4, 6, 2, 16),    # the preset of that name
         "small": Size(32000, 128, 384, 7, 6, 2, 4)}   # the preset of that name, with shorter texts


def gpt2(size: Size) -> tuple[Transformer, PreTrainedModel]:
    """GPT-2 in geminiq and in transformers."""
    config = ModelConfig(vocab_size=size.vocab_size, max_seq_len=size.max_seq_len, d_model=size.d_model,
                         n_layers=size.n_layers, n_heads=size.n_heads, norm_type="layernorm", norm_eps=1e-5,
                         ffn_type="standard", activation="gelu_tanh", pos_encoding="learned", bias=True,
                         tie_embeddings=True)
    peer = GPT2Config(vocab_size=size.vocab_size, n_positions=size.max_seq_len, n_embd=size.d_model,
                      n_layer=size.n_layers, n_head=size.n_heads, n_inner=config.d_ff,
                      activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                      bos_token_id=None, eos_token_id=None, attn_implementation="sdpa")
    return Transformer(config), GPT2LMHeadModel(peer)


def llama(size: Size) -> tuple[Transformer, PreTrainedModel]:
    """LLaMA in geminiq and in transformers."""
    config = ModelConfig(vocab_size=size.vocab_size, max_seq_len=size.max_seq_len, d_model=size.d_model,
                         n_layers=size.n_layers, n_heads=size.n_heads, attention_type="gqa",
                         n_kv_heads=size.n_kv_heads, tie_embeddings=False)
    peer = LlamaConfig(vocab_size=size.vocab_size, max_position_embeddings=size.max_seq_len,
                       hidden_size=size.d_model, intermediate_size=config.d_ff,
                       num_hidden_layers=size.n_layers, num_attention_heads=size.n_heads,
                       num_key_value_heads=size.n_kv_heads, tie_word_embeddings=False,
                       bos_token_id=None, eos_token_id=None, attn_implementation="sdpa")
    return Transformer(config), LlamaForCausalLM(peer)


PAIRS = {"GPT-2": gpt2, "LLaMA": llama}


def n_parameters(model: torch.nn.Module) -> int:
    """How many numbers are learned; a tied table counts once."""
    return sum(p.numel() for p in model.parameters())


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interleaved(actions: list[Callable[[], object]],
                budget: float,       # seconds for all of them together
                rounds: int = 3,     # at least
                ) -> list[list[float]]:   # for each round, the seconds of each action
    """Time actions in turn, A B B A A B …, so that a slow moment of the machine meets all of them."""
    for action in actions:
        action()   # the first call pays for allocations
    times: list[list[float]] = []
    start = time.perf_counter()
    while len(times) < rounds or time.perf_counter() - start < budget:
        order = list(range(len(actions)))[:: -1 if len(times) % 2 else 1]
        taken = {i: seconds(actions[i]) for i in order}
        times.append([taken[i] for i in range(len(actions))])
    return times


class Comparison(NamedTuple):
    """What two interleaved actions took."""
    ours: float     # median seconds
    peer: float     # median seconds
    ratio: float    # how many times as fast ours is: the median over the rounds
    low: float      # a quarter of the rounds lie below
    high: float     # a quarter of the rounds lie above


def compare(times: list[list[float]]) -> Comparison:
    """Medians of two actions, and of the ratio within each round."""
    ours, peer = zip(*times, strict=True)
    ratios = [b / a for a, b in times]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return Comparison(median(ours), median(peer), median(ratios), low, high)


def parser(description: str, budget: float) -> ArgumentParser:
    """The options all benchmarks of models have."""
    made = ArgumentParser(description=description)
    made.add_argument("--size", choices=SIZES, help="only models of this size (default: all)")
    made.add_argument("--seconds", type=float, default=budget, help="for each row (default: %(default)s)")
    return made


def highest() -> int:
    """The most memory that this process has had, in KiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def cpu_name() -> str:
    """The processor, as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def matmul_rate(dtype: torch.dtype, size: int = 1024) -> float:   # billions of operations a second
    """The speed of square matrix products."""
    a, b = torch.randn(2, size, size).to(dtype)
    times = interleaved([lambda: a @ b], budget=0.5)
    return 2 * size**3 / median(taken for taken, in times) / 1e9


def copy_rate(size: int = 2**28) -> float:   # billions of bytes a second, read and written
    """The speed of memory: copying what no cache holds."""
    a, b = torch.ones(2, size, dtype=torch.uint8)
    times = interleaved([lambda: b.copy_(a)], budget=0.5)
    return 2 * size / median(taken for taken, in times) / 1e9


def machine() -> str:
    """What the figures below were measured on; nothing where that has been said already."""
    if "GEMINIQ_MACHINE_SAID" in os.environ:
        return ""
    rates = ", ".join(f"{matmul_rate(dtype):.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}"
                      for dtype in (torch.float32, torch.bfloat16))
    return (f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}\nmatrix products: {rates}; memory: {copy_rate():.1f} GB/s copied\n")
