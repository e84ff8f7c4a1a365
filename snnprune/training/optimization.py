"""What a training minimises, and how: losses, a teacher, learning rates, optimizers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from snnprune.graph.network import Network
from snnprune.graph.state import use_eval_mode
from snnprune.recipe.sections import TrainingSection
from snnprune.training.losses import load_loss


class Objective(Protocol):
    """A mean loss over a batch."""

    def __call__(self, steps: Tensor, x: Any, y: Tensor) -> Tensor:
        """From logits (T, N, classes), what was fed, and labels (N,) to a scalar in nats."""
        ...


class LabelLoss:
    """The recipe's loss on the labels."""

    def __init__(self, training: TrainingSection) -> None:
        self.loss = load_loss(training)

    def __call__(self, steps: Tensor, x: Any, y: Tensor) -> Tensor:  # noqa: ARG002  # see Objective
        """Mean over the batch."""
        return self.loss(steps, y)


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
    """(1 - share) * the loss on the labels + share * the divergence from the teacher.

    Learning from a network that knows more: Hinton et al. 2015, arXiv 1503.02531.
    """

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


AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def use_precision(training: TrainingSection, device: str) -> AbstractContextManager[object]:
    """The block in which a pass on that type of device is run in the recipe's precision."""
    if training.precision == "off":
        return nullcontext()
    return torch.autocast(device, dtype=AUTOCAST[training.precision])


ONE_CYCLE_RISE = 0.3  # share of the steps until the peak
ONE_CYCLE_START = 1 / 25  # of the peak


def compute_learning_rate(training: TrainingSection, step: int, steps_per_epoch: int) -> float:
    """The rate of step `step` (from 0) of the whole run."""
    warmup = training.warmup_epochs * steps_per_epoch
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    steps = training.epochs * steps_per_epoch - warmup
    done = (step - warmup) / steps
    if training.schedule == "cosine-epoch":  # as a scheduler that is stepped once an epoch
        epoch = (step - warmup) // steps_per_epoch
        done = epoch / (training.epochs - training.warmup_epochs)
    return training.learning_rate * _compute_factor(training, done, step // steps_per_epoch)


def _compute_factor(training: TrainingSection, done: float, epoch: int) -> float:
    """What is left of the full rate after the share `done` of the run, in `epoch`."""
    if training.schedule in ("cosine", "cosine-epoch"):
        return (1 + math.cos(math.pi * done)) / 2
    if training.schedule == "step":
        passed = sum(epoch >= milestone for milestone in training.step_epochs)
        return float(training.step_factor**passed)
    if training.schedule == "one-cycle":
        return _one_cycle(done)
    return 1.0


def _one_cycle(done: float) -> float:
    """Cosine up to the peak and down again; Smith and Topin 2017, arXiv 1708.07120."""
    if done < ONE_CYCLE_RISE:
        rise = (1 - math.cos(math.pi * done / ONE_CYCLE_RISE)) / 2
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * rise
    return (1 + math.cos(math.pi * (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))) / 2


def build_optimizer(module: nn.Module, training: TrainingSection) -> optim.Optimizer:
    """SGD with momentum or AdamW over all parameters, with the recipe's weight decay."""
    if training.optimizer == "adamw":
        return optim.AdamW(
            module.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
    return optim.SGD(
        module.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )


def optimizer_tensors(optimizer: optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """What the optimizer remembers of each parameter, as `momentum_buffer/conv.weight`."""
    return {
        f"{what}/{name}": value
        for name, parameter in module.named_parameters()
        for what, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Give a fresh optimizer over parameters of `module` what `optimizer_tensors` gave.

    Raises:
        KeyError: a tensor belongs to no parameter.
        ValueError: a tensor has another shape than its parameter.
    """
    parameters = dict(module.named_parameters())
    saved = optimizer.state_dict()
    places = {id(p): place for place, p in enumerate(_parameters_of(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        what, _, name = key.partition("/")
        parameter = parameters[name]
        of_a_step = what == "step"  # AdamW counts them in a number; all else is of each weight
        if tensor.shape != (() if of_a_step else parameter.shape):
            raise ValueError(f"{key} has shape {list(tensor.shape)}")
        state.setdefault(places[id(parameter)], {})[what] = tensor
    optimizer.load_state_dict({**saved, "state": state})


def _parameters_of(optimizer: optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
