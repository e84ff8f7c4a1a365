"""Passes over the data that end in the loss of each sample, and gradients that go back from it.

`SurrogateGradients` is for networks of somebody's own that have none where they spike.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.overrides import TorchFunctionMode

from snnprune.data.batches import Batches
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.calls import name_of, read_comparison_call
from snnprune.graph.forward import OutputReader, device_of, explain_label_errors
from snnprune.graph.network import Network
from snnprune.graph.state import use_eval_mode
from snnprune.measure.evaluation import check_labels, compute_time_averaged_loss
from snnprune.runtime import seed_draws


@contextlib.contextmanager
def enable_gradients(network: Network) -> Iterator[dict[str, nn.Parameter]]:
    """Eval mode with surrogate gradients, asked for by the weights of layers alone.

    Gives these by key. Afterwards everything asks for what it asked for before; no `.grad` is
    touched.
    """
    module = network.module
    weights = {key: module.get_parameter(key) for key in network.layers}
    with contextlib.ExitStack() as stack:
        stack.enter_context(use_eval_mode(module))
        for part in module.modules():
            stack.callback(_make_restorer(part))
        for neuron in network.neurons.values():
            if not neuron.sites:
                stack.enter_context(neuron.library.learning(neuron.module))
        for parameter in module.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        stack.enter_context(torch.enable_grad())
        yield weights


def _make_restorer(part: nn.Module) -> Callable[[], object]:
    """Puts back tensors that are attributes, as a weight that is made of others at each call."""
    attributes: dict[str, Any] = vars(part)
    before = {name: value for name, value in attributes.items() if isinstance(value, Tensor)}
    return lambda: attributes.update(before)


@contextlib.contextmanager
def replace_weights(
    weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]
) -> Iterator[None]:
    """In the block the weights have these values, by key; then they are the same tensors again."""
    before = {key: weights[key].data for key in values}
    try:
        for key, value in values.items():
            weights[key].data = value
        yield
    finally:
        for key, value in before.items():
            weights[key].data = value


@dataclass(frozen=True, kw_only=True)
class GradientPasses:
    """A network and the data that it is run on."""

    network: Network
    batches: Batches
    read: OutputReader
    """Of all passes: they are over the same batches."""
    seed: int = 0
    chosen: list[Tensor] = field(default_factory=list)
    """Labels of the batches: a later pass has those of the first, whatever it does to weights."""

    def outputs(
        self, start: Callable[[], None], fill: Callable[[Any], Any] = lambda x: x
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Logits (T, N, classes) and labels of each batch, run from rest on `fill` of it."""
        network = self.network
        for number, (x, y) in enumerate(network.feed(self.batches)):
            start()
            samples = network.count_samples(x, y)
            with seed_draws(self.seed, "gradients", number, device=device_of(network.module)):
                output = network.run(fill(x))
            with explain_label_errors(x, y):
                steps = self.read(output, samples)
            yield steps, y

    def compute_losses(self, start: Callable[[], None]) -> Iterator[Tensor]:
        """Of each batch the losses (N,) of its samples, with their graph."""
        for number, (steps, y) in enumerate(self.outputs(start)):
            if number == len(self.chosen):
                self.chosen.append(_choose_labels(steps.detach().sum(0), y))
            losses = compute_time_averaged_loss(steps, self.chosen[number])
            if not math.isfinite(float(losses.detach().sum())):
                raise NonFiniteError("the network puts out NaN or infinity", field="--data")
            require_gradient(losses)
            yield losses


class SampleMeans:
    """Means over samples of something per weight, in float64."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, key: str, found: Tensor | None) -> None:
        """Take in the sum of some samples."""
        if found is not None:
            self.sums[key] = self.sums.get(key, 0) + found.detach().double()

    def result(self) -> dict[str, Tensor]:
        """By weight key, on the CPU."""
        if not self.samples:
            raise InputError("no samples to take gradients on", field="--data")
        return {key: (found / self.samples).cpu() for key, found in self.sums.items()}


def compute_slopes(
    losses: Tensor,
    of: Sequence[Tensor] | Sequence[GradientEdge],
    *,
    weights: Tensor | None = None,
    again: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradient of the sum of `losses`, by `weights` where given, with respect to each of `of`.

    None for what does not take part. `again` keeps the graph for another call.
    """
    seeds = torch.ones_like(losses) if weights is None else weights
    try:
        with torch._C.DisableTorchFunction():  # a backward pass is not to be followed
            return torch.autograd.grad(losses, of, seeds, allow_unused=True, retain_graph=again)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise InputError(
            f"no gradient can be had: {str(error).splitlines()[0]}", field="--model"
        ) from error


