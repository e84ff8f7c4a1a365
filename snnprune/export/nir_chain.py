"""A chain as a NIR graph, for networks that no library exports: with BatchNorm, pools, own neurons.

NIR's neurons are of continuous time; constants are for Euler's steps of 0.0001, as snnTorch's and
SpikingJelly's exporters have them: v = v + dt / tau (v_leak - v + r x), and then v_reset where
v > v_threshold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from snnprune.errors import InputError, format_count
from snnprune.export.chain import Chain, ChainError, ExtractedChain, Pool, Spiking, Stage, Weights
from snnprune.export.exporters import LayerValues, import_package

STEP = 1e-4
ANY = ":any"  # behind a pool: no name of a module has a colon
MOST_OTHERS = 0.01  # of the spikes, where neurons reset as NIR's do


def make_graph(chain: Chain) -> Any:
    """The NIR graph of a chain, one node after the other.

    Raises:
        ChainError: NIR has no node for a stage.
    """
    nir = import_package("nir", to="nir")
    nodes: dict[str, Any] = {"input": nir.Input(np.array(chain.shapes[0]))}
    for index, stage in enumerate(chain.stages):
        before, after = chain.shapes[index : index + 2]
        if isinstance(stage, Weights) and stage.is_linear and len(before) > 1:
            nodes[f"flatten_{index}"] = nir.Flatten({"input": np.array(before)}, 0, -1)
        behind = chain.stages[index - 1] if index else None
        for name, node in _make_nodes(nir, index, stage, behind, (before, after)).items():
            nodes[name if name not in nodes else f"{name}_{index}"] = node
    nodes["output"] = nir.Output(np.array(chain.shapes[-1]))
    names = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(itertools.pairwise(names)))


def _make_nodes(
    nir: Any,
    index: int,
    stage: Stage,
    behind: Stage | None,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> dict[str, Any]:
    """The nodes of one stage, by name."""
    before, after = shapes
    if isinstance(stage, Spiking):
        return {_simplify(stage.name): _make_neurons(nir, stage, after)}
    if isinstance(stage, Pool):
        return _make_pool(nir, index, stage, behind, after)
    name = _simplify(stage.key.removesuffix(".weight"))
    weight, bias = stage.weight.numpy(), stage.bias.numpy()
    if stage.is_linear:
        return {name: nir.Affine(weight, bias) if bias.any() else nir.Linear(weight)}
    shape, geometry = before[1:], (stage.stride, stage.padding, stage.dilation)
    return {name: nir.Conv2d(shape, weight, *geometry, stage.groups, bias)}


def _simplify(name: str) -> str:
    """A name that HDF5 takes, and modules of torch."""
    return name.replace(".", "_").replace("/", "_").replace(" ", "_") or "neurons"


def _make_pool(
    nir: Any, index: int, pool: Pool, behind: Stage | None, after: tuple[int, ...]
) -> dict[str, Any]:
    """A mean or sum; the largest of spikes is 1 where their mean is not 0."""
    window = (np.array(pool.size), np.array(pool.stride), np.array(pool.padding))
    if pool.how == "sum":
        return {f"pool_{index}": nir.SumPool2d(*window)}
    found = {f"pool_{index}": nir.AvgPool2d(*window)}
    if pool.how == "avg":
        return found
    if not isinstance(behind, Spiking) or behind.several:
        raise ChainError("NIR has a largest of spikes alone, by neurons, not of currents")
    full, half = np.ones(after, np.float32), 0.5 / math.prod(pool.size)
    return found | {
        f"pool_{index}{ANY}": nir.IF(r=full / STEP, v_threshold=full * half, v_reset=full * 0)
    }


def _make_neurons(nir: Any, stage: Spiking, shape: tuple[int, ...]) -> Any:
    if stage.reset == "skip":
        raise ChainError("drops what enters after a spike, which NIR's do not", where=stage.name)
    full = np.ones(shape, np.float32)
    if stage.reset == "to" and stage.amount != 0 and stage.beta == 0:
        raise ChainError("keeps nothing but what it resets to", where=stage.name)
    # what NIR resets to leaks before the next input comes
    v_reset = stage.amount / stage.beta if stage.reset == "to" and stage.amount else 0.0
    threshold, reset = full * stage.threshold, full * v_reset
    if stage.beta == 1:
        return nir.IF(r=full * stage.gain / STEP, v_threshold=threshold, v_reset=reset)
    kept = 1 - stage.beta
    return nir.LIF(
        tau=full * STEP / kept,
        r=full * stage.gain / kept,
        v_leak=full * 0,
        v_threshold=threshold,
        v_reset=reset,
    )


def list_values(chain: Chain) -> dict[str, LayerValues]:
    """What the graph has to hold of each layer."""
    return {one.key: LayerValues(weight=one.weight, bias=one.bias) for one in chain.layers}


def count_others(graph: Any, found: ExtractedChain) -> int:
    """The spikes that come or miss when a graph, as it was read, is run by NIR's equations.

    Raises:
        InputError: they are too many to be rounding, and NIR has the reset of the neurons.
    """
    after = dict(graph.edges)
    name, x, spikes, others = after["input"], found.inputs, list(found.spikes), 0
    while name != "output":
        node = graph.nodes[name]
        x = _run_node(node, x)
        if hasattr(node, "v_threshold") and not name.endswith(ANY):
            others += int((x - spikes.pop(0)).abs().sum())
        name = after[name]
    told = sum(int(one.sum()) for one in found.spikes)
    exact = all(one.reset == "to" and not one.several for one in found.chain.neurons)
    if exact and others > MOST_OTHERS * max(told, 1):
        raise InputError(
            f"the graph puts out {others:,} spikes otherwise than the network's {told:,}",
            field="--to nir",
        )
    return others


def _run_node(node: Any, x: Tensor) -> Tensor:
    """What a node makes of (T, N, ...), by the equations of NIR."""
    if hasattr(node, "v_threshold"):
        return _run_neurons(node, x)
    rows = x.flatten(0, 1)
    kind = type(node).__name__
    if kind in ("Linear", "Affine"):
        bias = torch.from_numpy(node.bias) if kind == "Affine" else None
        made = functional.linear(rows, torch.from_numpy(node.weight), bias)
    elif kind == "Flatten":
        made = rows.flatten(1 + node.start_dim)
    elif kind == "Conv2d":
        weight, bias = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
        geometry = (_ints(node.stride), _ints(node.padding), _ints(node.dilation))
        made = functional.conv2d(rows, weight, bias, *geometry, int(node.groups))
    else:
        divisor = 1 if kind == "SumPool2d" else None
        window = (_ints(node.kernel_size), _ints(node.stride), _ints(node.padding))
        made = functional.avg_pool2d(rows, *window, divisor_override=divisor)
    return made.unflatten(0, x.shape[:2])


def _ints(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(one) for one in values)


def _run_neurons(node: Any, x: Tensor) -> Tensor:
    given = {
        name: torch.from_numpy(np.asarray(getattr(node, name)))
        for name in ("tau", "r", "v_leak", "v_threshold", "v_reset")
        if hasattr(node, name)
    }
    share = STEP / given["tau"] if "tau" in given else torch.tensor(STEP)
    v, steps = torch.zeros_like(x[0]), []
    for now in x:
        leak = given["v_leak"] - v if "tau" in given else 0.0
        v = v + share * (leak + given["r"] * now)
        steps.append((v > given["v_threshold"]).to(x.dtype))
        v = torch.where(steps[-1] > 0, given["v_reset"], v)
    return torch.stack(steps)


def describe_neurons(chain: Chain) -> tuple[str, ...]:
    """Lines where NIR has no word for what the network does."""
    soft = sum(one.reset == "by" for one in chain.neurons)
    several = sum(one.several for one in chain.neurons)
    largest = sum(isinstance(one, Pool) and one.how == "max" for one in chain.stages)
    notes = []
    if soft:
        notes.append(
            f"NIR has the reset to a potential alone: {format_count(soft, 'layer')} of neurons "
            "that subtract the threshold, or do not reset, are exported with a reset to 0"
        )
    if several:
        notes.append(
            f"NIR's neurons spike once a step: {format_count(several, 'layer')} of neurons spike "
            "several times"
        )
    if largest:
        notes.append(
            f"NIR has no largest of a window: {format_count(largest, 'pool')} of spikes became a "
            "mean and neurons without a leak that fire where it is not 0"
        )
    return tuple(notes)
