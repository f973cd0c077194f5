"""The loss in pieces: equal to the plain one wherever it may be used, and small where the plain one is large."""

import subprocess
import sys
from math import log
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import get_scheduler

from geminiq.data.dataset import IGNORE_INDEX
from geminiq.training.losses import chunked_cross_entropy_loss, cross_entropy_loss, focal_loss
from geminiq.training.optimizer import SCHEDULES, configure_optimizer
from geminiq.utils.device import UserError, make_generator
from helpers import PEAK_MEMORY


def example(n: int, d_model: int, vocab: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    "Features, the head's weights, and targets of which about a quarter does not count."
    generator = make_generator(seed)
    features = torch.randn(n, d_model, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(vocab, d_model, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(vocab, (n,), generator=generator)
    targets[torch.rand(n, generator=generator) < 0.25] = IGNORE_INDEX
    return features, weight, targets


@settings(deadline=None)
@given(n=st.integers(1, 9), d_model=st.integers(1, 5), vocab=st.integers(1, 12), chunk=st.integers(1, 15),
       smoothing=st.sampled_from([0.0, 0.1, 0.9]), reduction=st.sampled_from(["mean", "sum"]), seed=st.integers(0, 99))
def test_equals_the_loss_of_all_logits(n: int, d_model: int, vocab: int, chunk: int, smoothing: float, reduction: str,
                                       seed: int) -> None:
    features, weight, targets = example(n, d_model, vocab, seed)
    whole = cross_entropy_loss(features @ weight.T, targets, reduction, smoothing)
    pieces = chunked_cross_entropy_loss(features, weight, targets, reduction, chunk, smoothing)
    assert_close(pieces, whole, atol=1e-12, rtol=1e-12)
    scaled = [torch.autograd.grad(3 * loss, (features, weight), retain_graph=True) for loss in (pieces, whole)]
    assert_close(*scaled, atol=1e-12, rtol=1e-12)


def test_equals_pytorch_with_smoothing_and_targets_that_do_not_count() -> None:
    features, weight, targets = example(40, 6, 30)
    theirs = F.cross_entropy(features @ weight.T, targets, ignore_index=IGNORE_INDEX, label_smoothing=0.2)
    for ours in (cross_entropy_loss(features @ weight.T, targets, label_smoothing=0.2),
                 chunked_cross_entropy_loss(features, weight, targets, chunk=7, label_smoothing=0.2)):
        assert_close(ours, theirs, atol=1e-14, rtol=1e-14)


def test_the_derivative_is_that_of_the_loss() -> None:
    "By finite differences, of PyTorch's own check."
    features, weight, targets = example(5, 3, 8)
    assert torch.autograd.gradcheck(lambda x, w: chunked_cross_entropy_loss(x, w, targets, chunk=3, label_smoothing=0.1),
                                    (features, weight))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_under_autocast_products_have_16_bits_and_sums_32(smoothing: float) -> None:
    "The value is that of the rounded logits; the gradients are as near to the true ones as the plain loss's."
    features, weight, targets = example(64, 32, 500)
    true = torch.autograd.grad(cross_entropy_loss(features @ weight.T, targets, "mean", smoothing), (features, weight))
    x, w = (tensor.detach().float().requires_grad_() for tensor in (features, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pieces = chunked_cross_entropy_loss(x, w, targets, "mean", 77, smoothing)
        whole = cross_entropy_loss(F.linear(x, w), targets, "mean", smoothing)
    assert pieces.dtype == torch.float32
    assert_close(pieces, whole, rtol=1e-6, atol=0)
    full = chunked_cross_entropy_loss(x, w, targets, "mean", 77, smoothing)
    assert 1e-7 < abs(full - pieces) / full < 1e-2                         # it did multiply in 16 bits
    ours, theirs = (torch.autograd.grad(loss, (x, w)) for loss in (pieces, whole))
    for mine, plain, exact in zip(ours, theirs, true, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - exact).norm() < 1.2 * (plain - exact).norm()


def test_float64_stays_so_under_autocast() -> None:
    features, weight, targets = example(5, 3, 8)
    expected = chunked_cross_entropy_loss(features, weight, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(chunked_cross_entropy_loss(features, weight, targets), expected)


PEAK = PEAK_MEMORY + """
import sys, torch
from geminiq.training.losses import chunked_cross_entropy_loss, cross_entropy_loss
n, D, V = 2048, 64, 32000
x, w = torch.randn(n, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
y = torch.arange(n)
small = slice(0, 8)
for loss in (cross_entropy_loss(x[small] @ w.T, y[small]), chunked_cross_entropy_loss(x[small], w, y[small])):
    loss.backward()        # what the first call needs once and for all does not count
ballast = torch.ones(100_000_000)   # what is held now is the most so far
before = peak_memory()
loss = chunked_cross_entropy_loss(x, w, y, chunk=1024) if sys.argv[1] == "pieces" else cross_entropy_loss(x @ w.T, y)
loss.backward()
print(peak_memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory a process has had at most")
def test_a_tenth_of_the_memory_at_a_vocabulary_of_32000() -> None:
    "The most that was held at once, in processes of their own: forward and backward of 2048 positions."
    def peak(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", PEAK, how], check=True, capture_output=True, text=True).stdout)

    # On a busy machine the two threads may hold pieces for each other a while: what is needed is the least of three.
    peaks = {"pieces": min(peak("pieces") for _ in range(3)), "whole": peak("whole")}
    print(f"peak memory with all logits is {peaks['whole'] / peaks['pieces']:.1f} times that of pieces of 1024")
    assert peaks["pieces"] < 0.1 * peaks["whole"], peaks


def losses(reduction: str, features: Tensor, weight: Tensor, targets: Tensor) -> dict[str, Tensor]:
    "All kinds of losses of an example."
    logits = features @ weight.T
    return {"plain": cross_entropy_loss(logits, targets, reduction),
            "smoothed": cross_entropy_loss(logits, targets, reduction, 0.1),
            "focal": focal_loss(logits, targets, reduction=reduction),
            "pieces": chunked_cross_entropy_loss(features, weight, targets, reduction, 7, 0.1)}


@pytest.mark.parametrize("shape", [(40,), (5, 8)])
def test_none_gives_one_loss_for_each_target(shape: tuple) -> None:
    "Of the shape of the targets, with 0 where nothing is asked; sum and mean are theirs, and any other sum has its gradient."
    features, weight, targets = example(40, 6, 30)
    targets, x = targets.view(shape), features.view(*shape, 6)
    none, total, mean = (losses(reduction, x, weight, targets) for reduction in ("none", "sum", "mean"))
    for kind, each in none.items():
        assert each.shape == targets.shape and not each[targets == IGNORE_INDEX].any()
        assert_close(each.sum(), total[kind])
        assert_close(each[targets != IGNORE_INDEX].mean(), mean[kind])
        by_target = [torch.autograd.grad(loss, (features, weight), retain_graph=True)
                     for loss in ((each * targets).sum(), sum(each.flatten()[i] * y for i, y in enumerate(targets.flatten())))]
        assert_close(*by_target)
    assert_close(none["smoothed"], none["pieces"])
    theirs = F.cross_entropy((x @ weight.T).flatten(0, -2), targets.flatten(), reduction="none")
    assert_close(none["plain"].flatten(), theirs)


@pytest.mark.parametrize("reduction", ["avg", "None", "batchmean", "", None])
def test_another_reduction_is_refused(reduction: str) -> None:
    features, weight, targets = example(4, 3, 5)
    for loss in (lambda: cross_entropy_loss(features @ weight.T, targets, reduction),
                 lambda: focal_loss(features @ weight.T, targets, reduction=reduction),
                 lambda: chunked_cross_entropy_loss(features, weight, targets, reduction)):
        with pytest.raises(UserError, match=f"reduction {reduction!r} is unknown: it is mean, sum or none"):
            loss()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_tokens_count_as_in_pytorch(reduction: str, smoothing: float) -> None:
    features, weight, targets = example(40, 6, 30)
    logits, counts = features @ weight.T, torch.linspace(0, 0.01, 30, dtype=torch.float64)
    theirs = F.cross_entropy(logits, targets, counts, reduction=reduction, label_smoothing=smoothing)
    assert_close(cross_entropy_loss(logits, targets, reduction, smoothing, counts), theirs, atol=1e-14, rtol=1e-12)
    by_token = focal_loss(logits, targets, 1.5, "none", alpha=counts)
    assert_close(by_token, focal_loss(logits, targets, 1.5, "none") * counts[targets.clamp(min=0)])
    plain, quarter = (focal_loss(logits, targets, reduction=reduction, alpha=alpha) for alpha in (1.0, 0.25))
    assert_close(quarter, 0.25 * plain)


def test_nothing_asked_costs_nothing() -> None:
    logits, nothing = torch.randn(3, 5, generator=make_generator(0)), torch.full((3,), IGNORE_INDEX)
    assert cross_entropy_loss(logits, nothing) == focal_loss(logits, nothing) == 0
    assert cross_entropy_loss(logits, nothing, weight=torch.ones(5)) == 0
    assert chunked_cross_entropy_loss(logits, torch.ones(7, 5), nothing) == 0


def test_the_optimizer_takes_its_epsilon() -> None:
    layer = torch.nn.Linear(1, 1)
    for how, eps in (({}, 1e-8), ({"eps": 1e-3}, 1e-3)):
        assert [group["eps"] for group in configure_optimizer(layer, 1e-3, **how).param_groups] == [eps, eps]


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 1, 7])
def test_schedules_of_transformers(kind: str, warmup_steps: int) -> None:
    "At each step from 0 on, with a warm-up and without."
    name = {"constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}.get(kind, kind)
    how = {"num_decay_steps": 8, "decay_type": "linear"} if kind == "wsd" else None   # two fifths
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(name, optimizer, warmup_steps, 20, how).lr_lambdas[0]
    assert [SCHEDULES[kind](step, warmup_steps, 20) for step in range(21)] == pytest.approx([theirs(step) for step in range(21)])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_what_is_certain_has_a_finite_slope(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0], [1.0, 0.0]], requires_grad=True)
    slope, = torch.autograd.grad(focal_loss(logits, torch.tensor([0, 0, 1]), gamma), logits)
    assert slope.isfinite().all() and not slope[0].any() and slope[1:].abs().min() > 0.1


def test_sixteen_bits_are_summed_in_thirty_two() -> None:
    loss = cross_entropy_loss(torch.zeros(1, 32000, dtype=torch.bfloat16), torch.tensor([0]))
    assert loss.dtype == torch.float32 and abs(loss - log(32000)) < 1e-5


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"logits \(2, 3, 5\) do not fit targets \(2, 4\)"):
        cross_entropy_loss(torch.zeros(2, 3, 5), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"features \(2, 3, 5\), weight \(7, 4\) and targets \(2, 3\) do not fit"):
        chunked_cross_entropy_loss(torch.zeros(2, 3, 5), torch.zeros(7, 4), torch.zeros(2, 3, dtype=torch.long))
