"""What every format of a torch file comes down to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from snnprune.checkpoint.torch.instructions import INSTRUCTIONS
from snnprune.checkpoint.torch.machine import CutPickleError, Machine, MalformedPickleError
from snnprune.checkpoint.torch.stand_ins import CodeError, PickledTensors
from snnprune.checkpoint.torch.stored_tensors import Storage
from snnprune.errors import InputError
from snnprune.files.readable import COPY_AGAIN, changed_error

SAVE_STATE_DICT = "save the state_dict instead: torch.save(model.state_dict(), FILE)"


@dataclass(frozen=True, slots=True)
class StoredPart:
    """The part of a zip archive that a storage is in."""

    size: int
    """Bytes, which may be more than the storage has."""
    crcs: tuple[int, ...]
    """Where in the file the CRC-32 of its bytes stands."""


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """A torch file whose pickle has been read and whose storages have been found."""

    format: str
    """`zip`, `old` or `tar`."""
    root: object
    tensors: PickledTensors
    begin: int
    """Where in the file its pickle begins."""
    end: int
    first: int = 0
    """The place of the pickle's first byte, as tensors and dicts count their places."""
    swapped: bool = False
    """Whether its numbers are of the other byte order than this machine's."""
    parts: dict[object, StoredPart] = field(default_factory=dict)
    """Of a zip archive, by the key of the storage in it."""


def read_storage_bytes(file: BinaryIO, storage: Storage, path: Path) -> Tensor:
    """The bytes of a storage as they lie in the file, (bytes,) uint8.

    Raises:
        InputError: the file ends before them.
    """
    found = torch.empty(storage.nbytes, dtype=torch.uint8)
    file.seek(storage.begin)
    if file.readinto(found.numpy().data) != storage.nbytes:  # type: ignore[attr-defined]  # BinaryIO's own
        raise changed_error(path)
    return found


def swap_byte_order(data: Tensor, storage: Storage, *, swapped: bool) -> Tensor:
    """The same bytes in this machine's order, and back; of complex numbers, each part."""
    size = storage.dtype.itemsize // (2 if storage.dtype.is_complex else 1)
    if not swapped or size == 1:
        return data
    return torch.from_numpy(data.numpy().view(f"u{size}").byteswap().view(np.uint8))


def is_other_order(name: bytes) -> bool:
    """Whether `little` or `big` is not the order of this machine."""
    return name.decode("ascii", "replace") != sys.byteorder


@contextlib.contextmanager
def convert_pickle_errors(path: Path, *, partial: bool = False) -> Iterator[None]:
    """What is wrong with a pickle is an `InputError`; a cut is not where a part was read only."""
    try:
        yield
    except CodeError as error:
        raise InputError(
            "holds code, which snnprune never runs",
            file=path,
            field=str(error),
            hint=SAVE_STATE_DICT,
        ) from None
    except CutPickleError as error:
        if partial:
            raise
        raise damaged_error(str(error), path) from None
    except MalformedPickleError as error:
        raise InputError(
            f"is a pickle that torch.save did not write, or damaged: {error}",
            file=path,
            hint=SAVE_STATE_DICT,
        ) from None


def make_machine(data: bytes, tensors: PickledTensors, size: int) -> Machine:
    """A machine for the pickles in `data`, of a file of `size` bytes."""
    return Machine(data, tensors.meaning(), INSTRUCTIONS, allowance=size)


def damaged_error(what: str, path: Path) -> InputError:
    """The error of a file that is cut, or whose parts do not fit each other."""
    return InputError(f"truncated or damaged: {what}", file=path, hint=COPY_AGAIN)
