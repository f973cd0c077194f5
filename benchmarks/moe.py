"""Time of a mixture of experts with more and more experts, at equal tokens and choices per token.

The claim is one of the layer, and so of one thread; several threads gain less where products are small.
"""

from argparse import ArgumentParser
from itertools import product
from statistics import median, quantiles

import torch
from common import interleaved, machine, n_parameters

from geminiq.models.moe import MoELayer
from geminiq.utils.device import make_generator

EXPERTS = (4, 8, 16, 32, 64)
D_MODEL, D_FF, TOP_K = 192, 512, 2   # the sizes of the preset tiny
LIMIT = 1.2                          # how much longer the most experts may take than the fewest, with
LIMITED = 8192                       # tokens in a batch
SMALL = 2048                         # as many as in a batch of tiny, where reading the experts' weights dominates


def forward(layer: MoELayer, x: torch.Tensor) -> None:
    """As in generation."""
    with torch.no_grad():
        layer(x)


def training(layer: MoELayer, x: torch.Tensor) -> None:
    """Forward and backward."""
    layer.zero_grad()
    layer(x).square().sum().backward()


def balanced(n_experts: int) -> MoELayer:
    """A layer whose router spreads random tokens about evenly."""
    layer = MoELayer(D_MODEL, n_experts, TOP_K, D_FF)
    torch.nn.init.orthogonal_(layer.router.score.weight, generator=make_generator(0))
    return layer


def main() -> None:
    """Print the tables; fail if more experts cost too much."""
    options = ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=25.0, help="for each table (default: %(default)s)")
    chosen = options.parse_args()
    print(machine())
    torch.set_num_threads(1)
    layers = [balanced(n_experts) for n_experts in EXPERTS]
    slow = []
    for n_tokens, action in product((LIMITED, SMALL), (forward, training)):
        x = torch.randn(n_tokens, D_MODEL, generator=make_generator(1))
        times = interleaved([lambda layer=layer, action=action, x=x: action(layer, x) for layer in layers], chosen.seconds)
        print(f"{action.__name__}, one thread: {n_tokens} tokens, {TOP_K} experts each, "
              f"D {D_MODEL}, F {D_FF}, {len(times)} rounds")
        print("experts  parameters  tokens/s   time / time of the fewest (middle half)")
        for i, layer in enumerate(layers):
            ratios = [taken[i] / taken[0] for taken in times]
            low, ratio, high = quantiles(ratios, n=4, method="inclusive")
            rate = n_tokens / median(taken[i] for taken in times)
            print(f"{EXPERTS[i]:7} {n_parameters(layer):11,} {rate:9,.0f}   {ratio:.2f}  ({low:.2f} to {high:.2f})", flush=True)
        if n_tokens == LIMITED and ratio > LIMIT:
            slow.append(f"{action.__name__} with {EXPERTS[-1]} experts takes {ratio:.2f} times as long as with {EXPERTS[0]}")
        print()
    if slow:
        raise SystemExit(f"{'; '.join(slow)}: at most {LIMIT} is wanted")


if __name__ == "__main__":
    main()
