"""Time of an optimizer's step: AdamW, Muon, and the Muon of PyTorch, which orthogonalizes in bfloat16.

Muon's products do not depend on the batch, so what they add to a step of training is less for larger batches.
"""

import torch
from common import SIZES, Size, compare, interleaved, machine, parser
from torch import nn

from geminiq.models.transformer import Transformer
from geminiq.training.losses import cross_entropy_loss
from geminiq.training.optimizer import Muon, configure_muon, configure_optimizer, hidden_matrices
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import make_generator


def model_of(size: Size) -> Transformer:
    """The model of geminiq of that size, with random gradients."""
    model = Transformer(ModelConfig(vocab_size=size.vocab_size, max_seq_len=size.max_seq_len, d_model=size.d_model,
                                    n_layers=size.n_layers, n_heads=size.n_heads))
    generator = make_generator(0)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator) * 0.01
    return model


def backward(model: nn.Module, size: Size) -> None:
    """Forward and backward pass of a batch, without a step."""
    tokens = torch.randint(size.vocab_size, (size.batch, size.max_seq_len + 1), generator=make_generator(0))
    cross_entropy_loss(model(tokens[:, :-1]), tokens[:, 1:].contiguous()).backward()


def main() -> None:
    """Print the table."""
    chosen = parser(__doc__.splitlines()[0], budget=12.0).parse_args()
    torch.set_num_threads(1)
    print(machine())
    print("One thread; time of Muon's step / time of the other (middle half)\n")
    print("size   what                                             other ms  Muon ms  ratio")
    for name in [chosen.size] if chosen.size else SIZES:
        size, model = SIZES[name], model_of(SIZES[name])
        ours, hidden = configure_muon(model, 1e-6, 1e-6), hidden_matrices(model)
        alone = Muon(hidden, lr=1e-6)
        pairs = [("step of all weights, AdamW", ours.step, configure_optimizer(model, 1e-6).step),
                 ("step of hidden matrices, Muon of PyTorch", alone.step, torch.optim.Muon(hidden, lr=1e-6).step),
                 (f"forward and backward of {size.batch}×{size.max_seq_len} tokens", ours.step,
                  lambda model=model, size=size: backward(model, size))]
        for what, muon, other in pairs:
            c = compare(interleaved([other, muon], chosen.seconds))   # how many times as fast the other is
            print(f"{name:6} {what:48} {1e3 * c.ours:8.1f} {1e3 * c.peer:8.1f}  {c.ratio:5.2f}  "
                  f"({c.low:.2f} to {c.high:.2f})", flush=True)


if __name__ == "__main__":
    main()
