"""Values that no trained network holds."""

from pathlib import Path

import torch
from torch import Tensor

from snnprune.checkpoint.naming import counted, first_few
from snnprune.checkpoint.prunable import is_prunable, is_tiny, other_weights, tiny_weights
from snnprune.checkpoint.states import SAVED, saved_states
from snnprune.errors import InputError

PACKED = tuple(getattr(torch, name) for name in ("float4_e2m1fn_x2",) if hasattr(torch, name))
"""Types of two values a byte, none of which can be NaN."""


def require_sound(
    tensors: dict[str, Tensor], path: Path, *, allow_nonfinite: bool
) -> tuple[str, ...]:
    """Notes on odd values.

    Raises:
        InputError: a value is NaN or infinite (unless `allow_nonfinite`, which never covers a
            running variance), or a running variance is negative.
    """
    notes = []
    for name, tensor in tensors.items():
        found = _nonfinite(tensor)
        if found and (_is_variance(name) or not allow_nonfinite):
            hint = "take a checkpoint from before training went wrong"
            raise InputError(found, file=path, field=name, hint=hint)
        if found:
            notes.append(f"{name}: {found}")
        if _is_variance(name) and tensor.is_floating_point():
            _require_nonnegative(name, tensor, path)
    zero = [name for name, tensor in tensors.items() if _is_all_zero(name, tensor)]
    if zero:
        notes.append(f"{counted(len(zero), 'tensor')} all zero: {first_few(zero)}")
    if tiny := tiny_weights(tensors):
        notes.append(
            f"{counted(len(tiny), 'weight')} of 8-bit floats left alone: " + first_few(tiny)
        )
    if others := other_weights(tensors):
        named = first_few(f"{name} ({why})" for name, why in others.items())
        notes.append(f"{counted(len(others), 'weight')} left alone: {named}")
    if states := saved_states(tensors):
        notes.append(f"{counted(len(states), 'neuron state')} {SAVED}: " + first_few(states))
    return tuple(notes)


def is_finite(tensor: Tensor) -> Tensor:
    """Whether each value is neither NaN nor infinite, bool in the shape of `tensor`."""
    # torch's isfinite knows only some of the 8-bit floats
    return torch.isfinite(tensor.float() if is_tiny(tensor) else tensor)


def _is_variance(name: str) -> bool:
    return name.endswith("running_var")


def _nonfinite(tensor: Tensor) -> str | None:
    """How many values are NaN or infinite and where the first is; None if none is."""
    if not tensor.is_floating_point() or tensor.dtype in PACKED:
        return None
    finite = is_finite(tensor)
    if finite.all():
        return None
    lost = (~finite).flatten().to(torch.uint8)
    values = counted(int(lost.count_nonzero()), "value")
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


def _is_all_zero(name: str, tensor: Tensor) -> bool:
    return is_prunable(name, tensor) and tensor.numel() > 0 and not bool(tensor.any())
