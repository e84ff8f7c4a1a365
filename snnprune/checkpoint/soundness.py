"""Whether the values of a checkpoint are some that a network can have. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from snnprune.checkpoint.naming import (
    LEARNT,
    SAVED,
    Outline,
    find_saved_states,
    find_tiny_weights,
    find_unprunable,
    is_prunable,
    is_statistic,
    is_tiny,
    is_variance,
)
from snnprune.errors import InputError
from snnprune.errors.text import format_count, format_names


@dataclass(frozen=True, kw_only=True)
class ValueCounts:
    """What is to be known of a tensor's values; what `must_count` asks for no one is 0."""

    nonfinite: int = 0
    """NaN or infinite."""
    first: int = 0
    """Flat index of the first of these."""
    zeros: int = 0
    least: float = 0.0


def must_count_zeros(name: str, tensor: Outline) -> bool:
    """Whether anybody asks how many values of a tensor are 0."""
    return is_prunable(name, tensor) or (is_variance(name) and not is_tiny(tensor))


def must_find_least(name: str, tensor: Outline) -> bool:
    """Whether anybody asks for the least of a tensor's values."""
    return is_variance(name) and tensor.is_floating_point()


def judge_values(
    tensors: Mapping[str, Outline],
    look: Callable[[str], ValueCounts],
    path: Path,
    *,
    allow_nonfinite: bool,
) -> tuple[str, ...]:
    """Notes on odd values; `look` gives what is known of those of a key.

    Raises:
        InputError: a value of a weight, bias or running statistic is NaN or infinite (unless
            `allow_nonfinite`, which never covers a running variance), or a running variance is
            negative.
    """
    notes, seen = [], dict[str, ValueCounts]()
    for name, tensor in tensors.items():
        seen[name] = found = look(name)
        learnt = is_statistic(name) or name.endswith(LEARNT)
        if found.nonfinite and learnt and (is_variance(name) or not allow_nonfinite):
            hint = "take a checkpoint from before training went wrong"
            raise InputError(_describe_nonfinite(found), file=path, field=name, hint=hint)
        if found.nonfinite:
            notes.append(f"{name}: {_describe_nonfinite(found)}")
        if must_find_least(name, tensor) and found.least < 0:
            raise InputError(
                f"a variance is negative ({found.least:g})",
                file=path,
                field=name,
                hint="the file is damaged or no BatchNorm's: copy it again",
            )
    return (*notes, *_note_zeros(tensors, seen), *note_left_alone(tensors))


def _describe_nonfinite(found: ValueCounts) -> str:
    values = format_count(found.nonfinite, "value")
    return f"{values} NaN or infinite, the first at flat index {found.first}"


def _note_zeros(tensors: Mapping[str, Outline], seen: Mapping[str, ValueCounts]) -> list[str]:
    notes = []
    zero = [
        name
        for name, tensor in tensors.items()
        if is_prunable(name, tensor) and 0 < tensor.numel() == seen[name].zeros
    ]
    if zero:
        notes.append(f"{format_count(len(zero), 'tensor')} all zero: {format_names(zero)}")
    still = [
        f"{name} ({seen[name].zeros:,} of {tensor.numel():,})"
        for name, tensor in tensors.items()
        if is_variance(name) and seen[name].zeros
    ]
    if still:
        notes.append(f"variance 0, as of channels that never change: {format_names(still)}")
    return notes


def note_left_alone(tensors: Mapping[str, Outline]) -> list[str]:
    """Notes on what keys, types and shapes alone tell to be no weights of layers."""
    notes = []
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
    return notes
