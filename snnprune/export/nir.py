"""A NIR file: made, written, and read back before it takes its place.

Each library's own exporter makes it, called as the versions at hand need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.errors import InputError, Note, format_count, format_names
from snnprune.export import Written
from snnprune.export.chain_extraction import extract_chain
from snnprune.export.exporters import (
    NEEDED,
    RecordedNetwork,
    convert_package_errors,
    copy_layer_values,
    import_package,
    require_weights,
)
from snnprune.export.nir_chain import (
    STEP,
    count_others,
    describe_neurons,
    list_values,
    make_graph,
)
from snnprune.files.writing import replace_file
from snnprune.graph.network import Neuron


@torch.no_grad()
def write_nir(path: Path, seen: RecordedNetwork) -> Written:
    """Write what the network's library makes of it, if that is the network; notes on it.

    Raises:
        InputError: the library cannot export it, or nothing like it came out.
        OutputError: the file cannot be written.
    """
    if _is_for_chain(seen):
        return _write_chain(path, seen)
    layers = copy_layer_values(seen.network)  # an exporter may share their memory
    graph = export_graph(seen)
    require_counterparts(graph, seen)
    nir = import_package("nir", to="nir")
    with replace_file(path) as temporary:
        with convert_package_errors("nir", to="nir"):
            nir.write(temporary, graph)
            back = nir.read(temporary)
        require_weights(read_checkpoint(temporary).tensors, layers)
        require_same_course(back, seen)
        step = find_time_step(back, seen)
    return Written(notes=collect_notes(seen, step))


def _is_for_chain(seen: RecordedNetwork) -> bool:
    """Whether it has what no library exports, and a chain of layers may have."""
    strange = any(one.library.name not in EXPORTERS for one in seen.network.neurons.values())
    pools = (_BatchNorm, nn.MaxPool2d)
    return strange or any(isinstance(part, pools) for part in seen.module.modules())


def _write_chain(path: Path, seen: RecordedNetwork) -> Written:
    """Write it as a chain of layers, each BatchNorm folded into the one before it."""
    nir = import_package("nir", to="nir")
    found = extract_chain(seen)
    graph = make_graph(found.chain)
    with replace_file(path) as temporary:
        with convert_package_errors("nir", to="nir"):
            nir.write(temporary, graph)
            back = nir.read(temporary)
        require_weights(read_checkpoint(temporary).tensors, list_values(found.chain))
        others = count_others(back, found)
    notes = (_describe_step(STEP), *describe_neurons(found.chain))
    return Written(notes=notes, check=replace(found.check, other_spikes=others))


def _describe_step(time_step: float) -> str:
    return (
        f"NIR's neurons are of continuous time: a reader must take a time step of "
        f"{time_step:.5g}, in the unit of their tau"
    )


def collect_notes(seen: RecordedNetwork, time_step: float | None) -> tuple[str, ...]:
    """The time step, and a line where neurons reset in a way that NIR has no word for."""
    notes: list[str] = []
    if time_step is not None:
        notes.append(Note(_describe_step(time_step)))
    if soft := sum(_is_soft(neuron.module) for neuron in seen.network.neurons.values()):
        notes.append(
            f"NIR has the reset to a potential alone: {format_count(soft, 'layer')} of neurons "
            "that subtract the threshold, or do not reset, are exported with a reset to 0"
        )
    return tuple(notes)


def _is_soft(neuron: Any) -> bool:
    """Of snnTorch and sinabs; SpikingJelly refuses such a neuron itself, norse has none."""
    if getattr(neuron, "reset_mechanism", "zero") != "zero":
        return True
    return type(getattr(neuron, "reset_fn", None)).__name__ == "MembraneSubtract"


NEAR = 1e-3  # relative: constants are stored in float32, and 1 - beta loses digits
EXACT = ("sinabs",)  # decays by exp(-dt / tau); the others by Euler's 1 - dt / tau


def find_time_step(graph: Any, seen: RecordedNetwork) -> float | None:
    """The time step with which the graph's neurons decay as the network's, in the unit of tau.

    None where no neuron says. NIR's neurons are of continuous time, with a leak
    dv/dt = (v_leak - v + r x) / tau and without r x; a reader has to know the step.

    Raises:
        InputError: thresholds, inputs or decays are not those of the network.
    """
    found: float | None = None
    for neuron, node in _iter_pairs(graph, seen):
        _require_threshold(neuron, node)
        step = _find_step(neuron, node)
        if step is None:
            continue
        if found is not None and not math.isclose(step, found, rel_tol=NEAR):
            raise _mismatch_error(
                neuron, f"decays as in the network with a time step of {step:g}, others {found:g}"
            )
        found = step
    return found


def _iter_pairs(graph: Any, seen: RecordedNetwork) -> Iterator[tuple[Neuron, Any]]:
    """Neurons and their nodes, which exporters name after the module in one way or another."""
    nodes = {_simplify_name(name): node for name, node in graph.nodes.items()}
    for name, neuron in seen.network.neurons.items():
        node = nodes.get(_simplify_name(name), nodes.get(_simplify_name(f"{name}.lif")))
        if hasattr(node, "v_threshold"):
            yield neuron, node


def _simplify_name(name: str) -> str:
    return name.replace(".", "_").strip("_")


def _require_threshold(neuron: Neuron, node: Any) -> None:
    wanted = torch.as_tensor(neuron.constants.threshold, dtype=torch.float64).cpu()
    stored = np.asarray(node.v_threshold)
    for kind in ("min", "max"):
        a, b = float(getattr(wanted, kind)()), float(getattr(stored, kind)())
        if not math.isclose(a, b, rel_tol=NEAR):
            raise _mismatch_error(
                neuron, f"has the threshold {b:g} in the graph and {a:g} in the network"
            )


def _find_step(neuron: Neuron, node: Any) -> float | None:
    """Where the decay is known and one for all of them."""
    beta, resistance = neuron.constants.beta, _find_common_value(node.r)
    if beta is None or resistance is None:
        return None
    tau = getattr(node, "tau", getattr(node, "tau_mem", None))
    if tau is None:
        return 1 / resistance  # no leak: what comes in is r dt x
    if (constant := _find_common_value(tau)) is None or not 0 < beta < 1:
        return None
    gain = 1.0 if neuron.constants.decay_input else 1 / (1 - beta)
    if not math.isclose(resistance, gain, rel_tol=NEAR):
        raise _mismatch_error(
            neuron, f"has the resistance {resistance:g} in the graph instead of {gain:g}"
        )
    exact = neuron.library.name in EXACT
    return -constant * math.log(beta) if exact else constant * (1 - beta)


def _find_common_value(values: Any) -> float | None:
    """The value of all of them."""
    array = np.asarray(values)
    low, high = float(array.min()), float(array.max())
    return low if low == high else None


def _mismatch_error(neuron: Neuron, message: str) -> InputError:
    return InputError(
        f"neuron {neuron.name} {message}",
        field="--to nir",
        hint="its library's exporter made it so",
    )


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
    library = _library_of(seen)
    for package in NEEDED["nir"]:
        import_package(package, to="nir")
    with convert_package_errors(library, to="nir", hint=WHAT_IT_TAKES):
        return EXPORTERS[library](seen)


def _library_of(seen: RecordedNetwork) -> str:
    names = {neuron.library.name for neuron in seen.network.neurons.values()}
    if len(names) > 1:
        raise InputError(
            f"no exporter takes neurons of {' and '.join(sorted(names))} at once", field="--to nir"
        )
    return names.pop()
