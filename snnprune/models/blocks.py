"""What the built-in networks are made of; activations are (T, N, ...) everywhere."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.models.lif import LIF, Dynamics

NeuronOptions = dict[str, Any] | None


def apply_per_step(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer for (N, ...) to each of the T steps of x (T, N, ...) in one call."""
    y = layer(x.flatten(0, 1))
    return y.unflatten(0, (x.shape[0], x.shape[1]))


def as_steps(x: Tensor, sample_dims: int = 3) -> Tensor:
    """A still image (N, C, H, W) as one step (1, N, C, H, W); event data (T, N, ...) as it is."""
    return x.unsqueeze(0) if x.dim() == sample_dims + 1 else x


class SpikingConv(nn.Module):
    """Convolution, batch normalisation, LIF."""

    def __init__(
        self, inputs: int, outputs: int, dynamics: Dynamics, *, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(outputs)
        self.neuron = LIF(dynamics)

    def current(self, x: Tensor) -> Tensor:
        """What the neurons receive: (T, N, C_out, H', W')."""
        return apply_per_step(lambda step: self.norm(self.conv(step)), x)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.current(x))


class Encoder(SpikingConv):
    """A `SpikingConv` that turns a still image into spikes over `time_steps` (direct encoding)."""

    def __init__(
        self, inputs: int, outputs: int, dynamics: Dynamics, *, time_steps: int, bias: bool = False
    ) -> None:
        super().__init__(inputs, outputs, dynamics, bias=bias)
        if time_steps < 1:
            raise InputError(f"{time_steps} is not a number of steps", field="time_steps")
        self.time_steps = time_steps

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (T, N, C, H, W) from an image (N, C, H, W) or from events (T, N, C, H, W)."""
        current = self.current(as_steps(x))
        if len(current) == 1:  # the same image at every step: convolve it once
            current = current.expand(self.time_steps, -1, -1, -1, -1)
        return self.neuron(current)


class SpikingLinear(nn.Module):
    """Linear layer and LIF."""

    def __init__(self, inputs: int, outputs: int, dynamics: Dynamics) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.neuron = LIF(dynamics)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.linear(x))
