"""What enters and leaves layers in a forward pass, and the gradients of weights from that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from snnprune.gradients.learning import differentiable
from snnprune.gradients.passes import slopes
from snnprune.network import Layer, LayerCall, Network, watching


@dataclass(frozen=True, kw_only=True)
class Use:
    """One use of a layer: what went in, and where the gradient of what came out is."""

    key: str
    call: LayerCall
    edge: GradientEdge


class Uses:
    """The uses of all layers in one forward pass."""

    def __init__(self) -> None:
        self.found: list[Use] = []
        self.call: LayerCall | None = None

    def on_layer(self, _: str, call: LayerCall) -> None:
        self.call = call

    def on_current(self, key: str, current: Tensor) -> None:
        made = self.call is not None and self.call.weight.requires_grad  # and not of detached data
        if self.call is not None and made and current.requires_grad:
            # the edge, because what comes after may write into the current
            edge = get_gradient_edge(current)
            self.found.append(Use(key=key, call=self.call, edge=edge))

    def slopes(self, losses: Tensor, *, weights: Tensor | None = None) -> tuple[Tensor | None, ...]:
        """dL/dI of each use, in the shape of the layer's output I."""
        edges = [use.edge for use in self.found]
        return slopes(losses, edges, weights=weights, again=True)


@contextlib.contextmanager
def watched(
    network: Network,
) -> Iterator[tuple[Uses, dict[str, nn.Parameter], Callable[[], None]]]:
    """Gives the uses of layers in a batch, the weights, and the function that begins a batch."""
    uses = Uses()
    seen = watching(network, on_layer=uses.on_layer, on_current=uses.on_current)
    with differentiable(network) as weights, seen as reset:

        def start() -> None:
            uses.found.clear()
            reset()

        yield uses, weights, start


def rows(tensor: Tensor, layer: Layer) -> Tensor:
    """(rows, C, *space), whatever stands before the channels."""
    return tensor.detach().reshape(-1, *tensor.shape[layer.channel_axis :])


def made_of(call: LayerCall, x: Tensor, slope: Tensor) -> Tensor:
    """The gradient of the weight in a call, of these rows of its input and of dL/dI."""
    with torch._C.DisableTorchFunction(), torch.enable_grad():
        if call.kind == "linear" and call.groups == 1:
            return slope.T @ x
        weight = torch.zeros_like(call.weight, requires_grad=True)
        made = call.applied(x, weight)
        return torch.autograd.grad(made, weight, slope)[0]


def to_parameter(gradient: Tensor, call: LayerCall, parameter: nn.Parameter) -> Tensor:
    """The gradient of the parameter that a call's weight is, or is a multiple of."""
    if call.weight is parameter:
        return gradient
    with torch._C.DisableTorchFunction():
        return torch.autograd.grad(call.weight, parameter, gradient, retain_graph=True)[0]