def require_gradient(output: Tensor) -> None:
    """Refuse a network that cannot be differentiated at all."""
    if not output.requires_grad:
        raise InputError(
            "no gradient reaches the weights of the network",
            field="--model",
            hint="does it detach, or run without gradients? choose a criterion that needs none",
        )


def _choose_labels(scores: Tensor, y: Tensor | None) -> Tensor:
    """The labels that there are, or the class that the network chooses."""
    return scores.argmax(1) if y is None else check_labels(y, scores)


ALPHA = 2.0
CASTS = frozenset({"float", "double", "half", "bfloat16", "to", "type", "type_as"})
ARITHMETIC = frozenset({"mul", "multiply", "__mul__", "__rmul__", "add", "__add__", "__radd__"})
SHAPES = frozenset(
    {"view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand", "permute"}
    | {"transpose", "movedim", "contiguous", "clone"}
)


class SurrogateGradients(TorchFunctionMode):
    """In the block a number that is made of a comparison has the gradient of a smooth step.

    What is computed stays the same to the bit: 0 is added, which has the derivative
    α / (2 (1 + (π α z / 2)²)), α = 2, the ATan of Fang et al. 2021, arXiv 2007.05785; z is the
    distance of the membrane from its threshold, in units of a threshold that is a number and not 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self._distances: dict[int, tuple[Tensor, Tensor]] = {}
        """The results of comparisons, which are kept so that no other tensor takes their place,
        and how far above its threshold each membrane is."""

    def __exit__(self, *raised: Any) -> None:
        self._distances.clear()
        super().__exit__(*raised)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if not isinstance(result, Tensor) or not torch.is_grad_enabled():
            return result
        call = read_comparison_call(function, args, kwargs)
        if call is None:
            return self._hand_on(function, args, kwargs, result)
        distance = _measure_distance(call.above, call.below)
        if distance is None or distance.shape != result.shape:
            return result
        if result.dtype == torch.bool:
            return self._keep(result, distance)
        # torch has no derivative of heaviside; a sign goes from -1 to 1
        return result.detach() + (2 if name_of(function) in ("sign", "sgn") else 1) * _make_step(
            distance
        )

    def _keep(self, result: Tensor, distance: Tensor) -> Tensor:
        self._distances[id(result)] = (result, distance)
        return result

    def _find(self, value: Any) -> Tensor | None:
        found = self._distances.get(id(value))
        return None if found is None else found[1]

    def _hand_on(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Tensor,
    ) -> Tensor:
        """The result, with the gradient of the comparisons that it is made of."""
        found = [self._find(value) for value in args]
        name = name_of(function)
        if all(distance is None for distance in found):
            return result
        first = found[0]
        if name in SHAPES and first is not None and result.dtype == torch.bool:
            return self._keep(result, function(first, *args[1:], **kwargs))
        if not result.is_floating_point():
            return result
        if name in CASTS and first is not None:
            return result + _make_step(first).to(result.dtype)
        if name in ARITHMETIC:
            numbers = [
                value if distance is None else value.to(result.dtype) + _make_step(distance)
                for value, distance in zip(args, found, strict=True)
            ]
            again: Tensor = function(*numbers, **kwargs)
            return again
        if name == "where" and first is not None and len(args) == 3:
            apart = torch.as_tensor(args[1] - args[2], device=result.device).detach()
            return result + torch.nan_to_num(apart) * _make_step(first)
        return result


def _measure_distance(above: Any, below: Any) -> Tensor | None:
    """above - below in units of whichever is a number and not 0; None where none has a gradient."""
    asking = [
        isinstance(one, Tensor) and one.is_floating_point() and one.requires_grad
        for one in (above, below)
    ]
    if not any(asking):
        return None
    unit = next(filter(None, (_read_number(one) for one in (below, above))), 1.0)
    distance: Tensor = (above - below) / abs(unit)
    return distance


def _read_number(value: Any) -> float:
    """The value of a threshold that is one finite number, else 0."""
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.requires_grad:
            return 0.0
        value = float(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _make_step(distance: Tensor) -> Tensor:
    """0 with the derivative of a smooth step."""
    step = torch.atan(math.pi / 2 * ALPHA * distance) / math.pi
    return step - step.detach()
