"""Time of a mixture of experts with more and more experts, at equal tokens and choices per token.

The weights of all experts are read from memory, however few tokens each of them has. The claim is judged with 512
tokens for each of the most experts, where products take the time; the last table shows what smaller batches cost.
"""

from argparse import ArgumentParser
from collections.abc import Callable
from itertools import product

import torch
from common import compare, interleaved, machine, n_parameters
from torch import nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from geminiq.models.moe import MoELayer
from geminiq.utils.device import make_generator

EXPERTS = (4, 8, 16, 32, 64)
D_MODEL, D_FF, TOP_K = 192, 512, 2   # the sizes of the preset tiny
LIMIT = 1.2                          # how much longer the most experts may take than the fewest, with
LIMITED = 16384                      # tokens in a batch
SMALLER = (2048, 4096, 8192)         # the first is a batch of tiny


def forward(layer: nn.Module, x: torch.Tensor) -> None:
    """As in generation."""
    with torch.no_grad():
        layer(x)


def training(layer: nn.Module, x: torch.Tensor) -> None:
    """Forward and backward."""
    layer.zero_grad()
    layer(x).square().sum().backward()


def balanced(num_experts: int) -> MoELayer:
    """A layer whose router spreads random tokens about evenly."""
    layer = MoELayer(D_MODEL, num_experts, TOP_K, D_FF)
    nn.init.orthogonal_(layer.router.gate.weight, generator=make_generator(0))
    return layer


def peer(layer: MoELayer, how: str) -> MixtralSparseMoeBlock:
    """The layer of Mixtral in transformers with as many experts, which computes them `how`; the same router."""
    config = MixtralConfig(hidden_size=D_MODEL, intermediate_size=D_FF, num_local_experts=len(layer.experts),
                           num_experts_per_tok=TOP_K, experts_implementation=how)
    made = MixtralSparseMoeBlock(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.02, generator=make_generator(2))
    made.gate.weight.data.copy_(layer.router.gate.weight.data)
    return made


def against_transformers(layer: MoELayer, seconds: float) -> None:
    """Print how many times as fast the layer is, in each way that transformers computes experts."""
    x = torch.randn(LIMITED, D_MODEL, generator=make_generator(1))
    print(f"{len(layer.experts)} experts against Mixtral's layer in transformers, {LIMITED} tokens")
    print("transformers  action    ours ms  peer ms   times as fast (middle half)")
    for how, action in product(("eager", "grouped_mm"), (forward, training)):
        other = peer(layer, how)
        pair = [lambda action=action: action(layer, x), lambda action=action, other=other: action(other, x[None])]
        c = compare(interleaved(pair, seconds))
        print(f"{how:12}  {action.__name__:8} {1e3 * c.ours:8.1f} {1e3 * c.peer:8.1f}   "
              f"{c.ratio:.2f}  ({c.low:.2f} to {c.high:.2f})", flush=True)


def timed(layers: list[MoELayer], action: Callable, n_tokens: int, budget: float) -> list[list[float]]:
    """Time the action on all layers in turn, on random tokens."""
    x = torch.randn(n_tokens, D_MODEL, generator=make_generator(1))
    return interleaved([lambda layer=layer: action(layer, x) for layer in layers], budget)


def main() -> None:
    """Print the tables; fail if more experts cost too much."""
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=25.0, help="for each action (default: %(default)s)")
    chosen = options.parse_args()
    print(machine())
    layers = [balanced(num_experts) for num_experts in EXPERTS]
    slow = []
    for action in (forward, training):
        times = timed(layers, action, LIMITED, chosen.seconds)
        print(f"{action.__name__}: {LIMITED} tokens, {TOP_K} experts each, D {D_MODEL}, F {D_FF}, {len(times)} rounds")
        print("experts  parameters  tokens/expert  tokens/s   time / time of the fewest (middle half)")
        for i, layer in enumerate(layers):
            c = compare([[taken[0], taken[i]] for taken in times])   # the fewest as ours, these as the peer
            print(f"{EXPERTS[i]:7} {n_parameters(layer):11,} {TOP_K * LIMITED // EXPERTS[i]:14,} {LIMITED / c.peer:9,.0f}   "
                  f"{c.ratio:.2f}  ({c.low:.2f} to {c.high:.2f})", flush=True)
        if c.ratio > LIMIT:
            slow.append(f"{action.__name__} with {EXPERTS[-1]} experts takes {c.ratio:.2f} times as long as with {EXPERTS[0]}")
        print()
    print(f"{EXPERTS[-1]} experts in smaller batches")
    print(f"tokens  tokens/expert  action     time / time of {EXPERTS[0]} experts (middle half)")
    for n_tokens, action in product(SMALLER, (forward, training)):
        c = compare(timed([layers[0], layers[-1]], action, n_tokens, chosen.seconds / 5))
        print(f"{n_tokens:6} {TOP_K * n_tokens // EXPERTS[-1]:14,}  {action.__name__:8}   "
              f"{c.ratio:.2f}  ({c.low:.2f} to {c.high:.2f})", flush=True)
    print()
    against_transformers(layers[-1], chosen.seconds / 5)
    if slow:
        raise SystemExit(f"{'; '.join(slow)}: at most {LIMIT} is wanted")


if __name__ == "__main__":
    main()
