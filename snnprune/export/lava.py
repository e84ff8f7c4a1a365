"""A chain as an HDF5 network file that lava-dl's netx reads, in the integers of Loihi.

The layout is that of `export_hdf5` of lava-dl's blocks (lava/lib/dl/slayer/block/base.py) and of
its reader (lava/lib/dl/netx/hdf5.py, both of 0.6): under `layer/N` the `type` of a block, its
`shape`, and weights as whole even numbers up to 254; `neuron` has thresholds, and decays of 12
bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.export import Written
from snnprune.export.chain import Chain, ChainError, Pool, Spiking, Stage, Weights
from snnprune.export.chain_extraction import extract_chain
from snnprune.export.exporters import RecordedNetwork, convert_package_errors, import_package
from snnprune.files.writing import replace_file

ONE = 2**12  # what a decay is a share of
SHIFT = 6  # bits by which Loihi shifts thresholds, biases and weighted spikes
LARGEST_WEIGHT, LARGEST_BIAS, LARGEST_THRESHOLD = 254, 2**12 - 1, 2**17 - 1
LIMIT = 2**23 - 1  # of a membrane


@dataclass(frozen=True, kw_only=True, eq=False)
class LoihiLayer:
    """A layer and the neurons that it drives: v = v (4096 - decay) / 4096 + 64 (weight x + bias).

    Fires where v > 64 threshold, and v is 0 then.
    """

    layer: Weights
    """With whole numbers, even ones as weights; float32."""
    scale: float
    """What weights and biases were multiplied by before they were rounded."""
    decay: int
    threshold: int
    neurons: str | None
    """None behind the last layer, where neurons that never fire add its currents up."""
    shape: tuple[int, ...]

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membranes (T, N, ...) of spikes (T, N, ...), as Loihi computes them."""
        whole = replace(
            self.layer, weight=self.layer.weight.double(), bias=self.layer.bias.double()
        )
        driven = whole.apply(x.double().flatten(0, 1)).unflatten(0, x.shape[:2]).long() << SHIFT
        v, spikes, membranes = torch.zeros_like(driven[0]), [], []
        for now in driven:
            kept = v * (ONE - self.decay)
            left = kept.sign() * (kept.abs() >> 12)
            v = (left + now).clamp(-LIMIT, LIMIT)
            fired = v > self.threshold << SHIFT
            spikes.append(fired)
            membranes.append(v)
            v = v.masked_fill(fired, 0)
        return torch.stack(spikes), torch.stack(membranes)


def write_lava(path: Path, seen: RecordedNetwork) -> Written:
    """Write the chain, read it back, and tell what Loihi's integers change.

    Raises:
        InputError: the network is no chain that Loihi's neurons can hold.
        OutputError: the file cannot be written.
    """
    h5py = import_package("h5py", to="lava")
    found = extract_chain(seen)
    _require_spikes(found.inputs)
    chain = fold_pools(found.chain)
    layers = quantize_chain(chain)
    with replace_file(path) as temporary:
        with convert_package_errors("h5py", to="lava"), h5py.File(temporary, "w") as file:
            _write_blocks(file, chain, layers)
        _require_same(temporary, layers)
    x, others = found.inputs, 0
    spikes = iter(found.spikes)
    for layer in layers:
        x = layer.run(x)[0].float()
        if layer.neurons is not None:
            others += int((x - next(spikes)).abs().sum())
    check = replace(found.check, other_spikes=others)
    return Written(
        notes=tuple(_describe(layers, check.time_steps, others, check.spikes)), check=check
    )


def _describe(layers: Sequence[LoihiLayer], steps: int, others: int, spikes: int) -> list[str]:
    """What a user of the file has to know."""
    share = others / max(spikes, 1)
    notes = [
        f"in Loihi's integers {others:,} spikes ({share:.1%} of the network's) come otherwise",
        f"netx takes a step from layer to layer: run {steps} + {len(layers)} steps, with "
        f"reset_interval={steps} and reset_offset=1",
    ]
    last = layers[-1]
    if last.neurons is None:
        notes.append(
            f"{last.layer.key} has no neurons: the membranes of its block, over "
            f"{last.scale * 2**SHIFT:.6g}, are its currents added up"
        )
    return notes


def _require_spikes(x: Tensor) -> None:
    if not bool(((x == 0) | (x == 1)).all()):
        raise ChainError("what enters the first layer is no spikes, which is all that Loihi takes")


def fold_pools(chain: Chain) -> Chain:
    """The chain with each mean or sum of spikes in the layer behind it, zeros as zeros.

    Raises:
        ChainError: a pool stands elsewhere, or is another.
    """
    stages: list[Stage] = []
    shapes = [chain.shapes[0]]
    pending: list[tuple[Pool, tuple[int, ...]]] = []
    for index, stage in enumerate(chain.stages):
        before, after = chain.shapes[index : index + 2]
        if isinstance(stage, Pool):
            last = stages[-1] if stages else None
            plain = stage.how != "max" and stage.size == stage.stride and stage.padding == (0, 0)
            even = all(a % b == 0 for a, b in zip(before[1:], stage.size, strict=True))
            if not plain or not even or isinstance(last, Weights) or pending:
                raise ChainError(
                    "lava-dl's netx reads no pools, and only one of spikes by their mean or sum, "
                    f"without overlap, goes into the layer behind it; there is a {stage.how} pool"
                )
            pending.append((stage, before))
            continue
        if isinstance(stage, Weights) and pending:
            stage = _take_pool(stage, *pending.pop())
        stages.append(stage)
        shapes.append(after)
    if pending:
        raise ChainError("a pool comes last, which lava-dl's netx does not read")
    return Chain(stages=tuple(stages), shapes=tuple(shapes))


