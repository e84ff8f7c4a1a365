"""One step of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.errors import InputError, NonFiniteError
from snnprune.evaluation import time_averaged_loss
from snnprune.network import Network
from snnprune.network.readout import class_scores, over_time
from snnprune.recipe import TrainingSection
from snnprune.training.optimizer import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from snnprune.training.schedule import learning_rate

MAX_SKIPPED = 50  # the scale halves each time: by then no number fits
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """A network, its optimizer and how far it is; `step` is the number of steps done."""

    def __init__(self, network: Network, training: TrainingSection, steps_per_epoch: int) -> None:
        self.network = network
        self.module = module = network.module
        self.training = training
        self.steps_per_epoch = steps_per_epoch
        self.step = self.skipped = 0
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
        self.network.reset()
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
        return value, int((class_scores(steps.detach(), len(y)).argmax(1) == y).sum())

    @property
    def learning_rate(self) -> float:
        """The rate of the last step that was done."""
        return learning_rate(self.training, max(self.step - 1, 0), self.steps_per_epoch)

    def position(self) -> dict[str, Any]:
        """What a state says of it beside the tensors."""
        return {"step": self.step, "skipped": self.skipped, "scaler": self.scaler.state_dict()}

    def groups(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of a state: the model's and the optimizer's own, not copies."""
        return {
            "model": self.module.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.module),
        }

    def restore(
        self, position: Mapping[str, Any], groups: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """Take back what `position` and `groups` gave; the trainer is fresh.

        Raises:
            LookupError, RuntimeError, TypeError, ValueError: they are not of this network.
        """
        self.module.load_state_dict(groups["model"])
        restore_optimizer(self.optimizer, self.module, groups.get("optimizer", {}))
        self.scaler.load_state_dict(position["scaler"])
        self.step, self.skipped = int(position["step"]), int(position["skipped"])

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
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # fp16 overflowed, and the optimizer was not stepped
            self._count_skipped()
        else:
            self.step, self.skipped = self.step + 1, 0

    def _count_skipped(self) -> None:
        self.skipped += 1
        if self.skipped >= MAX_SKIPPED:
            raise NonFiniteError(
                f"{self.skipped} steps in a row overflowed in fp16 at step {self.step}",
                field="training.precision",
                hint="choose bf16 or off",
            )

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
