"""Sub-networks of random networks, found without training a weight (edge-popup).

Weights are drawn once: what is searched is which to keep. A parametrization lets those with the
highest scores through.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from snnprune.checkpoint.naming import MASK, ORIGINAL
from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.masks import select_highest
from snnprune.runtime import make_generator

PLAIN = "a search needs plain parameters: give the network as it is before that"


@contextlib.contextmanager
def attach_parametrization(owner: nn.Module, name: str, part: nn.Module) -> Iterator[None]:
    """`owner.name` is what `part` makes of it, in the block."""
    order = list(owner._parameters)
    parametrize.register_parametrization(owner, name, part)
    # a class of torch's would hide from `Network.reset_between_batches` that the states in it are a
    # user's
    type(owner).__module__ = type(owner).__bases__[0].__module__
    try:
        yield
    finally:
        parametrize.remove_parametrizations(owner, name, leave_parametrized=False)
        for each in order:  # it came back as the last
            owner._parameters[each] = owner._parameters.pop(each)


def find_owner(module: nn.Module, key: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and the parameter's name in it."""
    path, _, name = key.rpartition(".")
    return module.get_submodule(path), name


def find_owners(module: nn.Module, names: Iterable[str]) -> list[tuple[nn.Module, str]]:
    """Where a parameter is held; a module that has several names itself counts once."""
    places = [find_owner(module, name) for name in names]
    return list({(id(owner), name): (owner, name) for owner, name in places}.values())


def require_plain(network: Network) -> None:
    """Refuse weights that are not plain parameters with values.

    Raises:
        InputError: one is lazy, made of others, masked or compiled to TorchScript.
    """
    for key, parameter in network.module.named_parameters():
        if is_lazy(parameter):
            raise InputError("has no shape yet", field=key, hint="run a batch through it first")
    for key, how in network.made.items():
        raise InputError(f"is made by {how}", field=key, hint=PLAIN)
    for key in network.layers:
        if reason := _find_obstacle(*find_owner(network.module, key)):
            raise InputError(reason, field=key, hint=PLAIN)


def _find_obstacle(owner: nn.Module, name: str) -> str | None:
    if isinstance(owner, parametrize.ParametrizationList):
        return "is parametrized already"
    if name.endswith(ORIGINAL) and hasattr(owner, name.removesuffix(ORIGINAL) + MASK):
        return "is masked by torch.nn.utils.prune"
    if isinstance(owner, torch.jit.ScriptModule):
        return "belongs to a module of TorchScript"
    return None


class TopScores(nn.Module):
    """weight * h(|score|): h is 1 for the `count` highest |score| of the weight, else 0.

    Straight through h (Eq. 11 with its sign and sign(score) set right), a score's gradient is
    dL/d(effective weight) * weight * sign(score), for masked weights too. The weight has none.
    """

    def __init__(self, scores: Tensor, count: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.count = count
        self.known = CachedWeight()

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, in the shape and type of `weight`."""
        effective = self.effective(weight)
        result: Tensor = _StraightThrough.apply(weight, self.scores, effective, self.known)
        return result

    @torch.no_grad()
    def mask(self) -> Tensor:
        """True = kept, in the shape and layout of the scores."""
        kept = select_highest(self.scores.abs().reshape(-1), self.count).view(self.scores.shape)
        return torch.empty_like(self.scores, dtype=torch.bool).copy_(kept)

    def effective(self, weight: Tensor) -> Tensor:
        """`weight` where it is kept, else 0; computed again when either tensor has changed.

        A network may read its weight at every time step; all share one tensor, which must not be
        written to.
        """
        state = (*_identity(self.scores), *_identity(weight))
        if self.known.effective is None or self.known.state != state:
            # a pass in inference mode must leave what a training step can use
            with torch.inference_mode(False), torch.no_grad():
                # three times faster than torch.where; the sum turns -0.0 into 0.0
                effective = (weight * self.mask()).add_(0.0)
            self.known.state, self.known.effective = state, effective
            return effective
        return self.known.effective


@dataclass(slots=True, eq=False)  # slots: no look for a neuron's state goes into it
class CachedWeight:
    """The effective weight of tensors in a known state."""

    state: tuple[object, ...] | None = None
    effective: Tensor | None = None

    def __deepcopy__(self, _: object) -> CachedWeight:
        return CachedWeight()


class _StraightThrough(Function):
    """Gives the effective weight (out, in, *kernel); its gradient goes to the scores alone."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scores: Tensor, effective: Tensor, known: CachedWeight
    ) -> Tensor:
        ctx.save_for_backward(weight, scores)
        ctx.known = known
        return effective.detach()  # shares the memory: no copy for each time step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        weight, scores = ctx.saved_tensors
        ctx.known.effective = None  # torch's fused optimizers change values and count no version
        return None, (gradients[0] * weight * scores.sign()).to(scores.dtype), None, None


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """Differs after a change of the values that torch counts, and where they were moved."""
    return tensor._version, tensor.data_ptr(), tensor.device, tensor.dtype


