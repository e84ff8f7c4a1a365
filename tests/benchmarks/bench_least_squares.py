"""What least squares cost for one wide layer: its Gram matrix and the fit of what is kept.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_least_squares.py

A conv of 512 to 512 channels, 3x3, on 8x8 maps of spikes at rates of 0.1 to 0.3, four time steps,
1,024 images in batches of 64.
"""

import resource
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.graph.network import Network
from snnprune.graph.replay import run_until
from snnprune.graph.state import use_eval_mode
from snnprune.graph.trace import trace
from snnprune.measure.layer_inputs import (
    RowSampler,
    Usage,
    compute_currents,
    count_usage,
)
from snnprune.measure.second_moments import GramSum, fit_weights
from snnprune.models.lif import LIF, Dynamics
from snnprune.runtime import make_generator

CHANNELS, MAP, STEPS, IMAGES, BATCH = 512, 8, 4, 1024, 64
SPARSITIES = (0.5, 0.9, 0.95)
RIDGE = 1e-2
KEY = "conv.weight"


class Wide(nn.Module):
    """One conv, its BatchNorm and its neuron, fed with spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.norm, self.lif = nn.BatchNorm2d(CHANNELS), LIF(Dynamics())

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C, H, W) spikes to spikes (T, N, C, H, W)."""
        by_time = x.transpose(0, 1)
        current = self.norm(self.conv(by_time.flatten(0, 1)))
        return self.lif(current.unflatten(0, (STEPS, -1)))


def batches() -> Iterator[tuple[Tensor, None]]:
    """Spikes (N, T, C, H, W), neighbours alike as in maps of a trained network."""
    for number in range(IMAGES // BATCH):
        drawn = make_generator(0, "bench", number)
        rates = torch.linspace(0.1, 0.3, CHANNELS).view(1, 1, -1, 1, 1)
        coarse = torch.rand(BATCH, STEPS, CHANNELS, MAP // 2, MAP // 2, generator=drawn)
        yield (coarse.repeat_interleave(2, 3).repeat_interleave(2, 4) < rates).float(), None


@torch.no_grad()
def gathered(network: Network, usage: Usage) -> GramSum:
    """Second moments of the layer's inputs as the membrane has them, and of its currents."""
    rows = RowSampler(network, KEY, usage, filtered=True, seed=0)
    moments = GramSum()
    with use_eval_mode(network.module):
        for number, (x, y) in enumerate(network.feed(batches())):
            see = rows.watched(
                network.count_samples(x, y),
                number,
                lambda row, call: moments.add(row, compute_currents(row, call.weight)),
            )
            run_until(network, x, see)
    return moments


def peak() -> str:
    """Of the memory of this process so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"


def main() -> None:
    """Print a line for the Gram matrix and one for each sparsity."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    torch.manual_seed(0)
    network = trace(Wide().eval(), next(batches())[0][:1])
    usage = count_usage(network, Batches(begin=batches))
    start = time.perf_counter()
    moments = gathered(network, usage)
    seconds = time.perf_counter() - start
    print(f"Gram matrix of {moments.rows} rows: {seconds:.1f} s, peak {peak()}")
    weight = network.weight(KEY).double().reshape(1, CHANNELS, -1)
    found = moments.finish(free=True)
    for sparsity in SPARSITIES:
        least = weight.abs().flatten().kthvalue(round(sparsity * weight.numel())).values
        keep = weight.abs() > least
        start = time.perf_counter()
        fit_weights(found.matrix, found.cross, keep, weight, ridge=RIDGE)
        seconds = time.perf_counter() - start
        print(f"fit at {sparsity:.0%} sparsity: {seconds:.1f} s, peak {peak()}")


if __name__ == "__main__":
    main()
