"""A checkpoint in memory: its tensors, which of them are weights, and whether they are sound."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from snnprune.checkpoint.naming import (
    MASK,
    ORIGINAL,
    ValueCounts,
    find_split_parameters,
    is_tiny,
    judge_values,
    list_prunable,
    must_count_zeros,
    must_find_least,
)
from snnprune.errors import InputError, Note, format_count, format_names


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The tensors and text of a file, before anything is said about their values."""

    tensors: dict[str, Tensor]
    """On the CPU (or on `meta`, where only the outline was read), in the file's order."""
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    """What was done on the way in, one line each."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The name in the file of each tensor that goes by a shorter one here."""
    packed: bool = False
    """Whether the zeros were left out of the file."""
    entry: str | None = None
    """Which dict of a torch file the tensors are: `model`, `model.state_dict`, `.` for the top."""
    odd: Mapping[str, str] = field(default_factory=dict)
    """Tensors that only a file of the same container can keep, by name, and what they are."""


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file's tensors as they were stored, and its text."""

    path: Path
    container: str
    """`safetensors`, `packed`, `sharded-safetensors`, `torch` or `nir`."""
    tensors: dict[str, Tensor]
    """On the CPU, in the file's order."""
    metadata: dict[str, str]
    """Of safetensors; empty for other files."""
    sha256: str
    """Of the file; of a sharded checkpoint, see `safetensors.hash_shards`."""
    notes: tuple[str, ...]
    """What was done on the way in and what looks odd, one line each."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The key in the file of every key of `tensors`."""
    folded: Mapping[str, str] = field(default_factory=dict)
    """Keys of the file that were folded into one tensor, and the key that replaces them there."""
    dropped: frozenset[str] = frozenset()
    """Keys of the file that are not written again."""
    entry: str | None = None
    """Which dict of a torch file the tensors are: `model`, `model.state_dict`, `.` for the top."""

    odd: Mapping[str, str] = field(default_factory=dict)
    """Tensors that only a file of the same container can keep, by name, and what they are."""

    def in_file(self, values: Mapping[str, T]) -> dict[str, T]:
        """The same values by the keys of the file: `module.fc.weight` for `fc.weight`."""
        return {self.names.get(key, key): value for key, value in values.items()}


def strip_prefix(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The checkpoint with `prefix` taken off the keys that have it; the other keys stay.

    Raises:
        InputError: two tensors would have one key then.
    """
    short = {key: key.removeprefix(prefix) or key for key in checkpoint.tensors}
    seen: dict[str, str] = {}
    for key, new in short.items():
        if new in seen:
            raise InputError(
                f"is {new} without the prefix {prefix}, which {seen[new]} is too",
                file=checkpoint.path,
                field=key,
                hint="rename one of them",
            )
        seen[new] = key
    count = sum(new != key for key, new in short.items())
    return replace(
        checkpoint,
        tensors={short[key]: tensor for key, tensor in checkpoint.tensors.items()},
        names={short[key]: checkpoint.names.get(key, key) for key in checkpoint.tensors},
        notes=(
            *checkpoint.notes,
            Note(f"stripped the prefix {prefix} from {format_count(count, 'key')}"),
        ),
    )


def fold_masks(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with `X.weight` = `X.weight_orig` * `X.weight_mask`, in the first's place.

    So for every parameter that torch.nn.utils.prune has split; without any, the same checkpoint.
    """
    split = find_split_parameters(checkpoint.tensors)
    if not split:
        return checkpoint
    part_of = {part: name for name in split for part in (name + ORIGINAL, name + MASK)}
    tensors: dict[str, Tensor] = {}
    for key, tensor in checkpoint.tensors.items():
        name = part_of.get(key)
        if name is None:
            tensors[key] = tensor
        elif name not in tensors:
            tensors[name] = _apply_mask(checkpoint.tensors[name + ORIGINAL],
                                     checkpoint.tensors[name + MASK])  # fmt: skip
    stored = {part: checkpoint.names.get(part, part) for part in part_of}
    whole = {name: stored[name + ORIGINAL].removesuffix(ORIGINAL) for name in split}
    return replace(
        checkpoint,
        tensors=tensors,
        names={key: whole.get(key) or checkpoint.names.get(key, key) for key in tensors},
        folded={stored[part]: whole[name] for part, name in part_of.items()},
        notes=(
            *checkpoint.notes,
            Note(
                f"folded {format_count(len(split), 'mask')} of torch.nn.utils.prune into the "
                f"weights: {format_names(split)}"
            ),
        ),
    )


def compute_effective_weight(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """The values that a weight has in its network, where a mask of torch.nn.utils.prune is on."""
    mask = tensors.get(key.removesuffix(ORIGINAL) + MASK) if key.endswith(ORIGINAL) else None
    return tensors[key] if mask is None else _apply_mask(tensors[key], mask)


def _apply_mask(original: Tensor, mask: Tensor) -> Tensor:
    # not a bare product, which gives -0.0, and NaN for an infinite weight
    product = original * mask.to(original.dtype)
    return torch.where(mask != 0, product, torch.zeros_like(original))


def find_prunable_weights(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the prunable weights, in the file's order; one for each that has several."""
    same = find_tied_tensors(tensors)
    first: dict[tuple[str, ...], str] = {}
    for name in list_prunable(tensors):
        first.setdefault(same[name], name)
    return tuple(first.values())


def find_tied_tensors(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """For each tensor, by name, all names of the same memory in the same shape."""
    together: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        stored = tensor.numel() > 0 and not tensor.is_meta
        together.setdefault(place if stored else name, []).append(name)
    return {name: tuple(names) for names in together.values() for name in names}


def is_finite(tensor: Tensor) -> Tensor:
    """Whether each value is neither NaN nor infinite, bool in the shape of `tensor`."""
    if not is_tiny(tensor):
        return torch.isfinite(tensor)
    try:
        return torch.isfinite(tensor.float())  # isfinite itself knows only some of the 8-bit floats
    except (NotImplementedError, RuntimeError):  # a type that torch can do nothing with but keep it
        return torch.ones(tensor.shape, dtype=torch.bool)


def require_sound(
    tensors: Mapping[str, Tensor], path: Path, *, allow_nonfinite: bool
) -> tuple[str, ...]:
    """Notes on odd values.

    Raises:
        InputError: as `naming.judge_values`.
    """
    return judge_values(
        tensors,
        lambda name: _count_values(name, tensors[name]),
        path,
        allow_nonfinite=allow_nonfinite,
    )


def _count_values(name: str, tensor: Tensor) -> ValueCounts:
    nonfinite = first = 0
    if tensor.is_floating_point() and not bool((finite := is_finite(tensor)).all()):
        lost = (~finite).flatten().to(torch.uint8)
        nonfinite, first = int(lost.count_nonzero()), int(lost.argmax())
    zeros = tensor.numel() - int(tensor.count_nonzero()) if must_count_zeros(name, tensor) else 0
    asked = must_find_least(name, tensor) and tensor.numel() > 0
    least = float(tensor.double().min()) if asked else 0.0  # 8-bit floats cannot be compared
    return ValueCounts(nonfinite=nonfinite, first=first, zeros=zeros, least=least)
