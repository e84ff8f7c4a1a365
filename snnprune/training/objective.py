"""Learning from a network that knows more: Hinton et al. 2015, arXiv 1503.02531."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Network
from snnprune.measure.loss import compute_time_averaged_loss
from snnprune.recipe.methods import TrainingSection
from snnprune.training.optimizer import use_precision


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
        return compute_time_averaged_loss(steps, y, self.smoothing).mean()


class Teacher:
    """A trained network that is asked and does not learn; it begins each batch at rest."""

    def __init__(self, network: Network, training: TrainingSection) -> None:
        self.network, self.training = network, training
        self.read = network.new_reader()
        self.device = next(network.module.parameters()).device.type

    @torch.no_grad()
    def __call__(self, x: Any, samples: int) -> Tensor:
        """Its logits for a batch, averaged over time, (N, classes)."""
        self.network.reset()
        with use_eval_mode(self.network.module), use_precision(self.training, self.device):
            steps = self.read(self.network.run(x), samples)
        return steps.float().mean(0)


class Distillation:
    """(1 - share) * the loss on the labels + share * the divergence from the teacher."""

    def __init__(
        self, teacher: Teacher, training: TrainingSection, *, share: float, temperature: float
    ) -> None:
        """`share` is in [0, 1)."""
        self.teacher = teacher
        self.labels: Objective = LabelLoss(training)
        self.share, self.temperature = share, temperature

    def __call__(self, steps: Tensor, x: Any, y: Tensor) -> Tensor:
        """Mean over the batch, from logits (T, N, classes), what was fed, and labels (N,)."""
        taught = self.teacher(x, len(y))
        apart = compute_divergence(steps.mean(0), taught, self.temperature)
        return (1 - self.share) * self.labels(steps, x, y) + self.share * apart


def compute_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the softmax of logits (N, classes) / T, mean over N, in nats.

    T^2 keeps its gradient as large as that of the labels for any temperature.
    """
    log_q, log_p = ((z / temperature).log_softmax(1) for z in (student, teacher))
    return temperature**2 * functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
