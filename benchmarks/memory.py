"""Peak memory of a training step, and what buys less of it with how much time: the loss in pieces, activations computed again.

Each measurement runs in a process of its own; what the process and the model with its gradients hold is taken off, so that
what is left is what a step needs for a while. transformers, with the same shape, is the peer.
"""

import json
import subprocess
import sys
from statistics import median

import torch
from common import SIZES, highest, llama, machine, seconds
from torch.nn import functional as F

from geminiq.training.losses import Objective
from geminiq.utils.device import make_generator

SIZE = SIZES["small"]._replace(max_seq_len=256, batch=8)
WAYS = {   # vocab_chunk, gradient_checkpointing
    "transformers": None, "geminiq": (None, False), "loss in pieces": (2048, False), "activations again": (None, True),
    "both": (2048, True),
}


def measure(way: str) -> tuple[float, float]:
    """MB that a step needs for a while, and its seconds."""
    torch.set_num_threads(1)
    ours, peer = llama(SIZE)
    windows = torch.randint(SIZE.vocab_size, (SIZE.batch, SIZE.max_seq_len + 1), generator=make_generator(0))
    inputs, targets = windows[:, :-1], windows[:, 1:].contiguous()
    if way == "transformers":
        model = peer.train()
    else:
        vocab_chunk, ours.gradient_checkpointing = WAYS[way]
        model = Objective(ours.train(), vocab_chunk=vocab_chunk)

    def step(inputs: torch.Tensor, targets: torch.Tensor) -> None:
        if way == "transformers":
            logits = model(input_ids=inputs, use_cache=False).logits
            F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").backward()
        else:
            model(inputs, targets).backward()

    step(inputs[:1, :8], targets[:1, :8])   # the gradients have their memory
    before = highest()
    first = seconds(lambda: step(inputs, targets))
    peak = (highest() - before) / 1024
    return peak, median([first, *(seconds(lambda: step(inputs, targets)) for _ in range(2))])


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    print(machine())
    print(f"LLaMA with a vocabulary of {SIZE.vocab_size:,}, D {SIZE.d_model}, L {SIZE.n_layers}; {SIZE.batch} texts of "
          f"{SIZE.max_seq_len} tokens, float32\n")
    print(f"{'':20}{'peak MB':>9}{'of transformers':>17}{'seconds':>9}{'of transformers':>17}")
    rows = {}
    for way in WAYS:
        done = subprocess.run([sys.executable, __file__, way], check=True, capture_output=True, text=True)
        rows[way] = json.loads(done.stdout)
        (peak, took), (peer_peak, peer_took) = rows[way], rows["transformers"]
        print(f"{way:20}{peak:9.0f}{peak / peer_peak:17.2f}{took:9.1f}{took / peer_took:17.2f}", flush=True)


if __name__ == "__main__":
    main()
