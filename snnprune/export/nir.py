"""A NIR file: made, written, and read back before it takes its place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snnprune.checkpoint.read import read_checkpoint
from snnprune.errors import InputError
from snnprune.errors.text import format_count
from snnprune.export.network import RecordedNetwork, copy_layer_values, require_weights
from snnprune.export.nir_graph import export_graph, require_counterparts, require_same_course
from snnprune.export.packages import convert_package_errors, import_package
from snnprune.files.together import replace_file
from snnprune.graph.network import Neuron


def collect_notes(seen: RecordedNetwork, time_step: float | None) -> tuple[str, ...]:
    """The time step, and a line where neurons reset in a way that NIR has no word for."""
    notes = []
    if time_step is not None:
        notes.append(
            f"NIR's neurons are of continuous time: a reader must take a time step of "
            f"{time_step:.5g}, in the unit of their tau"
        )
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


@torch.no_grad()
def write_nir(path: Path, seen: RecordedNetwork) -> tuple[str, ...]:
    """Write what the network's library makes of it, if that is the network; notes on it.

    Raises:
        InputError: the library cannot export it, or nothing like it came out.
        OutputError: the file cannot be written.
    """
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
    return collect_notes(seen, step)
