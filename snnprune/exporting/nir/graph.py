"""A graph that an exporter left half done, completed, and what it must be."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnprune.checkpoint.naming import counted, first_few
from snnprune.errors import InputError
from snnprune.exporting.packages import required
from snnprune.exporting.running import Running

CONSTANTS = ("tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in")
"""Of neurons in NIR: arrays in the shape of a sample."""


def completed(graph: Any, seen: Running) -> Any:
    """With shapes of samples instead of batches, one constant for each neuron, and all types."""
    nir, skip = required("nir", to="nir"), seen.batch_dims
    require_known(graph, seen)
    last = [source for source, target in graph.edges if target == "output"]
    for name, node in graph.nodes.items():
        if hasattr(node, "r") and name in seen.outputs:
            _spread(node, tuple(seen.outputs[name].shape[skip:]))
    graph.nodes["input"] = nir.Input(np.array(seen.sample.shape[skip:]))
    graph.nodes["output"] = nir.Output(np.array(seen.outputs[last[0]].shape[skip:]))
    graph.infer_types()
    return graph


def _spread(node: Any, shape: tuple[int, ...]) -> None:
    for name in CONSTANTS:
        value = getattr(node, name, None)
        if value is not None and math.prod(np.shape(value)) == 1:
            setattr(node, name, np.full(shape, np.asarray(value).item(), np.float32))
    node.__post_init__()  # its types follow from them


def require_known(graph: Any, seen: Running) -> None:
    """Refuse a graph in which a module has no counterpart.

    Raises:
        InputError: it has none.
    """
    kinds = {name: type(module).__name__ for name, module in seen.module.named_modules()}
    lost = [
        f"{kinds.get(name, 'module')} ({name})"
        for name, node in graph.nodes.items()
        if node is None
    ]
    if lost:
        raise InputError(f"nothing in NIR is made of {first_few(lost)}", field="--to nir")


def require_same_course(graph: Any, seen: Running) -> None:
    """Refuse a graph in which something else happens than in the network.

    It has all neurons, one input and one output, every node is on a way from one to the other, and
    where a node is a module, what entered this is what the nodes before it put out: nothing is done
    in between that an exporter did not see.

    Raises:
        InputError: it is not so.
    """
    spiking = sum(hasattr(node, "v_threshold") for node in graph.nodes.values())
    if spiking != (wanted := len(seen.network.neurons)):
        raise _cut(f"the graph has {spiking} of {counted(wanted, 'layer')} of neurons")
    for what, ends in (("input", graph.inputs), ("output", graph.outputs)):
        if len(ends) != 1:
            raise _cut(f"the graph has {len(ends)} {what}s: {first_few(sorted(ends))}")
    backwards = [(target, source) for source, target in graph.edges]
    met = _reached(graph.inputs, graph.edges) & _reached(graph.outputs, backwards)
    if lost := sorted(graph.nodes.keys() - met):
        raise _cut(f"the graph leads past {first_few(lost)}")
    values = {**seen.outputs, **dict.fromkeys(graph.inputs, seen.sample)}
    for name, entered in seen.inputs.items():
        before = [values.get(source) for source, target in graph.edges if target == name]
        if before and (name in seen.changed or not _is_sum(entered, before)):
            raise _cut(f"what enters {name} is not what the graph says")


def _reached(start: Iterable[str], edges: Collection[tuple[str, str]]) -> set[str]:
    met, pending = set[str](), list(start)
    while pending:
        node = pending.pop()
        if node not in met:
            met.add(node)
            pending += [target for source, target in edges if source == node]
    return met


def _is_sum(entered: Tensor, before: list[Tensor | None]) -> bool:
    known = [value for value in before if value is not None]
    if len(known) < len(before):  # a node within a module
        return True
    if any(value.shape != entered.shape for value in known):
        return False
    return torch.allclose(torch.stack(known).sum(0), entered, equal_nan=True)


def _cut(message: str) -> InputError:
    return InputError(
        message,
        field="--to nir",
        hint="its library saw modules alone: what forward does between them must be modules too",
    )
