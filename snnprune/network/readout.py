"""From what a network puts out to one score per class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from snnprune.errors import InputError


def over_time(output: Tensor | Sequence[Tensor], samples: int) -> Tensor:
    """The network's output as (T, N, classes); an output without time has T = 1.

    Raises:
        InputError: it is none of (N, classes), (T, N, classes) or a list of (N, classes).
    """
    stacked = output if isinstance(output, Tensor) else _stacked(output)
    steps = stacked.unsqueeze(0) if stacked.dim() == 2 else stacked
    if steps.dim() != 3 or steps.shape[1] != samples:
        raise InputError(
            f"the network puts out a shape of {tuple(stacked.shape)} for {samples} samples",
            field="--readout",
            hint="expected (N, classes), (T, N, classes) or a list of (N, classes)",
        )
    return steps


def class_scores(output: Tensor | Sequence[Tensor], samples: int) -> Tensor:
    """Scores (N, classes): the sum over time, as Kim et al. 2022 predict."""
    return over_time(output, samples).sum(0)


def _stacked(output: Sequence[Tensor]) -> Tensor:
    if isinstance(output, list | tuple) and all(isinstance(step, Tensor) for step in output):
        return torch.stack(list(output))
    raise InputError(
        f"the network puts out {type(output).__name__}, not a tensor", field="--readout"
    )
