"""Values that no trained network holds."""

from pathlib import Path

import torch
from torch import Tensor

from snnprune.checkpoint.weights import (
    SAVED,
    find_saved_states,
    find_tiny_weights,
    find_unprunable,
    is_prunable,
    is_tiny,
)
from snnprune.errors import InputError
from snnprune.text import format_count, format_names

LEARNT = ("weight", "bias", "weight_orig", "bias_orig")
"""How the names of parameters end; what else is in a file may be a mask of infinities."""


def require_sound(
    tensors: dict[str, Tensor], path: Path, *, allow_nonfinite: bool
) -> tuple[str, ...]:
    """Notes on odd values.

    Raises:
        InputError: a value of a weight, bias or running statistic is NaN or infinite (unless
            `allow_nonfinite`, which never covers a running variance), or a running variance is
            negative.
    """
    notes = []
    for name, tensor in tensors.items():
        found = _describe_nonfinite(tensor)
        learnt = _is_statistic(name) or name.endswith(LEARNT)
        if found and learnt and (_is_variance(name) or not allow_nonfinite):
            hint = "take a checkpoint from before training went wrong"
            raise InputError(found, file=path, field=name, hint=hint)
        if found:
            notes.append(f"{name}: {found}")
        if _is_variance(name) and tensor.is_floating_point():
            _require_nonnegative(name, tensor, path)
    zero = [name for name, tensor in tensors.items() if _is_all_zero(name, tensor)]
    if zero:
        notes.append(f"{format_count(len(zero), 'tensor')} all zero: {format_names(zero)}")
    if still := _find_zero_variances(tensors):
        notes.append(f"variance 0, as of channels that never change: {format_names(still)}")
    if tiny := find_tiny_weights(tensors):
        notes.append(
            f"{format_count(len(tiny), 'weight')} of 8-bit floats left alone: " + format_names(tiny)
        )
    if others := find_unprunable(tensors):
        named = format_names([f"{name} ({why})" for name, why in others.items()])
        notes.append(f"not taken for weights of layers: {named}")
    if states := find_saved_states(tensors):
        notes.append(
            f"{format_count(len(states), 'neuron state')} {SAVED}: " + format_names(states)
        )
    return tuple(notes)


def is_finite(tensor: Tensor) -> Tensor:
    """Whether each value is neither NaN nor infinite, bool in the shape of `tensor`."""
    if not is_tiny(tensor):
        return torch.isfinite(tensor)
    try:
        return torch.isfinite(tensor.float())  # isfinite itself knows only some of the 8-bit floats
    except (NotImplementedError, RuntimeError):  # a type that torch can do nothing with but keep it
        return torch.ones(tensor.shape, dtype=torch.bool)


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


def _is_variance(name: str) -> bool:
    return name.endswith("running_var")


def _describe_nonfinite(tensor: Tensor) -> str | None:
    """How many values are NaN or infinite and where the first is; None if none is."""
    if not tensor.is_floating_point():
        return None
    finite = is_finite(tensor)
    if finite.all():
        return None
    lost = (~finite).flatten().to(torch.uint8)
    values = format_count(int(lost.count_nonzero()), "value")
    return f"{values} NaN or infinite, the first at flat index {int(lost.argmax())}"


def _require_nonnegative(name: str, tensor: Tensor, path: Path) -> None:
    values = tensor.double()  # since 8-bit floats cannot be compared
    if (values < 0).any():
        raise InputError(
            f"a variance is negative ({values.min().item():g})",
            file=path,
            field=name,
            hint="the file is damaged or no BatchNorm's: copy it again",
        )


def _find_zero_variances(tensors: dict[str, Tensor]) -> list[str]:
    """The running variances that are 0 somewhere, and how often."""
    zeros = {
        name: int((tensor == 0).sum())
        for name, tensor in tensors.items()
        if _is_variance(name) and not is_tiny(tensor)
    }
    return [f"{name} ({n:,} of {tensors[name].numel():,})" for name, n in zeros.items() if n]


def _is_all_zero(name: str, tensor: Tensor) -> bool:
    return is_prunable(name, tensor) and tensor.numel() > 0 and not bool(tensor.any())
