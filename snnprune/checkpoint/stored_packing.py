"""A packed file made of another file, whose values are read once. Imports no torch.

The bytes are those that `packed.pack` makes of the same tensors in memory, each value as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np

from snnprune.checkpoint.header import NAMES, Slot, plan_header
from snnprune.checkpoint.packing import (
    AS_THEY_ARE,
    WORDS,
    Bytes,
    Packable,
    Packing,
    Places,
    assemble_packing,
    pack_values,
)
from snnprune.checkpoint.soundness import ValueCounts
from snnprune.checkpoint.stored import (
    Bits,
    Piece,
    PieceReader,
    StoredCheckpoint,
    StoredTensor,
    count_piece,
    count_pieces,
    cut_into_pieces,
    map_pieces,
    merge_counts,
)

Part = Bytes | StoredTensor
"""A tensor that is packed, or left where it is until it is written."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What there is in a piece."""

    counts: ValueCounts
    places: Places
    """Of its values that are not 0, in the tensor; -0.0 is one of them."""
    values: Bits


NOTHING = _Seen(
    counts=ValueCounts(), places=np.zeros(0, dtype=np.int64), values=np.zeros(0, dtype=np.uint8)
)


@dataclass(frozen=True)
class StoredPacker:
    """Packs a checkpoint, and keeps what else its values tell while they are read."""

    checkpoint: StoredCheckpoint
    counts: dict[str, ValueCounts] = field(default_factory=dict)
    """By key."""
    negative_zeros: Counter[str] = field(default_factory=Counter)
    """How many values are -0.0, by key."""

    def pack(self) -> Packing[Part]:
        """Read all of the file, a piece at a time.

        Raises:
            InputError: the file is shorter than it was.
        """
        return assemble_packing(self._iter_tensors(), write_parts)

    def _iter_tensors(self) -> Iterator[tuple[str, Part, Packable[Part] | None]]:
        """By the names that they have in the file."""
        tensors = self.checkpoint.tensors
        key_of = {id(tensor): key for key, tensor in tensors.items()}
        pieces = chain.from_iterable(map(cut_into_pieces, tensors.values()))
        found = map_pieces(lambda piece, bits: _look(key_of[id(piece.tensor)], piece, bits), pieces)
        for key, tensor in tensors.items():
            seen = _merge(one for _, one in islice(found, count_pieces(tensor)))
            self.counts[key] = seen.counts
            yield self.checkpoint.names[key], tensor, self._pack_tensor(key, tensor, seen)

    def _pack_tensor(self, key: str, tensor: StoredTensor, seen: _Seen) -> Packable[Bytes] | None:
        if not _is_packable(tensor):
            return None
        sign = np.array(1 << (8 * tensor.itemsize - 1), seen.values.dtype)
        self.negative_zeros[key] = int(np.count_nonzero(seen.values == sign))
        return pack_values(
            seen.places,
            seen.values.view(np.uint8),
            dtype=NAMES[tensor.dtype.name],
            shape=tensor.shape,
            precision=AS_THEY_ARE,
        )


def _look(key: str, piece: Piece, bits: Bits) -> _Seen:
    kept = bits != 0 if _is_packable(piece.tensor) else np.zeros(0, dtype=np.bool_)
    here = np.flatnonzero(kept)  # of truth values it is nine times as fast
    values = bits.take(here)  # before they are counted, which takes their signs
    return _Seen(counts=count_piece(key, piece, bits), places=here + piece.first, values=values)


def _merge(pieces: Iterable[_Seen]) -> _Seen:
    """Of all pieces of a tensor, in order."""
    counts, seen = ValueCounts(), [NOTHING, *pieces]
    for one in seen:
        counts = merge_counts(counts, one.counts)
    return _Seen(
        counts=counts,
        places=np.concatenate([one.places for one in seen]),
        values=np.concatenate([one.values for one in seen]),
    )


def _is_packable(tensor: StoredTensor) -> bool:
    return tensor.is_floating_point() and tensor.itemsize in WORDS and tensor.numel() > 0


def write_parts(path: Path, parts: Mapping[str, Part], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file of arrays of bytes, and of tensors that lie in other files.

    Raises:
        InputError: one of these files is shorter than it was.
    """
    slots: dict[str, Slot] = {
        name: ("U8", part.shape)
        if isinstance(part, np.ndarray)
        else (NAMES[part.dtype.name], part.shape)
        for name, part in parts.items()
    }
    header, order = plan_header(slots, metadata)
    with path.open("wb") as file:
        file.write(header)
        for name in order:
            for data in _iter_data(parts[name]):
                file.write(data)


def _iter_data(part: Part) -> Iterator[memoryview]:
    if isinstance(part, np.ndarray):
        yield part.data
        return
    reader = PieceReader()
    for piece in cut_into_pieces(part):
        yield reader.read(piece).data
