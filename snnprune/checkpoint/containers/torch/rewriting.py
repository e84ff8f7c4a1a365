"""A torch file written again with other values in its state_dict."""

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.containers.raw import bytes_of
from snnprune.checkpoint.containers.torch.loading import load
from snnprune.checkpoint.containers.torch.stand_ins import without_stand_ins
from snnprune.checkpoint.containers.torch.state_dict import state_dict_in, with_state_dict
from snnprune.checkpoint.naming import first_few
from snnprune.errors import InputError
from snnprune.files import replacing

Tie = tuple[object, ...]
"""What two tensors that are one have in common."""


def rewrite(source: Checkpoint, out: Path, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Write the file of `source` to `out` with `tensors`, by their keys in it, in its state_dict.

    Format, wrapper, other entries, order and ties stay; a tensor whose values are the same is the
    one that was there. Notes on what is as it was.

    Raises:
        InputError: what lies beside the state_dict cannot be pickled again.
        OutputError: `out` cannot be written.
    """
    loaded, is_zip = load(source.path)
    found = state_dict_in(loaded, source.path, source.entry)
    entries = copy.copy(found.entries)  # of the same type, with the versions of its modules
    entries.clear()
    entries.update(_replaced(found.entries, tensors, source))
    changed = with_state_dict(loaded, found.trail, entries)
    lost = without_stand_ins(changed)
    _save(changed, source.path, out, is_zip=is_zip)
    return _notes(loaded, lost)


def _save(value: object, source: Path, out: Path, *, is_zip: bool) -> None:
    with replacing(out) as temporary, temporary.open("wb") as file:
        try:
            torch.save(value, file, _use_new_zipfile_serialization=is_zip)
        except (pickle.PicklingError, RecursionError, TypeError, AttributeError) as error:
            raise InputError(
                f"what lies beside the weights cannot be written again: {error}",
                file=source,
                hint="write a .safetensors file instead",
            ) from error
        except RuntimeError as error:  # what torch says to a full disk, hiding what the system said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _replaced(
    entries: Mapping[Any, Any], tensors: Mapping[str, Tensor], source: Checkpoint
) -> dict[Any, Any]:
    """The state_dict's entries in their order, with the values of `tensors`."""
    written: dict[Any, Any] = {}
    ties: dict[Tie, list[Tensor]] = {}
    for key, old in entries.items():
        name = source.folded.get(key, key)
        if name not in written and name not in source.dropped:
            new = tensors.get(name)
            written[name] = old if new is None else _tied(_put(old, new), old, ties)
    return written


def _put(old: Tensor, new: Tensor) -> Tensor:
    """`new` as the kind of tensor that `old` is; `old` itself where nothing changed."""
    if (old.shape, old.dtype) != (new.shape, new.dtype):  # of a part, or of saved state
        return new
    if _same(old, new):
        return old
    value = torch.empty_like(old.detach()).copy_(new)  # also as it lies in memory
    if isinstance(old, Parameter):
        return Parameter(value, requires_grad=old.requires_grad)
    return value


def _tied(value: Tensor, old: Tensor, ties: dict[Tie, list[Tensor]]) -> Tensor:
    """An equal tensor that was one with `old` before, if there was one."""
    tie = (old.data_ptr(), old.dtype, old.shape, old.stride(), type(old))
    tied = ties.setdefault(tie, [])
    for other in tied if old.numel() else []:
        if _same(other, value):
            return other
    tied.append(value)
    return value


def _same(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have one shape and the same bits."""
    return left.shape == right.shape and torch.equal(bytes_of(left), bytes_of(right))


def _notes(loaded: object, lost: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    if isinstance(loaded, dict) and any("optimizer" in str(key) for key in loaded):
        notes.append("the optimizer's state is as it was, also of weights that are pruned now")
    if lost:
        notes.append(f"NumPy values that are no numbers were left out: {first_few(lost)}")
    return tuple(notes)
