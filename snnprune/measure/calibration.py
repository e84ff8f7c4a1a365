"""Calibrations: the statistics of a pass, and their file.

It is a safetensors file with a tensor for each statistic and weight or neuron.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError
from snnprune.measure import InputValues


@dataclass(frozen=True, kw_only=True)
class NeuronStatistics:
    """A spiking neuron's activity over batch, time and space."""

    firing_rate: Tensor
    """Spikes per neuron per time step, (C,) float64, in [0, 1]."""
    membrane_mean: Tensor
    """Membrane potential before reset, (C,) float64."""
    membrane_var: Tensor
    """Its population variance, (C,) float64."""
    membrane_histogram: Tensor
    """Counts of u - u_th, (C, bins + 2) int64; the first and last bin take what lies outside."""
    threshold: Tensor
    """(C,) float64."""
    membrane_mean_step: Tensor | None = None
    """Its mean at each time step, (T, C) float64; None in files of before it was taken."""
    membrane_var_step: Tensor | None = None
    """Its population variance at each time step, (T, C) float64; None likewise."""
    histogram_edges: Tensor | None = None
    """Those of the calibration."""


@dataclass(frozen=True, kw_only=True)
class DriveStatistics:
    """One way from a layer to a neuron that it drives; C_out are the layer's channels."""

    name: str
    """Of the neuron."""
    neuron: NeuronStatistics
    """Shared by all layers that drive it."""
    bn_scale: Tensor
    """|gamma| / sqrt(var + eps), (C_out,) float64; ones without BatchNorm, the mean of the time
    steps where they have their own."""
    time_gain: float = 1.0
    """How much longer an error lives in this membrane, where decay differs between neurons."""


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """The evidence about one layer; C_in are its input channels."""

    input_rate: Tensor
    """Mean of |x| over batch, time and space of the tensor entering the layer, (C_in,) float64."""
    input_values: InputValues
    input_mean: Tensor | None = None
    """Mean of x likewise, (C_in,) float64; None in files of before it was taken."""
    input_square: Tensor | None = None
    """Mean of x^2 likewise, (C_in,) float64; None likewise."""
    drives: tuple[DriveStatistics, ...] = ()
    """One for each neuron that it drives; empty where one of them has no statistics."""
    refused: str | None = None
    """Why there are no statistics of what it drives, where it drives something."""
    weight: Tensor | None = None
    """The weight (out, in / groups, *kernel) that a function of the network's makes of the
    parameter; None where it is the parameter."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Statistics by weight key and by neuron name, and what they were taken on."""

    layers: Mapping[str, LayerStatistics]
    neurons: Mapping[str, NeuronStatistics]
    samples: int
    time_steps: int
    histogram_edges: Tensor
    """(bins + 1,) float64, u - u_th in units of the input current."""
    source: Mapping[str, str] = field(default_factory=dict)
    """Which data, seed and checkpoint."""
    warnings: tuple[str, ...] = ()


FORMAT = "snnprune.calibration"
NEURON_FIELDS = ("membrane_mean", "membrane_var", "membrane_histogram", "threshold")
# files of before they were taken lack these: what needs one of them says so
LATER_NEURON_FIELDS = ("membrane_mean_step", "membrane_var_step")
MAY_BE_NEGATIVE = ("membrane_mean", "threshold", "input_mean")
LATER_LAYER_FIELDS = ("input_mean", "input_square", "weight")


class DriveNotes(BaseModel):
    """What a calibration file says in words of a way from a layer to a neuron."""

    neuron: str
    time_gain: float


class LayerNotes(BaseModel):
    """What it says of a layer."""

    input_values: InputValues
    drives: tuple[DriveNotes, ...]
    refused: str | None = None


class CalibrationNotes(BaseModel):
    """What a calibration file says in words, as JSON in its metadata."""

    samples: Annotated[int, Field(ge=1)]
    time_steps: Annotated[int, Field(ge=1, lt=2**31)]
    layers: dict[str, LayerNotes]
    source: dict[str, str]
    warnings: tuple[str, ...]


def write_calibration(path: Path, calibration: Calibration, metadata: Mapping[str, str]) -> None:
    """Write a calibration file; `docs/files.md` lists its tensors."""
    notes = CalibrationNotes(
        samples=calibration.samples,
        time_steps=calibration.time_steps,
        layers={key: _make_layer_notes(layer) for key, layer in calibration.layers.items()},
        source=dict(calibration.source),
        warnings=calibration.warnings,
    )
    metadata = {**metadata, FORMAT: notes.model_dump_json()}
    write_safetensors(path, dict(_iter_tensors(calibration)), metadata)


def read_calibration(path: Path) -> Calibration:
    """Read what `write_calibration` wrote.

    Raises:
        InputError: the file is damaged or is no calibration file.
    """
    checkpoint = read_checkpoint(path)
    try:
        notes = CalibrationNotes.model_validate_json(checkpoint.metadata[FORMAT])
        calibration = _assemble_calibration(notes, checkpoint.tensors)
    except (KeyError, ValidationError) as error:
        raise InputError(
            "is not a calibration file", file=path, hint="snnprune calibrate writes one"
        ) from error
    _require_fitting(calibration, path)
    return calibration


