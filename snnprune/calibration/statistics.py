"""What calibration finds out, as small data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

InputValues = Literal["binary", "counts", "analog"]
"""0 or 1; whole numbers from 0 up; anything else."""


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
