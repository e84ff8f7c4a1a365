"""Rows per layer, what it cost, and reports, of commands that work on a checkpoint.

Importing this imports no torch.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from snnprune.checkpoint.naming import Outline, is_statistic
from snnprune.errors import Note, format_count, format_names
from snnprune.measure import InputValues, Natural
from snnprune.pruning.repair import CostEstimate
from snnprune.report import make_file_entry, make_report
from snnprune.runtime import read_peak_gpu_memory, read_peak_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from snnprune.graph.network import Link, Network
    from snnprune.jobs.targets.target import Target
    from snnprune.measure.calibration import Calibration, LayerStatistics
    from snnprune.pruning.score import Scores


@dataclass(frozen=True, kw_only=True)
class LinkRow:
    """A layer's way to a neuron that it drives."""

    neuron: str
    norms: tuple[tuple[str, ...], ...]
    """What normalises on the way, in order; several lists where time steps have their own."""
    through: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """A prunable layer; rates in [0, 1], None where nobody measured."""

    weight: str
    shape: tuple[Natural, ...]
    weights: Natural
    kept: Natural | None
    """None where the values were not read."""
    input_rate: float | None = None
    """Mean of |x| of what enters."""
    input_values: InputValues | None = None
    firing_rate: float | None = None
    """Spikes per neuron per time step of the first neuron that it drives."""
    encoding: bool | None = None
    """Fed by the network's input through no spiking neuron; None where the links are not known."""
    links: tuple[LinkRow, ...] = ()
    """One for each neuron that it drives."""
    criterion: str | None = None
    reason: str | None = None
    """Why it was not scored by the criterion that was asked for."""

    @property
    def neuron(self) -> str | None:
        """The first neuron that it drives."""
        return self.links[0].neuron if self.links else None

    @property
    def sparsity(self) -> float | None:
        """Share of the weights that is 0."""
        return None if self.kept is None else 1 - self.kept / self.weights


def make_layer_rows(
    weights: Mapping[str, Tensor],
    *,
    kept: Mapping[str, Tensor] | None = None,
    network: Network | None = None,
    calibration: Calibration | None = None,
    scores: Scores | None = None,
) -> tuple[LayerRow, ...]:
    """A row for each of `weights`; without masks `kept`, what is not 0 counts as kept."""
    rows = []
    for key, weight in weights.items():
        layer = network.layers.get(key) if network else None
        seen = calibration.layers.get(key) if calibration else None
        alive = kept[key] if kept is not None else weight != 0
        rows.append(
            LayerRow(
                weight=key,
                shape=tuple(weight.shape),
                weights=weight.numel(),
                kept=int(alive.sum()),
                input_rate=float(seen.input_rate.mean()) if seen else None,
                input_values=seen.input_values if seen else None,
                firing_rate=_read_firing_rate(seen) if seen else None,
                encoding=layer.encoding if layer else None,
                links=tuple(_make_link_row(link) for link in layer.links) if layer else (),
                criterion=scores.used(key) if scores else None,
                reason=scores.fallback.get(key) if scores else None,
            )
        )
    return tuple(rows)


def _make_link_row(link: Link) -> LinkRow:
    norms = (
        tuple(norm.variance.removesuffix(".running_var") for norm in chain) for chain in link.norms
    )
    return LinkRow(neuron=link.neuron, norms=tuple(filter(None, norms)), through=link.through)


def _read_firing_rate(seen: LayerStatistics) -> float | None:
    """Of the first neuron that the layer drives."""
    return float(seen.drives[0].neuron.firing_rate.mean()) if seen.drives else None


def count_totals(
    rows: tuple[LayerRow, ...], tensors: Mapping[str, Outline], network: Network | None
) -> dict[str, Any]:
    """Counts over all rows, and over all `tensors` of the file or all that the network has.

    `weights` are the values of everything of two or more dimensions, prunable or not. Where the
    values were not read, `kept` and `pruned` are None.
    """
    prunable, kept = sum(row.weights for row in rows), [row.kept for row in rows]
    known = None if None in kept else sum(filter(None, kept))
    held = _list_parameters(tensors, network)
    weights = sum(tensor.numel() for tensor in held if tensor.dim() > 1)
    return {
        "prunable": prunable,
        "kept": known,
        "pruned": None if known is None else prunable - known,
        "weights": max(weights, prunable),
        "parameters": sum(tensor.numel() for tensor in held),
    }


def _list_parameters(tensors: Mapping[str, Outline], network: Network | None) -> Sequence[Outline]:
    """All parameters; without the network, floats that are no running statistic."""
    if network is not None:
        return list(network.module.parameters())
    return [
        tensor
        for key, tensor in tensors.items()
        if tensor.is_floating_point() and not is_statistic(key)
    ]


def warn_of_unused(unused: Iterable[str]) -> tuple[str, ...]:
    """One line that names the `unused`, where there are some."""
    keys = list(unused)
    weights = format_count(len(keys), "weight")
    line = f"not pruned: {weights} that no convolution or linear layer uses: {format_names(keys)}"
    return (Note(line),) if keys else ()


def as_dicts(rows: tuple[LayerRow, ...]) -> list[dict[str, Any]]:
    """The rows for a report."""
    return [{**asdict(row), "neuron": row.neuron} for row in rows]


def make_target_report(
    target: Target, command: str, *, warnings: Sequence[str] = (), **findings: Any
) -> dict[str, Any]:
    """The report of a command that worked on one checkpoint."""
    return make_report(
        command,
        device=target.device,
        seed=target.options.seed,
        inputs=[make_file_entry(target.checkpoint.path, target.checkpoint.sha256)],
        warnings=(*target.checkpoint.notes, *warnings),
        excluded=target.prunable.find_excluded(),
        config=target.options.used,
        **describe_target(target),
        **findings,
    )


def describe_target(target: Target | None) -> dict[str, Any]:
    """Which model and data a report is about, if any."""
    if target is None:
        return {"model": None, "data": None}
    model, data = target.spec, target.data_spec
    return {
        "model": model
        and {"name": model.name, "args": dict(model.args), **_describe_forward(target)},
        "data": data and data.as_dict(),
    }


def _describe_forward(target: Target) -> dict[str, str]:
    """The function that ran it, where it is the user's own."""
    named = target.options.forward
    return {} if named is None else {"forward": named}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command took."""

    seconds: Mapping[str, float]
    """By stage."""
    peak_memory: Natural | None
    """The most that the process has had, in bytes."""
    peak_gpu_memory: Natural | None
    """The same of torch on a GPU."""
    estimates: tuple[CostEstimate, ...] = ()
    """What was told before each closed form that takes long."""


class StageTimer:
    """Seconds that passed in each stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block belongs to the stage `name`; a stage may be entered many times."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - start

    def report(
        self, device: torch.device | None = None, estimates: Iterable[CostEstimate] = ()
    ) -> dict[str, Any]:
        """So far, with the most memory that the process, and on a GPU torch, has had (bytes)."""
        on_gpu = device is not None and device.type == "cuda"
        cost = Cost(
            seconds={name: round(seconds, 3) for name, seconds in self._seconds.items()},
            peak_memory=read_peak_memory(),
            peak_gpu_memory=read_peak_gpu_memory(device) if on_gpu else None,
            estimates=tuple(estimates),
        )
        return asdict(cost)
