"""A parametrization that lets the weights with the highest scores through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from snnprune.subnetworks.selection import highest


class TopScores(nn.Module):
    """weight * h(|score|): h is 1 for the `count` highest |score| of the weight, else 0.

    Straight through h (Eq. 11 with its sign and sign(score) set right), a score's gradient is
    dL/d(effective weight) * weight * sign(score), for masked weights too. The weight has none.
    """

    def __init__(self, scores: Tensor, count: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.count = count
        self.known = Known()

    def forward(self, weight: Tensor) -> Tensor:
        """The effective weight, in the shape and type of `weight`."""
        effective = self.effective(weight)
        result: Tensor = _StraightThrough.apply(weight, self.scores, effective, self.known)
        return result

    @torch.no_grad()
    def mask(self) -> Tensor:
        """True = kept, in the shape and layout of the scores."""
        kept = highest(self.scores.abs().reshape(-1), self.count).view(self.scores.shape)
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
class Known:
    """The effective weight of tensors in a known state."""

    state: tuple[object, ...] | None = None
    effective: Tensor | None = None

    def __deepcopy__(self, _: object) -> Known:
        return Known()


class _StraightThrough(Function):
    """Gives the effective weight (out, in, *kernel); its gradient goes to the scores alone."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scores: Tensor, effective: Tensor, known: Known
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
