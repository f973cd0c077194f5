"""Speed of greedy generation against transformers, both with a cache, and what the cache of geminiq gains."""

import torch
from common import PAIRS, SIZES, Size, compare, interleaved, machine, parser, seconds
from torch import Tensor
from transformers import PreTrainedModel

from geminiq.generation.generate import generate
from geminiq.generation.sampling import Sampling
from geminiq.models.transformer import Transformer
from geminiq.utils.device import make_generator

N_PROMPT, N_NEW = 32, 96


def write(model: Transformer, prompt: Tensor, use_cache: bool = True) -> Tensor:   # (B, N_NEW)
    """The new tokens of geminiq."""
    return generate(model, prompt, N_NEW, sampling=Sampling(temperature=0), use_cache=use_cache)


def peer_write(model: PreTrainedModel, prompt: Tensor) -> Tensor:   # (B, N_NEW)
    """The new tokens of transformers; its models here have no token that ends a text."""
    tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                            max_new_tokens=N_NEW, pad_token_id=0, use_cache=True)
    return tokens[:, N_PROMPT:]


def row(architecture: str, size: Size, batch: int, budget: float) -> str:
    """Measure one pair of models; one line of the table."""
    ours, peer = PAIRS[architecture](size)
    peer.eval()
    prompt = torch.randint(1, size.vocab_size, (batch, N_PROMPT), generator=make_generator(0))
    assert write(ours, prompt).shape == peer_write(peer, prompt).shape == (batch, N_NEW)
    result = compare(interleaved([lambda: write(ours, prompt), lambda: peer_write(peer, prompt)], budget))
    cached, uncached = (seconds(lambda kept=kept: write(ours, prompt, kept)) for kept in (True, False))
    n_tokens = batch * N_NEW
    return (f"{batch:5} {n_tokens / result.ours:10,.0f} {n_tokens / result.peer:12,.0f} {result.ratio:7.2f}  "
            f"{result.low:.2f} to {result.high:.2f} {uncached / cached:14.1f}")


def main() -> None:
    """Print the table."""
    chosen = parser(__doc__, budget=4.0).parse_args()
    print(machine())
    print(f"Generated tokens per second, {N_NEW} after a prompt of {N_PROMPT}, float32; "
          f"ratio above 1: geminiq is faster\n")
    print("size  model batch    geminiq transformers   ratio  middle half  cache against none")
    for name in [chosen.size] if chosen.size else SIZES:
        for architecture in PAIRS:
            for batch in (1, 8):
                line = row(architecture, SIZES[name], batch, chosen.seconds)
                print(f"{name:5} {architecture} {line}", flush=True)


if __name__ == "__main__":
    main()
