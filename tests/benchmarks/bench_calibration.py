"""What calibration costs beside the forward pass that it watches.

    python tests/benchmarks/bench_calibration.py [ROUNDS]

Both are run in turn on the same batches, round by round, in one thread and in two; what counts is
the ratio of each round: the median of all, and the quartiles.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command does

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model.spiking_resnet import spiking_resnet18
from torch import Tensor, nn

from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif.choice import describe_choice

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
STEPS = 4
LIGHT = ModelSpec(name="res-snn-19-light")


class JellyResNet(nn.Module):
    """SpikingJelly's resnet18 on T equal images, at rest before each batch."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "spiking_neuron": neuron.LIFNode,
            "surrogate_function": surrogate.ATan(),
            "num_classes": 10,
        }
        self.body = spiking_resnet18(pretrained=False, **options)
        functional.set_step_mode(self.body, "m")

    def forward(self, x: Tensor) -> Tensor:
        """Logits (T, N, classes) of images (N, C, H, W)."""
        functional.reset_net(self.body)
        return self.body(x.unsqueeze(0).repeat(STEPS, 1, 1, 1, 1))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "conv-snn": (lambda: build_model(ModelSpec(name="conv-snn")), (256, 1, 28, 28), 128),
    "res-snn-19-light": (lambda: build_model(LIGHT), (32, 3, 32, 32), 16),
    "SpikingJelly resnet18": (JellyResNet, (32, 3, 64, 64), 16),
}
"""By name: the network, the shape of all images, and how many are a batch."""


def make_lively(module: nn.Module, x: Tensor) -> nn.Module:
    """The untrained network with BatchNorm statistics of its own, so that neurons fire."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        module(x)
    return module.eval()


def measure_seconds(work: Callable[[], object]) -> float:
    """Of one run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(name: str) -> None:
    """A row: the forward pass in ms, and how many times as long calibration takes."""
    make, shape, size = CASES[name]
    torch.manual_seed(0)
    x = torch.rand(shape)
    module = make_lively(make(), x[:size])
    network, batches = trace(module, x[:1]), x.split(size)

    @torch.no_grad()
    def forward() -> None:
        for part in batches:
            module(part)

    def watched() -> None:
        calibrate(network, batches)

    pairs = [(measure_seconds(forward), measure_seconds(watched)) for _ in range(ROUNDS + 1)][1:]
    low, median, high = statistics.quantiles((full / plain for plain, full in pairs), n=4)
    plain = 1e3 * statistics.median(plain for plain, _ in pairs)
    print(f"{name:24} {plain:7.1f} ms, ratio {median:.2f} ({low:.2f} to {high:.2f})", flush=True)


def main() -> None:
    """Print a row for each network and number of threads."""
    print(f"torch {torch.__version__}, {describe_choice()}, {ROUNDS} rounds: median (quartiles)")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        print(f"{threads} threads")
        for name in CASES:
            report(name)


if __name__ == "__main__":
    main()
