"""What training makes small."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from torch.nn import functional

from snnprune.loss import time_averaged_loss
from snnprune.recipe import TrainingSection


class Objective(Protocol):
    """A mean loss over a batch."""

    def __call__(self, steps: Tensor, x: Any, y: Tensor) -> Tensor:
        """From logits (T, N, classes), what was fed, and labels (N,) to a scalar in nats."""
        ...


class LabelLoss:
    """The recipe's loss on the labels."""

    def __init__(self, training: TrainingSection) -> None:
        self.loss, self.smoothing = training.loss, training.label_smoothing

    def __call__(self, steps: Tensor, x: Any, y: Tensor) -> Tensor:  # noqa: ARG002  # see Objective
        """Mean over the batch; `per-step` averages cross-entropies over time, `mean` the logits."""
        if self.loss == "mean":
            return functional.cross_entropy(steps.mean(0), y, label_smoothing=self.smoothing)
        return time_averaged_loss(steps, y, self.smoothing).mean()
