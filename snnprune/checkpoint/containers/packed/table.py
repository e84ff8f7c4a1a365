"""The table of a packed file, believed only where it fits the tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from snnprune.checkpoint.containers.contents import Contents
from snnprune.checkpoint.containers.packed.positions import entropy_bits
from snnprune.checkpoint.containers.packed.values import PRECISIONS, coding_of
from snnprune.checkpoint.containers.safetensors.header import DTYPES, is_shape
from snnprune.checkpoint.containers.safetensors.strict_json import MalformedJsonError, parse
from snnprune.errors import InputError

PACKED = "snnprune.packed"
FORMAT = 1
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers of the size of a float, to look at its bits."""
MOST_GROWTH, SMALL = 4096, 2**28
"""A file of b bytes may hold b * MOST_GROWTH bytes of tensors, or SMALL: else it is a bomb."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the table says of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    kept: int
    """How many values are not 0; if `exact`, -0.0 is one of them."""
    low: int
    values: str

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """How many outputs a weight has."""
        return self.shape[0] if self.shape else 1

    def count_value_bytes(self) -> int:
        """Of its values, and their scales."""
        return coding_of(self.values, DTYPES[self.dtype]).nbytes(self.kept, self.channels)

    def compute_bound(self) -> float:
        """Bytes that its values, and the entropy of where they stand, take at least."""
        return self.count_value_bytes() + entropy_bits(self.kept, self.size) / 8


def read_table(contents: Contents, path: Path) -> dict[str, Entry]:
    """What the metadata says of each packed tensor.

    Raises:
        InputError: it is no table, of another format, or does not fit the tensors.
    """
    try:
        found = parse(contents.metadata[PACKED].encode("utf-8"))
    except MalformedJsonError as error:
        raise InputError(f"the text {error}", file=path, field=PACKED) from None
    if isinstance(found, dict) and found.get("format") not in (None, FORMAT):
        raise InputError(
            f"is of format {found['format']!r}, this snnprune reads {FORMAT}",
            file=path,
            field=PACKED,
            hint="update snnprune",
        )
    tensors = found.get("tensors") if isinstance(found, dict) else None
    if not isinstance(tensors, dict):
        raise InputError("is not a table of packed tensors", file=path, field=PACKED)
    return dict(_entries(tensors, contents, path))


def _entries(
    tensors: Mapping[str, Any], contents: Contents, path: Path
) -> Iterator[tuple[str, Entry]]:
    for name, given in tensors.items():
        raw = contents.tensors.get(name)
        if raw is None or raw.dtype != torch.uint8 or raw.dim() != 1 or not _is_entry(given):
            raise InputError("does not fit its entry in the table", file=path, field=name)
        yield name, Entry(**{**given, "shape": tuple(given["shape"])})


def _is_entry(given: Any) -> bool:
    fields = {"dtype": str, "shape": list, "kept": int, "low": int, "values": str}
    return (
        isinstance(given, dict)
        and given.keys() == fields.keys()
        and all(type(given[key]) is kind for key, kind in fields.items())
        and is_shape(given["shape"])
        and given["dtype"] in DTYPES
        and DTYPES[given["dtype"]].itemsize in WORDS
        and DTYPES[given["dtype"]].is_floating_point
        and given["values"] in PRECISIONS
        and 0 <= given["kept"] <= math.prod(given["shape"])
        and given["low"] >= 0
    )


def require_no_bomb(contents: Contents, table: Mapping[str, Entry], path: Path) -> None:
    """Refuse a small file that would fill the memory.

    Raises:
        InputError: it is one.
    """
    held = sum(tensor.nbytes for tensor in contents.tensors.values())
    whole = sum(entry.size * DTYPES[entry.dtype].itemsize for entry in table.values())
    if whole > max(SMALL, held * MOST_GROWTH):
        raise InputError(
            f"{held:,} bytes claim to hold {whole:,}", file=path, hint="do not trust its source"
        )
