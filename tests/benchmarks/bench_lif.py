"""Time of a forward and backward pass of LIF neurons: ours, a naive loop, SpikingJelly's LIFNode.

    python tests/benchmarks/bench_lif.py

The three are run in turn, round by round; what counts is the ratio of the medians.
"""

import statistics
import time
from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

from snnprune.models.lif import LIF, Dynamics

SHAPES = {
    "small (4, 100, 16, 28, 28)": (4, 100, 16, 28, 28),
    "deep (4, 100, 64, 7, 7)": (4, 100, 64, 7, 7),
    "large (5, 32, 128, 32, 32)": (5, 32, 128, 32, 32),
}
ROUNDS = 15


def naive(x: Tensor) -> Tensor:
    """Eq. 2-4 as one writes them down, with autograd's graph over every step."""
    spike, h, spikes = surrogate.ATan(), torch.zeros_like(x[0]), []
    for current in x:
        u = h + current
        s = spike(u - 1.0)
        h = 0.5 * u * (1 - s.detach())
        spikes.append(s)
    return torch.stack(spikes)


def passes(shape: tuple[int, ...]) -> dict[str, Callable[[], None]]:
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
        theirs(x).backward(grad)

    return {
        "snnprune": lambda: ours(x).backward(grad),
        "naive loop": lambda: naive(x).backward(grad),
        "SpikingJelly": run_theirs,
    }


def medians(candidates: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds by name, after one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS + 1):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def main() -> None:
    """Print a row for each shape (T, N, C, H, W)."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {ROUNDS} rounds")
    for title, shape in SHAPES.items():
        found = medians(passes(shape))
        ratios = (f"{name} {t / found['snnprune']:.2f}x" for name, t in found.items())
        print(f"{title:28} {1e3 * found['snnprune']:.1f} ms; " + ", ".join(ratios))


if __name__ == "__main__":
    main()
