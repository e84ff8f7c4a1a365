"""From what a network puts out to one score per class."""

from typing import Any

import torch
from torch import Tensor

from snnprune.errors import InputError


def over_time(output: Any, samples: int) -> Tensor:
    """The network's output as (T, N, classes); an output without time has T = 1.

    A tuple is (spikes, membrane), of which the first is read; a list is over time.

    Raises:
        InputError: it is none of (N, classes), (T, N, classes) or a list of (N, classes).
    """
    if isinstance(output, tuple) and output:
        return over_time(output[0], samples)
    steps = _stacked(output)
    if steps.dim() != 3 or steps.shape[1] != samples:
        raise InputError(
            f"the network puts out a shape of {tuple(steps.shape)} for {samples} samples",
            field="--readout",
            hint="expected (N, classes), (T, N, classes) or a list of (N, classes)",
        )
    return steps


def class_scores(output: Any, samples: int) -> Tensor:
    """Scores (N, classes): the sum over time, as Kim et al. 2022 predict."""
    return over_time(output, samples).sum(0)


def _stacked(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output.unsqueeze(0) if output.dim() == 2 else output
    if isinstance(output, list) and output and all(isinstance(step, Tensor) for step in output):
        return torch.stack(output)
    raise InputError(
        f"the network puts out {type(output).__name__}, not a tensor", field="--readout"
    )
