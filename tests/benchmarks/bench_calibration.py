"""What calibration costs beside the forward pass that it watches.

    python tests/benchmarks/bench_calibration.py

Both are run in turn on the same batches; what counts is the ratio of the medians.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.models import ModelSpec, build_model

CASES = {
    "conv-snn": (ModelSpec(name="conv-snn"), (512, 1, 28, 28), 9),
    "res-snn-19": (ModelSpec(name="res-snn-19"), (32, 3, 32, 32), 3),
}


def lively(spec: ModelSpec, x: Tensor) -> Network:
    """The untrained network with BatchNorm statistics of its own, so that neurons fire."""
    torch.manual_seed(0)
    module = build_model(spec)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        module(x[:16])
    return trace(module.eval(), x[:1])


def seconds(work: Callable[[], object]) -> float:
    """Of one run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print a line for each network."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, (spec, shape, rounds) in CASES.items():
        x = torch.rand(shape)
        network = lively(spec, x)
        batches = list(zip(x.split(32), [None] * len(x.split(32)), strict=True))

        def forward(network: Network = network, x: Tensor = x) -> None:
            with torch.no_grad():
                for part in x.split(32):
                    network.module(part)

        def watched(
            network: Network = network, batches: list[tuple[Tensor, None]] = batches
        ) -> None:
            calibrate(network, batches)

        pairs = [(seconds(forward), seconds(watched)) for _ in range(rounds + 1)][1:]
        plain, full = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name}: forward {plain:.2f} s, calibration {full:.2f} s, ratio {full / plain:.2f}")


if __name__ == "__main__":
    main()
