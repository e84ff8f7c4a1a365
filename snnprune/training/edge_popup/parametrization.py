"""A parametrization that lets the weights with the highest scores through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from snnprune.checkpoint.weights import MASK, ORIGINAL
from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.masks import select_highest

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
