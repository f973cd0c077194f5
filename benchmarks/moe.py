"""Time of a mixture of experts with more and more experts, at equal tokens and choices per token.

The weights of all experts are read from memory, however few tokens each of them has: the claim is judged where
products take the time, and the second batch shows where reading does.
"""

from argparse import ArgumentParser
from itertools import product
from statistics import median, quantiles

import torch
from common import Comparison, compare, interleaved, machine, n_parameters
from torch import nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from geminiq.models.moe import MoELayer
from geminiq.utils.device import make_generator

EXPERTS = (4, 8, 16, 32, 64)
D_MODEL, D_FF, TOP_K = 192, 512, 2   # the sizes of the preset tiny
LIMIT = 1.2                          # how much longer the most experts may take than the fewest, with
LIMITED = 8192                       # tokens in a batch
SMALL = 2048                         # as many as in a batch of tiny


def forward(layer: nn.Module, x: torch.Tensor) -> None:
    """As in generation."""
    with torch.no_grad():
        layer(x)


def training(layer: nn.Module, x: torch.Tensor) -> None:
    """Forward and backward."""
    layer.zero_grad()
    layer(x).square().sum().backward()


def balanced(n_experts: int) -> MoELayer:
    """A layer whose router spreads random tokens about evenly."""
    layer = MoELayer(D_MODEL, n_experts, TOP_K, D_FF)
    nn.init.orthogonal_(layer.router.score.weight, generator=make_generator(0))
    return layer


def peer(layer: MoELayer, how: str) -> MixtralSparseMoeBlock:
    """The layer of Mixtral in transformers with as many experts, which computes them `how`; the same router."""
    config = MixtralConfig(hidden_size=D_MODEL, intermediate_size=D_FF, num_local_experts=len(layer.experts),
                           num_experts_per_tok=TOP_K, experts_implementation=how)
    made = MixtralSparseMoeBlock(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.02, generator=make_generator(2))
    made.gate.weight.data.copy_(layer.router.score.weight.data)
    return made


def against_transformers(layer: MoELayer, seconds: float) -> None:
    """Print how many times as fast the layer is, in each way that transformers computes experts."""
    x = torch.randn(LIMITED, D_MODEL, generator=make_generator(1))
    print(f"{len(layer.experts)} experts against Mixtral's layer in transformers, {LIMITED} tokens")
    print("transformers  action    ours ms  peer ms   times as fast (middle half)")
    for how, action in product(("eager", "grouped_mm"), (forward, training)):
        other = peer(layer, how)
        pair = [lambda action=action: action(layer, x), lambda action=action, other=other: action(other, x[None])]
        c: Comparison = compare(interleaved(pair, seconds))
        print(f"{how:12}  {action.__name__:8} {1e3 * c.ours:8.1f} {1e3 * c.peer:8.1f}   "
              f"{c.ratio:.2f}  ({c.low:.2f} to {c.high:.2f})", flush=True)


def main() -> None:
    """Print the tables; fail if more experts cost too much."""
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=20.0, help="for each table (default: %(default)s)")
    chosen = options.parse_args()
    print(machine())
    layers = [balanced(n_experts) for n_experts in EXPERTS]
    slow = []
    for n_tokens, action in product((LIMITED, SMALL), (forward, training)):
        x = torch.randn(n_tokens, D_MODEL, generator=make_generator(1))
        times = interleaved([lambda layer=layer, action=action, x=x: action(layer, x) for layer in layers], chosen.seconds)
        print(f"{action.__name__}: {n_tokens} tokens, {TOP_K} experts each, "
              f"D {D_MODEL}, F {D_FF}, {len(times)} rounds")
        print("experts  parameters  tokens/expert  tokens/s   time / time of the fewest (middle half)")
        for i, layer in enumerate(layers):
            ratios = [taken[i] / taken[0] for taken in times]
            low, ratio, high = quantiles(ratios, n=4, method="inclusive")
            rate = n_tokens / median(taken[i] for taken in times)
            print(f"{EXPERTS[i]:7} {n_parameters(layer):11,} {TOP_K * n_tokens // EXPERTS[i]:14,} {rate:9,.0f}   "
                  f"{ratio:.2f}  ({low:.2f} to {high:.2f})", flush=True)
        if n_tokens == LIMITED and ratio > LIMIT:
            slow.append(f"{action.__name__} with {EXPERTS[-1]} experts takes {ratio:.2f} times as long as with {EXPERTS[0]}")
        print()
    against_transformers(layers[-1], chosen.seconds / 4)
    if slow:
        raise SystemExit(f"{'; '.join(slow)}: at most {LIMIT} is wanted")


if __name__ == "__main__":
    main()
