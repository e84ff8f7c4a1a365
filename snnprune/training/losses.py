"""What a training minimises on its labels: a mean over the batch, of logits (T, N, classes)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.errors import InputError, did_you_mean
from snnprune.measure.evaluation import compute_time_averaged_loss
from snnprune.plugins.user_code import guard_function, is_reference
from snnprune.recipe.sections import TrainingSection
from snnprune.training import LOSSES

Loss = Callable[..., Tensor]
FIELD, SMOOTHING = "training.loss", "label_smoothing"


def load_loss(training: TrainingSection) -> Loss:
    """The loss that a recipe names, from logits (T, N, classes) and labels (N,) to a scalar.

    Raises:
        InputError: there is none of that name, it cannot be had, or takes no such arguments.
    """
    function, args = LOSSES.load(training.loss, field=FIELD), dict(training.loss_args)
    known = _list_arguments(function)
    for name in args:
        if known is not None and name not in known:
            raise InputError(
                f"{training.loss} has no argument {name!r}",
                field="training.loss_args",
                hint=did_you_mean(name, [one for one in known if one != SMOOTHING]),
            )
    if training.label_smoothing and known is not None and SMOOTHING not in known:
        raise InputError(
            f"{training.loss} smoothes no labels",
            field=f"training.{SMOOTHING}",
            hint="leave it out, or take cross-entropy, mean or tet",
        )
    if training.label_smoothing or (known is not None and SMOOTHING in known):
        args[SMOOTHING] = training.label_smoothing
    if not is_reference(training.loss):
        return partial(function, **args)
    return partial(_call_own, guard_function(function, training.loss, field=FIELD), args)


def _list_arguments(function: Loss) -> list[str] | None:
    """What it takes beside logits and labels; None where that may be anything."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return None
    return list(parameters)[2:]


def _call_own(function: Loss, args: dict[str, Any], steps: Tensor, y: Tensor) -> Tensor:
    """The loss of the user's function.

    Raises:
        InputError: it gave no number that depends on the logits.
    """
    found = function(steps, y, **args) if args else function(steps, y)
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():
        raise InputError(
            f"gave {type(found).__name__}", field=FIELD, hint="return the mean loss as a scalar"
        )
    if torch.is_grad_enabled() and steps.requires_grad and not found.requires_grad:
        raise InputError("gave a number without a gradient", field=FIELD)
    return found.reshape(())


def cross_entropy(steps: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """The mean over time of the cross-entropies of each step, in nats."""
    return compute_time_averaged_loss(steps, y, label_smoothing).mean()


def cross_entropy_of_mean(steps: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """The cross-entropy of the logits' mean over time, in nats."""
    return functional.cross_entropy(steps.mean(0), y, label_smoothing=label_smoothing)


def mse_rate(steps: Tensor, y: Tensor, *, correct: float = 1.0, incorrect: float = 0.0) -> Tensor:
    """The mean over samples and classes of (rate - target)^2; rate is the mean over time.

    As networks whose outputs are spikes are trained with SpikingJelly (Fang et al. 2021): the
    target is `correct` for the class of the label and `incorrect` for the others.
    """
    return (steps.mean(0) - _make_targets(steps, y, correct, incorrect)).square().mean()


def mse_count(steps: Tensor, y: Tensor, *, correct: float = 1.0, incorrect: float = 0.0) -> Tensor:
    """The mean over samples and classes of (count - T target)^2 / T; count is the sum over time.

    T times `mse_rate`; Shrestha and Orchard 2018, arXiv 1810.08646, and snnTorch's mse_count_loss,
    which rounds T target down to a whole number.
    """
    targets = len(steps) * _make_targets(steps, y, correct, incorrect)
    return (steps.sum(0) - targets).square().mean() / len(steps)


def tet(
    steps: Tensor,
    y: Tensor,
    *,
    lamb: float = 1e-3,
    target: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 - lamb) mean_t CE(o_t, y) + lamb mean (o - target)^2; Deng et al. 2022, arXiv 2202.11946.

    The second term keeps single outputs from running away; `target` is the threshold, and both
    have the values of the authors' code.
    """
    by_step = cross_entropy(steps, y, label_smoothing=label_smoothing)
    return (1 - lamb) * by_step + lamb * (steps - target).square().mean()


def _make_targets(steps: Tensor, y: Tensor, correct: float, incorrect: float) -> Tensor:
    """The rate (N, classes) that each output should have."""
    hot = functional.one_hot(y, steps.shape[2]).to(steps.dtype)
    return incorrect + (correct - incorrect) * hot
