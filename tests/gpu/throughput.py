"""Images/s and memory of training: `throughput.py --out FILE`.

A forward and backward pass and a step of SGD, of each network with each kind of neuron: on a GPU
in bf16 by autocast, on a CPU, which may take a minute for that, in float32. The batch is halved
until it fits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from measuring import Lines, Unavailable, make_parser, read_flags, say, time_calls
from neurons import LoopLIF, StepwiseReLU, make_triton
from torch import nn

from snnprune.models.lif import LIF
from snnprune.models.lif.choice import VARIABLE
from snnprune.models.networks import res_snn_19, res_snn_19_light, snn_vgg_16

MODELS: dict[str, Callable[..., nn.Module]] = {
    "res-snn-19": res_snn_19,
    "res-snn-19-light": res_snn_19_light,
    "snn-vgg-16": snn_vgg_16,
}
NEURONS: dict[str, type[nn.Module] | None] = {
    "triton": None,
    "plain": None,
    "loop": LoopLIF,
    "ReLU": StepwiseReLU,
}
"""What stands in the place of `LIF`; None: nothing, and SNNPRUNE_LIF has the name."""
TIME_STEPS, CLASSES = 4, 10
BATCH, SIDE, ROUNDS = 64, 32, 20
SMALL_BATCH, SMALL_SIDE, SMALL_ROUNDS = 2, 8, 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a row for each network and kind of neuron."""
    parser = make_parser("Images/s and memory of training.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    flags = read_flags(parser, arguments)
    lines = Lines(flags.out)
    batch, side, rounds = (
        (SMALL_BATCH, SMALL_SIDE, SMALL_ROUNDS) if flags.small else (BATCH, SIDE, ROUNDS)
    )
    for model in flags.models:
        for neurons in NEURONS:
            measure = partial(measure_training, model, neurons, flags.device, side, rounds)
            lines.add(model=model, neurons=neurons, side=side, **find_batch(measure, batch))


def find_batch(measure: Callable[[int], dict[str, Any]], batch: int) -> dict[str, Any]:
    """What `measure` finds for the largest of `batch`, its half, ... that fits; else why not."""
    while True:
        try:
            return {"batch": batch, **measure(batch)}
        except torch.OutOfMemoryError as error:
            if batch == 1:
                return {"failed": say(error)}
        except Unavailable as error:
            return {"absent": say(error)}
        except Exception as error:
            return {"failed": say(error)}
        torch.cuda.empty_cache()  # outside of `except`, whose traceback keeps the tensors
        batch //= 2


def measure_training(
    model: str, neurons: str, device: torch.device, side: int, rounds: int, batch: int
) -> dict[str, Any]:
    """Images/s, median ms of a step, and the peak of memory in GB (None on a CPU).

    Raises:
        Unavailable: these neurons are not to be had here.
    """
    network = build(model, neurons, device)
    step = make_step(network, batch, side, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    ms = time_calls(step, device, rounds=rounds)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return {"images_per_s": 1e3 * batch / ms, "ms": ms, "peak_gb": peak}


def build(model: str, neurons: str, device: torch.device) -> nn.Module:
    """The network with these neurons, on the device; sets SNNPRUNE_LIF.

    Raises:
        Unavailable: these neurons are not to be had here.
    """
    if neurons == "triton":
        make_triton(device)
        if device.type != "cuda":
            raise Unavailable("needs a GPU")  # elsewhere SNNPRUNE_LIF=triton is another path
    stand_in = NEURONS[neurons]
    os.environ[VARIABLE] = neurons if stand_in is None else "plain"
    torch.manual_seed(0)
    network = MODELS[model](time_steps=TIME_STEPS, classes=CLASSES)
    for name, module in list(network.named_modules()):
        if stand_in is not None and isinstance(module, LIF):
            network.set_submodule(name, stand_in())
    return network.to(device)


def make_step(
    network: nn.Module, batch: int, side: int, device: torch.device
) -> Callable[[], None]:
    """A step of training on images that stay on the device."""
    images = torch.rand(batch, 3, side, side, device=device)
    labels = torch.randint(CLASSES, (batch,), device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(images).mean(0)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
