"""Each library's own exporter, called as the versions at hand need it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnprune.errors import InputError
from snnprune.export.network import Running
from snnprune.export.packages import NEEDED, required, speaking
from snnprune.text import counted, first_few

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


WHAT_IT_TAKES = "docs/exporting.md says what each library exports"
PER_NEURON = ("alpha", "beta", "threshold")


def _snntorch(seen: Running) -> Any:
    """NIR has a number for each neuron; snnTorch exports one for all of them as it is."""
    for name, neuron in seen.network.neurons.items():
        shape = seen.outputs[name].shape[1:]
        for constant in PER_NEURON:
            _fill_shape(neuron.module, constant, shape)
    export = required("snntorch.export_nir", to="nir").export_to_nir
    return export(seen.module, seen.sample, ignore_dims=[0])


def _fill_shape(neuron: nn.Module, name: str, shape: torch.Size) -> None:
    held = getattr(neuron, name, None)
    if isinstance(held, torch.Tensor) and held.numel() == 1:
        whole = held.detach().reshape(()).expand(shape).clone()
        setattr(neuron, name, nn.Parameter(whole) if isinstance(held, nn.Parameter) else whole)


def _spikingjelly(seen: Running) -> Any:
    export = required("spikingjelly.activation_based.nir_exchange", to="nir").export_to_nir
    return export(seen.module, seen.sample)


def _sinabs(seen: Running) -> Any:
    return completed(required("sinabs.nir", to="nir").to_nir(seen.module, seen.sample), seen)


def _norse(seen: Running) -> Any:
    export = required("norse.torch.utils.export_nir", to="nir").to_nir
    return completed(export(seen.module, seen.sample), seen)


EXPORTERS: dict[str, Callable[[Running], Any]] = {
    "snnTorch": _snntorch,
    "SpikingJelly": _spikingjelly,
    "sinabs": _sinabs,
    "norse": _norse,
}


def graph_of(seen: Running) -> Any:
    """The network as its own library exports it.

    Raises:
        InputError: no library or several, or it cannot.
    """
    _require_no_batchnorm(seen.module)
    library = _library_of(seen)
    for package in NEEDED["nir"]:
        required(package, to="nir")
    with speaking(library, to="nir", hint=WHAT_IT_TAKES):
        return EXPORTERS[library](seen)


def _library_of(seen: Running) -> str:
    names = {neuron.library.name for neuron in seen.network.neurons.values()}
    if strange := [
        n for n, one in seen.network.neurons.items() if one.library.name not in EXPORTERS
    ]:
        raise InputError(
            f"no library exports the neurons {first_few(strange)}",
            field="--to nir",
            hint=f"those of {', '.join(EXPORTERS)} can be exported",
        )
    if len(names) > 1:
        raise InputError(
            f"no exporter takes neurons of {' and '.join(sorted(names))} at once", field="--to nir"
        )
    return names.pop()


def _require_no_batchnorm(module: nn.Module) -> None:
    norms = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm)]
    if norms:
        raise InputError(
            f"NIR has no BatchNorm (modules {first_few(norms)})",
            field="--to nir",
            hint="fold each into the layer before it (torch.nn.utils.fusion.fuse_conv_bn_eval "
            "keeps zeros) and export that network",
        )
