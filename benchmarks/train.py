"""Speed of training against transformers: forward, loss, backward, clipping and AdamW on the same batch."""

import torch
from common import PAIRS, SIZES, Size, compare, interleaved, machine, n_parameters, parser
from torch import Tensor, nn

from geminiq.training.losses import cross_entropy_loss
from geminiq.training.optimizer import configure_optimizer
from geminiq.utils.device import make_generator


class Training:
    """A model with its optimizer; the same code for both sides, only `logits` differs."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        self.model, self.dtype = model.train(), dtype
        self.optimizer = configure_optimizer(model, learning_rate=1e-3)

    def logits(self, tokens: Tensor) -> Tensor:
        """What the model predicts."""
        return self.model(tokens)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """One update of the weights."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            logits = self.logits(inputs)
        cross_entropy_loss(logits, targets).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class PeerTraining(Training):
    """The same for a model of transformers."""

    def logits(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits


def row(architecture: str, size: Size, batch: int, dtype: torch.dtype, budget: float) -> str:
    """Measure one pair of models; one line of the table."""
    ours, peer = PAIRS[architecture](size)
    tokens = torch.randint(size.vocab_size, (batch, size.max_seq_len + 1), generator=make_generator(0))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].contiguous()
    sides = [Training(ours, dtype), PeerTraining(peer, dtype)]
    result = compare(interleaved([lambda side=side: side.step(inputs, targets) for side in sides], budget))
    n_tokens = inputs.numel()
    return (f"{batch:2}×{size.max_seq_len} {str(dtype).removeprefix('torch.'):9} "
            f"{n_parameters(ours):11,} {n_parameters(peer):11,} {n_tokens / result.ours:10,.0f} "
            f"{n_tokens / result.peer:12,.0f} {result.ratio:7.2f}  {result.low:.2f} to {result.high:.2f}")


def main() -> None:
    """Print the table."""
    options = parser(__doc__, budget=12.0)
    options.add_argument("--batch", type=int, help="texts in a batch (default: 16 tiny, 4 small)")
    chosen = options.parse_args()
    print(machine())
    print("Training tokens per second; ratio above 1: geminiq is faster\n")
    print("size  model batch  dtype      parameters  their own    geminiq transformers   ratio  middle half")
    for name in [chosen.size] if chosen.size else SIZES:
        for architecture in PAIRS:
            for dtype in (torch.float32, torch.bfloat16):
                size = SIZES[name]
                line = row(architecture, size, chosen.batch or size.batch, dtype, chosen.seconds)
                print(f"{name:5} {architecture} {line}", flush=True)


if __name__ == "__main__":
    main()
