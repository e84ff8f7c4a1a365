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
from snnprune.errors.text import format_count, format_names
from snnprune.export.network import RecordedNetwork
from snnprune.export.packages import NEEDED, convert_package_errors, import_package

CONSTANTS = ("tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in")
"""Of neurons in NIR: arrays in the shape of a sample."""


def complete_graph(graph: Any, seen: RecordedNetwork) -> Any:
    """With shapes of samples instead of batches, one constant for each neuron, and all types."""
    nir, skip = import_package("nir", to="nir"), seen.batch_dims
    require_counterparts(graph, seen)
    last = [source for source, target in graph.edges if target == "output"]
    for name, node in graph.nodes.items():
        if hasattr(node, "r") and name in seen.outputs:
            _expand_constants(node, tuple(seen.outputs[name].shape[skip:]))
    graph.nodes["input"] = nir.Input(np.array(seen.sample.shape[skip:]))
    graph.nodes["output"] = nir.Output(np.array(seen.outputs[last[0]].shape[skip:]))
    graph.infer_types()
    return graph


def _expand_constants(node: Any, shape: tuple[int, ...]) -> None:
    for name in CONSTANTS:
        value = getattr(node, name, None)
        if value is not None and math.prod(np.shape(value)) == 1:
            setattr(node, name, np.full(shape, np.asarray(value).item(), np.float32))
    node.__post_init__()  # its types follow from them


def require_counterparts(graph: Any, seen: RecordedNetwork) -> None:
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
        raise InputError(f"nothing in NIR is made of {format_names(lost)}", field="--to nir")


def require_same_course(graph: Any, seen: RecordedNetwork) -> None:
    """Refuse a graph in which something else happens than in the network.

    It has all neurons, one input and one output, every node is on a way from one to the other, and
    where a node is a module, what entered this is what the nodes before it put out: nothing is done
    in between that an exporter did not see.

    Raises:
        InputError: it is not so.
    """
    spiking = sum(hasattr(node, "v_threshold") for node in graph.nodes.values())
    if spiking != (wanted := len(seen.network.neurons)):
        raise _graph_error(f"the graph has {spiking} of {format_count(wanted, 'layer')} of neurons")
    for what, ends in (("input", graph.inputs), ("output", graph.outputs)):
        if len(ends) != 1:
            raise _graph_error(f"the graph has {len(ends)} {what}s: {format_names(sorted(ends))}")
    backwards = [(target, source) for source, target in graph.edges]
    met = _find_reachable(graph.inputs, graph.edges) & _find_reachable(graph.outputs, backwards)
    if lost := sorted(graph.nodes.keys() - met):
        raise _graph_error(f"the graph leads past {format_names(lost)}")
    values = {**seen.outputs, **dict.fromkeys(graph.inputs, seen.sample)}
    for name, entered in seen.inputs.items():
        before = [values.get(source) for source, target in graph.edges if target == name]
        if before and (name in seen.changed or not _is_sum(entered, before)):
            raise _graph_error(f"what enters {name} is not what the graph says")


def _find_reachable(start: Iterable[str], edges: Collection[tuple[str, str]]) -> set[str]:
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


def _graph_error(message: str) -> InputError:
    return InputError(
        message,
        field="--to nir",
        hint="its library saw modules alone: what forward does between them must be modules too",
    )


WHAT_IT_TAKES = "docs/exporting.md says what each library exports"
PER_NEURON = ("alpha", "beta", "threshold")


def _export_snntorch(seen: RecordedNetwork) -> Any:
    """NIR has a number for each neuron; snnTorch exports one for all of them as it is."""
    for name, neuron in seen.network.neurons.items():
        shape = seen.outputs[name].shape[1:]
        for constant in PER_NEURON:
            _expand_parameter(neuron.module, constant, shape)
    export = import_package("snntorch.export_nir", to="nir").export_to_nir
    return export(seen.module, seen.sample, ignore_dims=[0])


def _expand_parameter(neuron: nn.Module, name: str, shape: torch.Size) -> None:
    held = getattr(neuron, name, None)
    if isinstance(held, torch.Tensor) and held.numel() == 1:
        whole = held.detach().reshape(()).expand(shape).clone()
        setattr(neuron, name, nn.Parameter(whole) if isinstance(held, nn.Parameter) else whole)


def _export_spikingjelly(seen: RecordedNetwork) -> Any:
    export = import_package("spikingjelly.activation_based.nir_exchange", to="nir").export_to_nir
    return export(seen.module, seen.sample)


def _export_sinabs(seen: RecordedNetwork) -> Any:
    return complete_graph(
        import_package("sinabs.nir", to="nir").to_nir(seen.module, seen.sample), seen
    )


def _export_norse(seen: RecordedNetwork) -> Any:
    export = import_package("norse.torch.utils.export_nir", to="nir").to_nir
    return complete_graph(export(seen.module, seen.sample), seen)


EXPORTERS: dict[str, Callable[[RecordedNetwork], Any]] = {
    "snnTorch": _export_snntorch,
    "SpikingJelly": _export_spikingjelly,
    "sinabs": _export_sinabs,
    "norse": _export_norse,
}


def export_graph(seen: RecordedNetwork) -> Any:
    """The network as its own library exports it.

    Raises:
        InputError: no library or several, or it cannot.
    """
    _require_no_batchnorm(seen.module)
    library = _library_of(seen)
    for package in NEEDED["nir"]:
        import_package(package, to="nir")
    with convert_package_errors(library, to="nir", hint=WHAT_IT_TAKES):
        return EXPORTERS[library](seen)


def _library_of(seen: RecordedNetwork) -> str:
    names = {neuron.library.name for neuron in seen.network.neurons.values()}
    if strange := [
        n for n, one in seen.network.neurons.items() if one.library.name not in EXPORTERS
    ]:
        raise InputError(
            f"no library exports the neurons {format_names(strange)}",
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
            f"NIR has no BatchNorm (modules {format_names(norms)})",
            field="--to nir",
            hint="fold each into the layer before it (torch.nn.utils.fusion.fuse_conv_bn_eval "
            "keeps zeros) and export that network",
        )