def _require_fitting(calibration: Calibration, path: Path) -> None:
    """Refuse statistics that are not of the shapes and kinds that `statistics` tells of.

    Raises:
        InputError: one is not; the first is named.
    """
    for name, tensor, shape in _iter_expected(calibration):
        if tensor is None:
            continue
        whole = name.startswith("membrane_histogram")
        if tuple(tensor.shape) != shape or tensor.is_floating_point() is whole:
            message = f"is {tensor.dtype} of shape {list(tensor.shape)}, expected {list(shape)}"
            raise InputError(message, file=path, field=name, hint="run snnprune calibrate again")
        if not name.startswith(MAY_BE_NEGATIVE) and bool((tensor < 0).any()):
            raise InputError(
                "is negative", file=path, field=name, hint="run snnprune calibrate again"
            )


def _iter_expected(
    calibration: Calibration,
) -> Iterator[tuple[str, Tensor | None, tuple[int, ...]]]:
    """Each statistic with its name in the file and the shape that it has."""
    bins = calibration.histogram_edges.numel() + 1
    for key, layer in calibration.layers.items():
        inputs = (layer.input_rate.numel(),)
        for part in ("input_rate", "input_mean", "input_square"):
            yield f"{part}/{key}", getattr(layer, part), inputs
        for index, drive in enumerate(layer.drives):
            neuron, name = drive.neuron, _number_key(key, index)
            channels = neuron.membrane_mean.numel()
            yield f"bn_scale/{name}", drive.bn_scale, (channels,)
            for part in ("membrane_mean", "membrane_var", "threshold"):
                yield f"{part}/{name}", getattr(neuron, part), (channels,)
            yield f"membrane_histogram/{name}", neuron.membrane_histogram, (channels, bins)
            for part in LATER_NEURON_FIELDS:
                steps = getattr(neuron, part)  # as many as the neuron has, which may be its own
                shape = (len(steps) if steps is not None and steps.dim() else 0, channels)
                yield f"{part}/{name}", steps, shape


def _iter_tensors(calibration: Calibration) -> Iterator[tuple[str, Tensor]]:
    yield "histogram_edges", calibration.histogram_edges
    for name, neuron in calibration.neurons.items():
        yield f"firing_rate/{name}", neuron.firing_rate
    for key, layer in calibration.layers.items():
        yield f"input_rate/{key}", layer.input_rate
        yield from _select_fields(layer, LATER_LAYER_FIELDS, key)
        for index, drive in enumerate(layer.drives):
            name = _number_key(key, index)
            yield f"bn_scale/{name}", drive.bn_scale
            yield from _select_fields(drive.neuron, (*NEURON_FIELDS, *LATER_NEURON_FIELDS), name)


def _select_fields(
    statistics: LayerStatistics | NeuronStatistics, fields: tuple[str, ...], name: str
) -> Iterator[tuple[str, Tensor]]:
    """The fields that are there, as tensors named after them and `name`."""
    for part in fields:
        if (tensor := getattr(statistics, part)) is not None:
            yield f"{part}/{name}", tensor


def _number_key(key: str, index: int) -> str:
    """The name of a layer's first, second, ... way to a neuron."""
    return key if index == 0 else f"{key}@{index + 1}"


def _make_layer_notes(layer: LayerStatistics) -> LayerNotes:
    return LayerNotes(
        input_values=layer.input_values,
        drives=tuple(
            DriveNotes(neuron=drive.name, time_gain=drive.time_gain) for drive in layer.drives
        ),
        refused=layer.refused,
    )


def _assemble_calibration(notes: CalibrationNotes, tensors: Mapping[str, Tensor]) -> Calibration:
    neurons = {
        drive.neuron: _read_neuron(drive.neuron, _number_key(key, index), tensors)
        for key, about in notes.layers.items()
        for index, drive in enumerate(about.drives)
    }
    layers = {
        key: LayerStatistics(
            input_rate=tensors[f"input_rate/{key}"],
            input_values=about.input_values,
            input_mean=tensors.get(f"input_mean/{key}"),
            input_square=tensors.get(f"input_square/{key}"),
            weight=tensors.get(f"weight/{key}"),
            drives=tuple(
                DriveStatistics(
                    name=drive.neuron,
                    neuron=neurons[drive.neuron],
                    bn_scale=tensors[f"bn_scale/{_number_key(key, index)}"],
                    time_gain=drive.time_gain,
                )
                for index, drive in enumerate(about.drives)
            ),
            refused=about.refused,
        )
        for key, about in notes.layers.items()
    }
    return Calibration(
        layers=layers,
        neurons=neurons,
        samples=notes.samples,
        time_steps=notes.time_steps,
        histogram_edges=tensors["histogram_edges"],
        source=notes.source,
        warnings=notes.warnings,
    )


def _read_neuron(name: str, key: str, tensors: Mapping[str, Tensor]) -> NeuronStatistics:
    found = {part: tensors[f"{part}/{key}"] for part in NEURON_FIELDS}
    return NeuronStatistics(
        firing_rate=tensors[f"firing_rate/{name}"],
        histogram_edges=tensors["histogram_edges"],
        membrane_mean_step=tensors.get(f"membrane_mean_step/{key}"),
        membrane_var_step=tensors.get(f"membrane_var_step/{key}"),
        **found,
    )