WeightDraw = Literal["signed-constant", "kaiming-normal"]
"""Weights of one absolute value and a random sign, or normally distributed."""


def draw_weight(shape: torch.Size, draw: WeightDraw, *, kept: float, seed: int, key: str) -> Tensor:
    """A weight (out, in / groups, *kernel) in float32, the same on every device.

    Its standard deviation is that of He et al. 2015 (arXiv 1502.01852, fan-in, gain sqrt 2)
    over sqrt(kept), so that an input current varies as much as with all weights there.
    """
    normal = torch.randn(shape, generator=make_generator(seed, "search weights", key))
    deviation = math.sqrt(2 / (count_fan_in(shape) * kept))
    if draw == "signed-constant":
        return torch.full(shape, deviation).copysign(normal)
    return normal * deviation


def draw_scores(shape: torch.Size, *, seed: int, key: str) -> Tensor:
    """Scores in float32, uniform within 1 / sqrt(fan-in): kaiming-uniform with a = sqrt 5."""
    scores = torch.empty(shape)
    source = make_generator(seed, "search scores", key)
    return nn.init.kaiming_uniform_(scores, a=math.sqrt(5), generator=source)


def count_fan_in(shape: torch.Size) -> int:
    """How many inputs an output of a weight (out, in / groups, *kernel) has."""
    return math.prod(shape[1:])


