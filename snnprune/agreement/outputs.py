"""Logits and answers of two networks for the same samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.agreement.counts import Answers, Outputs
from snnprune.errors import NonFiniteError
from snnprune.loss import checked_labels


def compared_outputs(first: Tensor, other: Tensor) -> Outputs:
    """Of logits (N, classes), float64.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    if not bool((first.isfinite() & other.isfinite()).all()):
        raise NonFiniteError("a network puts out NaN or infinity", field="--data")
    cosines = functional.cosine_similarity(first, other, dim=1)
    cosines = torch.where((first == other).all(1), 1.0, cosines)  # also where both are 0
    log_p, log_q = first.log_softmax(1), other.log_softmax(1)
    return Outputs(
        samples=len(first),
        values=first.numel(),
        difference=float((first - other).abs().sum()),
        cosine=float(cosines.sum()),
        divergence=float((log_p.exp() * (log_p - log_q)).sum()),
        same_class=int((first.argmax(1) == other.argmax(1)).sum()),
    )


def compared_answers(first: Tensor, other: Tensor, y: Tensor) -> Answers:
    """Of scores (N, classes) against labels (N,).

    Raises:
        InputError: a label is no class.
    """
    y = checked_labels(y, first)
    right, also = first.argmax(1) == y, other.argmax(1) == y
    return Answers(
        both=int((right & also).sum()),
        only_first=int((right & ~also).sum()),
        only_other=int((~right & also).sum()),
        neither=int((~right & ~also).sum()),
    )
