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


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """The evidence about one layer; C_in and C_out are its channels."""

    input_rate: Tensor
    """Mean of |x| over batch, time and space of the tensor entering the layer, (C_in,) float64."""
    input_values: InputValues
    bn_scale: Tensor | None = None
    """|gamma| / sqrt(var + eps), (C_out,) float64; ones without BatchNorm, None without neuron."""
    time_gain: float = 1.0
    """How much longer an error lives in this membrane, where decay differs between layers."""
    neuron: NeuronStatistics | None = None
    """The neuron that the layer drives; shared by all layers that drive it."""
    refused: str | None = None
    """Why the neuron's statistics are not to be had, where it drives one."""


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