@contextlib.contextmanager
def freeze(module: nn.Module) -> Iterator[None]:
    """No parameter learns in the block; after it, parameters and buffers have their old values."""
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    values = [(parameter, parameter.detach().clone()) for parameter, _ in flags]
    buffers = [
        (part, name, buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    module.requires_grad_(False)
    try:
        yield
    finally:
        _put_back(values, buffers)
        for parameter, learns in flags:
            parameter.requires_grad_(learns)


@torch.no_grad()
def _put_back(
    values: list[tuple[nn.Parameter, Tensor]], buffers: list[tuple[nn.Module, str, Tensor]]
) -> None:
    for parameter, before in values:
        parameter.copy_(before)
    for part, name, old in buffers:
        now = part._buffers.get(name)
        if now is None or now.shape != old.shape or now.is_inference():
            part._buffers[name] = old  # a neuron's state, which batches make anew
        else:
            now.copy_(old)


@torch.no_grad()
def neutralise(network: Network, names: Iterable[str]) -> None:
    """Biases beside the weights `names` become 0, BatchNorm plain and at its beginning.

    Gamma 1, beta 0, running statistics as in a new network.
    """
    for name in names:
        owner, own_name = find_owner(network.module, name)
        bias = owner._parameters.get(own_name.replace("weight", "bias"))
        if bias is not None and bias is not owner._parameters[own_name]:
            bias.zero_()
    for part in network.module.modules():
        if isinstance(part, _BatchNorm):
            part.reset_running_stats()
            for learnt, value in ((part.weight, 1.0), (part.bias, 0.0)):
                if isinstance(learnt, Tensor):  # some norms have only one of them
                    learnt.fill_(value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subnetwork:
    """A random network under masks; only `scores` learn."""

    network: Network
    """As it was traced; its module computes with the masked weights."""
    parts: Mapping[str, TopScores]
    """What masks each layer, by weight key."""
    names: Mapping[str, tuple[str, ...]]
    """Every state-dict key of each weight, by weight key."""
    keys: tuple[str, ...]
    """Of the module's state dict without the masks, in its order."""

    @property
    def scores(self) -> dict[str, nn.Parameter]:
        """What to give to an optimizer, by weight key; each in its weight's shape."""
        return {key: part.scores for key, part in self.parts.items()}

    def masks(self) -> dict[str, Tensor]:
        """True = kept, by weight key."""
        return {key: part.mask() for key, part in self.parts.items()}

    def weight(self, key: str) -> Tensor:
        """The drawn weight, before the mask."""
        path, _, name = key.rpartition(".")
        original = f"parametrizations.{name}.original"
        return self.network.module.get_parameter(f"{path}.{original}" if path else original)

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """What the plain module would hold: its own keys and order, 0 where a weight is masked.

        A copy, in which what is one tensor under several names still is one.
        """
        held = self.network.module.state_dict()
        for key, part in self.parts.items():
            held.update(dict.fromkeys(self.names[key], part.effective(self.weight(key))))
        return copy.deepcopy({key: held[key] for key in self.keys})

    @torch.no_grad()
    def load_scores(self, scores: Mapping[str, Tensor]) -> None:
        """Take back what `scores` gave.

        Raises:
            KeyError: a layer has none.
            RuntimeError: one has another shape.
        """
        for key, part in self.parts.items():
            part.scores.copy_(scores[key])


@contextlib.contextmanager
def randomize_network(
    network: Network, *, weights: WeightDraw, kept: float, seed: int
) -> Iterator[Subnetwork]:
    """The network's module becomes a random one of which each layer keeps the share `kept`.

    Every layer is masked, the first and the last too: `round(kept * n)` of its n weights are kept,
    but at least one. Weights are drawn by `seed` and key and never change. The biases beside them
    are 0; BatchNorm has gamma 1, beta 0 and new, live running statistics. Whatever else could learn
    stays as it is and does not: time constants and thresholds of neurons, LayerNorm and GroupNorm,
    embeddings, weights that no layer uses. A weight under several names has one score.

    The links of `network` hold in the block, but neurons that are comparisons in somebody's code
    are not seen by `graph.hooks.observe` there. After it the module is as it was before.

    Raises:
        InputError: `kept` is not in (0, 1], or a weight cannot be masked.
    """
    if not 0 < kept <= 1:
        raise InputError(
            f"a share of {kept} cannot be kept", field="kept", hint="give one above 0, at most 1"
        )
    require_plain(network)
    module = network.module
    keys = tuple(module.state_dict())
    names = {key: tuple(network.find_tied(key)) for key in network.layers}
    with freeze(module), contextlib.ExitStack() as stack:
        neutralise(network, [name for each in names.values() for name in each])
        parts = {}
        for key in network.layers:
            weight = module.get_parameter(key)
            with torch.no_grad():
                weight.copy_(draw_weight(weight.shape, weights, kept=kept, seed=seed, key=key))
            parts[key] = _make_scores(weight, kept, seed, key)
            for owner, name in find_owners(module, names[key]):
                stack.enter_context(attach_parametrization(owner, name, parts[key]))
        yield Subnetwork(network=network, parts=parts, names=names, keys=keys)


def _make_scores(weight: Tensor, kept: float, seed: int, key: str) -> TopScores:
    """Scores for a weight, on its device, in its layout and at least in float32."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    scores = torch.empty_like(weight, dtype=dtype, requires_grad=False)
    scores.copy_(draw_scores(weight.shape, seed=seed, key=key))
    # nothing passes an empty layer, and no gradient that could fill it
    return TopScores(scores, max(1, round(kept * weight.numel())))
