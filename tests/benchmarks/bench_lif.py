"""Time of a forward and backward pass of LIF neurons: ours, a naive loop, SpikingJelly's LIFNode.

    python tests/benchmarks/bench_lif.py [ROUNDS]

All are run in turn, round by round, in one thread and in two; what counts is the ratio of the
medians. Then a training step of `conv-snn`, with these neurons and with ReLU in their place.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command does

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from snnprune.models.lif import LIF, Dynamics
from snnprune.models.lif.choice import VARIABLE, describe_choice
from snnprune.models.networks import conv_snn

SHAPES = {
    "small (4, 100, 16, 28, 28)": (4, 100, 16, 28, 28),
    "deep (4, 100, 64, 7, 7)": (4, 100, 64, 7, 7),
    "wide (4, 64, 64, 28, 28)": (4, 64, 64, 28, 28),
    "large (5, 32, 128, 32, 32)": (5, 32, 128, 32, 32),
}
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
Candidates = dict[str, Callable[[], object]]


def naive(x: Tensor) -> Tensor:
    """Eq. 2-4 as one writes them down, with autograd's graph over every step."""
    spike, h, spikes = surrogate.ATan(), torch.zeros_like(x[0]), []
    for current in x:
        u = h + current
        s = spike(u - 1.0)
        h = 0.5 * u * (1 - s.detach())
        spikes.append(s)
    return torch.stack(spikes)


def by(path: str, work: Callable[[], object]) -> Callable[[], object]:
    """`work` by the path that `SNNPRUNE_LIF` names."""

    def run() -> None:
        os.environ[VARIABLE] = path
        work()

    return run


def passes(shape: tuple[int, ...]) -> Candidates:
    """One forward and backward pass of each, on the same current."""
    x = torch.randn(shape, requires_grad=True)
    grad = torch.randn(shape)
    ours = LIF(Dynamics())
    theirs = neuron.LIFNode(
        2.0, decay_input=False, v_reset=0.0, detach_reset=True, step_mode="m",
        surrogate_function=surrogate.ATan(),
    )  # fmt: skip

    def run_theirs() -> None:
        functional.reset_net(theirs)
        torch.autograd.grad(theirs(x), x, grad)

    return {
        "native": by("native", lambda: torch.autograd.grad(ours(x), x, grad)),
        "plain": by("plain", lambda: torch.autograd.grad(ours(x), x, grad)),
        "naive loop": lambda: torch.autograd.grad(naive(x), x, grad),
        "SpikingJelly": run_theirs,
    }


class StepwiseReLU(nn.Module):
    """ReLU of every step, in place of neurons."""

    def forward(self, current: Tensor) -> Tensor:
        return current.relu()


def training_steps(samples: int) -> Candidates:
    """A forward and backward pass of the network with each."""
    spiking, without = (conv_snn(width=16, time_steps=4) for _ in range(2))
    for name, module in list(without.named_modules()):
        if isinstance(module, LIF):
            without.set_submodule(name, StepwiseReLU())
    images = torch.rand(samples, 1, 28, 28)

    def step(network: nn.Module) -> None:
        network.zero_grad()
        network(images).mean(0).logsumexp(1).mean().backward()

    return {
        "native": by("native", lambda: step(spiking)),
        "plain": by("plain", lambda: step(spiking)),
        "ReLU": lambda: step(without),
    }


def time_rounds(candidates: Candidates) -> dict[str, list[float]]:
    """Seconds by name, after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS + 1):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}


def report(title: str, candidates: Candidates) -> None:
    """A row: median and least of the first in ms, and how many times as long the others take."""
    found = time_rounds(candidates)
    medians = {name: statistics.median(times) for name, times in found.items()}
    least = {name: min(times) for name, times in found.items()}
    ratios = (
        f"{name} {medians[name] / medians['native']:.2f}x ({least[name] / least['native']:.2f}x)"
        for name in list(found)[1:]
    )
    print(
        f"{title:28} {1e3 * medians['native']:.1f} ({1e3 * least['native']:.1f}) ms; "
        + ", ".join(ratios),
        flush=True,
    )


def main() -> None:
    """Print a row for each shape (T, N, C, H, W) and number of threads."""
    print(f"torch {torch.__version__}, {describe_choice()}, {ROUNDS} rounds: median (least)")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        print(f"{threads} threads")
        for title, shape in SHAPES.items():
            report(title, passes(shape))
        report("conv-snn, 64 samples", training_steps(64))


if __name__ == "__main__":
    main()
