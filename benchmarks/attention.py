"""How time and memory of efficient attention grow with the text: slopes of their logarithms over that of its length.

Each measurement runs in a process of its own, whose peak memory is that of the system's accounting, less what it
had before. Slope 1 is linear, slope 2 is quadratic. PyTorch's fused attention is the peer in the same run.
"""

import argparse
import json
import subprocess
import sys
from math import log
from statistics import median

import torch
from common import highest, machine, seconds

from geminiq.models.attention import CausalSelfAttention
from geminiq.models.efficient_attention import (
    BigBirdPattern,
    FlashAttentionSimulator,
    LinearAttention,
    SlidingWindowAttention,
    SparseAttention,
    StridedPattern,
)

D, H = 256, 4
BLOCK, PATTERNS = 64, {"sparse, bigbird": BigBirdPattern(), "sparse, strided 16": StridedPattern(stride=16)}
KINDS = {   # what is measured: how to build it, and the slopes in time and memory that it claims to keep below
    "fused, full": (lambda: CausalSelfAttention(D, H), None, None),
    "sliding window 256": (lambda: SlidingWindowAttention(D, H, window=256), 1.1, 1.1),
    "linear": (lambda: LinearAttention(D, H), 1.1, 1.1),
    "flash simulator": (lambda: Flash(), None, 1.1),
}
KINDS |= {name: (lambda pattern=pattern: SparseAttention(D, H, pattern, BLOCK), "as its blocks", 1.1)
          for name, pattern in PATTERNS.items()}


class Flash(torch.nn.Module):
    """The simulator in the place of a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return FlashAttentionSimulator(256, 256, causal=True)(*[x.unflatten(-1, (H, -1)).transpose(1, 2)] * 3)


def measure(kind: str, n: int) -> tuple[float, float]:
    """Seconds, and MB of peak memory beyond the input, for a text of n positions."""
    torch.set_num_threads(1)
    layer, x = KINDS[kind][0](), torch.randn(1, n, D)
    with torch.no_grad():
        layer(x[:, :64])   # what is loaded once is not counted
        before = highest()
        took = [seconds(lambda: layer(x))]
        peak = highest() - before
        while len(took) < 3 and sum(took) < 10:
            took.append(seconds(lambda: layer(x)))
    return median(took), peak / 1024


def in_a_process(kind: str, n: int) -> tuple[float, float]:
    """`measure` in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--one", kind, str(n)], check=True, capture_output=True, text=True)
    return tuple(json.loads(done.stdout))


def slope(lengths: list[int], values: list[float]) -> float:
    """The slope of the straight line through the points on logarithmic scales (least squares)."""
    x, y = [log(n) for n in lengths], [log(max(value, 1e-9)) for value in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def main() -> int:
    """Print a table, and say which claims do not hold; 1 if any does not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longest", type=int, default=32768, help="positions (default: %(default)s)")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "N"), help="one measurement, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return 0
    print(machine())
    lengths = [n for n in (1024, 2048, 4096, 8192, 16384, 32768) if n <= arguments.longest]
    print(f"{'':20}" + "".join(f"{n:>16}" for n in lengths) + "   slope: time  memory   claimed         upper half: time  memory")
    broken = []
    upper = slice(len(lengths) // 2, None)   # at the short end what is constant flatters
    for kind, (_, time_limit, memory_limit) in KINDS.items():
        if kind in PATTERNS:   # a tenth more than the slope of the number of blocks that it computes
            blocks = [sum(len(PATTERNS[kind].row(i)) for i in range(n // BLOCK)) for n in lengths]
            time_limit = slope(lengths, blocks) + 0.1
        times, sizes = zip(*(in_a_process(kind, n) for n in lengths), strict=True)
        cells = "".join(f"{1000 * t:9.1f}ms{m:4.0f}MB" for t, m in zip(times, sizes, strict=True))
        found, late = ((slope(lengths[part], times[part]), slope(lengths[part], sizes[part])) for part in (slice(None), upper))
        wrong = [name for name, value, limit in zip(("time", "memory"), found, (time_limit, memory_limit), strict=True)
                 if limit and value > limit]
        claims = "".join(f"{'–' if limit is None else f'≤ {limit:.2f}':>8}" for limit in (time_limit, memory_limit))
        above = "".join(f"  {name} ABOVE" for name in wrong)
        print(f"{kind:20}{cells}   {found[0]:11.2f}{found[1]:8.2f}{claims}   {late[0]:10.2f}{late[1]:8.2f}{above}", flush=True)
        broken += wrong
    print("\nA sparse pattern may take as much time as the number of blocks it computes predicts, and a tenth more in slope.")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
