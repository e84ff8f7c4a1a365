"""One step of training."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.errors import InputError, NonFiniteError
from snnprune.evaluation import time_averaged_loss
from snnprune.network.readout import over_time
from snnprune.recipe import TrainingSection
from snnprune.training.optimizer import build_optimizer
from snnprune.training.schedule import learning_rate

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """A module, its optimizer and how far it is; `step` is the number of steps done."""

    def __init__(self, module: nn.Module, training: TrainingSection, steps_per_epoch: int) -> None:
        self.module = module
        self.training = training
        self.steps_per_epoch = steps_per_epoch
        self.step = 0
        self.device = next(module.parameters()).device.type
        if training.precision == "fp16" and self.device == "cpu":
            raise InputError("fp16 needs a GPU", field="training.precision", hint="choose bf16")
        self.optimizer = build_optimizer(module, training)
        self.scaler = torch.amp.GradScaler(self.device, enabled=training.precision == "fp16")

    def train_on(self, x: Tensor, y: Tensor) -> tuple[float, int]:
        """Take one step; the mean loss of the batch in nats and how many it got right.

        Raises:
            NonFiniteError: the loss is NaN or infinite; no weight has been changed by it.
        """
        self._set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            steps = over_time(self.module(x), len(x))
        loss = self.loss(steps.float(), y)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(
                f"loss is {value} at step {self.step}",
                field="training",
                hint="lower the learning rate or set clip_norm",
            )
        self._descend(loss)
        self.step += 1
        return value, int((steps.detach().sum(0).argmax(1) == y).sum())

    def loss(self, steps: Tensor, y: Tensor) -> Tensor:
        """Mean over the batch of the recipe's loss on logits (T, N, classes)."""
        smoothing = self.training.label_smoothing
        if self.training.loss == "mean":
            return functional.cross_entropy(steps.mean(0), y, label_smoothing=smoothing)
        return time_averaged_loss(steps, y, smoothing).mean()

    def _descend(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()
        if self.training.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.training.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _set_learning_rate(self) -> None:
        rate = learning_rate(self.training, self.step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _autocast(self) -> AbstractContextManager[object]:
        if self.training.precision == "off":
            return nullcontext()
        return torch.autocast(self.device, dtype=AUTOCAST[self.training.precision])


def require_finite(module: nn.Module, epoch: int) -> None:
    """Refuse weights and statistics that an infinite gradient has spoilt.

    Raises:
        NonFiniteError: one of them is NaN or infinite; the first is named.
    """
    for key, tensor in module.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                f"{key} is not finite after epoch {epoch + 1}",
                field="training",
                hint="lower the learning rate or set clip_norm",
            )