def _take_pool(layer: Weights, pool: Pool, shape: tuple[int, ...]) -> Weights:
    """The layer on what enters the pool, (C, H, W)."""
    down, right = pool.size
    weight = layer.weight / (down * right if pool.how == "avg" else 1)
    if layer.is_linear:
        places = weight.unflatten(1, (shape[0], shape[1] // down, shape[2] // right))
        spread = places.repeat_interleave(down, 2).repeat_interleave(right, 3)
        return replace(layer, weight=spread.flatten(1))
    if layer.dilation != (1, 1):
        raise ChainError("a pool does not go into a layer with dilation", where=layer.key)
    return replace(
        layer,
        weight=weight.repeat_interleave(down, 2).repeat_interleave(right, 3),
        stride=(layer.stride[0] * down, layer.stride[1] * right),
        padding=(layer.padding[0] * down, layer.padding[1] * right),
    )


def quantize_chain(chain: Chain) -> list[LoihiLayer]:
    """Each layer in whole numbers, with the neurons behind it.

    Raises:
        ChainError: Loihi has no such neurons.
    """
    found = []
    stages = [*chain.stages, None]
    for index, layer in enumerate(chain.layers):
        at = chain.stages.index(layer)
        neurons = stages[at + 1]
        if neurons is not None and not isinstance(neurons, Spiking):
            raise ChainError("has no neurons behind it", where=layer.key)
        if index == 0 and at:
            raise ChainError("is not what the input enters", where=layer.key)
        found.append(_quantize_layer(layer, neurons, chain.shapes[at + 1]))
    return found


def _quantize_layer(layer: Weights, neurons: Spiking | None, shape: tuple[int, ...]) -> LoihiLayer:
    if neurons is not None:
        _require_loihi_neurons(neurons)
    threshold = 0.0 if neurons is None else neurons.threshold / neurons.gain
    limits = (
        (LARGEST_WEIGHT, float(layer.weight.abs().max())),
        (LARGEST_BIAS, float(layer.bias.abs().max())),
        (LARGEST_THRESHOLD, threshold),
    )
    scale = min((most / value for most, value in limits if value > 0), default=1.0)
    weight = 2 * (layer.weight.double() * scale / 2).round()
    bias = (layer.bias.double() * scale).round()
    level = LARGEST_THRESHOLD if neurons is None else round(threshold * scale)
    if neurons is not None and level < 1:
        raise ChainError("its threshold is 0 in whole numbers", where=neurons.name)
    if neurons is not None and neurons.inclusive and neurons.beta == 1:
        level -= 1  # Loihi fires above it, and these membranes are whole numbers
    return LoihiLayer(
        layer=replace(layer, weight=weight.float(), bias=bias.float()),
        scale=scale,
        decay=0 if neurons is None else round((1 - neurons.beta) * ONE),
        threshold=level,
        neurons=None if neurons is None else neurons.name,
        shape=shape,
    )


def _require_loihi_neurons(neurons: Spiking) -> None:
    if neurons.several:
        raise ChainError("puts out several spikes at once, and Loihi's one", where=neurons.name)
    if neurons.reset != "to" or neurons.amount != 0:
        raise ChainError(
            "does not reset to its rest, as Loihi's neurons in netx do", where=neurons.name
        )


def _write_blocks(file: Any, chain: Chain, layers: Sequence[LoihiLayer]) -> None:
    """Input, layers, and what flattens between a convolution and a linear layer."""
    first = layers[0].layer
    entered = chain.shapes[0]
    shape = (math.prod(entered),) if first.is_linear else entered
    blocks: list[dict[str, Any]] = [{"type": "input", "shape": shape}]
    for layer in layers:
        if layer.layer.is_linear and len(shape) > 1:
            blocks.append({"type": "flatten", "shape": (math.prod(shape), 1, 1)})
        blocks.append(_describe_block(layer))
        shape = layer.shape
    for number, block in enumerate(blocks):
        for name, value in block.items():
            words = isinstance(value, str)
            held = np.array([value.encode("ascii")], "S10") if words else np.asarray(value)
            file.create_dataset(f"layer/{number}/{name}", data=held)


def _describe_block(one: LoihiLayer) -> dict[str, Any]:
    layer, weight = one.layer, one.layer.weight
    block: dict[str, Any] = {"shape": one.shape, "weight": weight.numpy()}
    if bool((layer.bias != 0).any()):
        block["bias"] = layer.bias.numpy()
    if layer.is_linear:
        block |= {"type": "dense", "inFeatures": weight.shape[1], "outFeatures": weight.shape[0]}
    else:
        block |= {
            "type": "conv",
            "inChannels": weight.shape[1] * layer.groups,
            "outChannels": weight.shape[0],
            "kernelSize": weight.shape[2:],
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
            "groups": layer.groups,
        }
    return block | {
        "neuron/type": "CUBA",
        "neuron/iDecay": ONE,  # a current is gone after its step
        "neuron/vDecay": one.decay,
        "neuron/vThMant": one.threshold,
        "neuron/refDelay": 1,
        "neuron/gradedSpike": False,
    }


def _require_same(path: Path, layers: Sequence[LoihiLayer]) -> None:
    """Refuse a file that does not have each weight as it is.

    Raises:
        InputError: one is another.
    """
    h5py = import_package("h5py", to="lava")
    with convert_package_errors("h5py", to="lava"), h5py.File(path, "r") as file:
        blocks = [file["layer"][str(number)] for number in range(len(file["layer"]))]
        held = [block["weight"][()] for block in blocks if "weight" in block]
    for layer, weight in zip(layers, held, strict=True):
        if not np.array_equal(weight, layer.layer.weight.numpy()):
            raise InputError("is not in the file as it is", field=layer.layer.key)
