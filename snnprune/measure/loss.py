"""What a network is trained and judged by."""

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.errors import InputError


def compute_time_averaged_loss(steps: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Per sample (N,), the mean over T of the cross-entropy of logits (T, N, classes)."""
    flat = functional.cross_entropy(
        steps.flatten(0, 1),
        y.repeat(len(steps)),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return flat.unflatten(0, (len(steps), -1)).mean(0)


def check_labels(y: Tensor, scores: Tensor, *, field: str = "--data") -> Tensor:
    """The labels as int64, beside `scores` (N, classes); each must be a class.

    Raises:
        InputError: one is not, or they are not one whole number per sample.
    """
    if y.dim() != 1 or y.is_floating_point() or y.is_complex():
        raise InputError(
            f"labels of shape {tuple(y.shape)} and type {y.dtype}",
            field=field,
            hint="expected one whole number per sample",
        )
    classes = scores.shape[1]
    y = y.to(scores.device, torch.int64)  # which alone compares with any number of classes
    wrong = y[(y < 0) | (y >= classes)]
    if len(wrong):
        raise InputError(f"label {int(wrong[0])} for a network of {classes} classes", field=field)
    return y
