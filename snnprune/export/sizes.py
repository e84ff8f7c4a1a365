"""What a checkpoint weighs, as it is, compressed and packed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import zstandard
from torch import Tensor

from snnprune.checkpoint.packed import Packing
from snnprune.checkpoint.safetensors import bytes_of
from snnprune.measure.quantities import Natural

GZIP = 31  # window bits of zlib that make a gzip stream


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes of all tensors, without the header of a file."""

    dense: Natural
    """Zeros and all: what a plain file weighs."""
    gzip: Natural
    """Of all tensors one after the other, at the program's own level 6."""
    zstd: Natural
    """Likewise, at level 19."""
    packed: Natural
    """As `export --to packed` stores them."""
    bound: Natural
    """What any packing takes at least: values, and the entropy of where they stand, if any places
    are as likely as any others."""

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return asdict(self)


def measure_sizes(tensors: Iterable[Tensor], packing: Packing) -> Sizes:
    """Measure all of them; `packing` is what `pack` made of the same tensors."""
    gzip = zlib.compressobj(level=6, wbits=GZIP)
    zstd = zstandard.ZstdCompressor(level=19).compressobj()
    dense = gzipped = zipped = 0
    for tensor in tensors:
        raw = bytes_of(tensor.cpu()).numpy().data
        dense += raw.nbytes
        gzipped += len(gzip.compress(raw))
        zipped += len(zstd.compress(raw))
    return Sizes(
        dense=dense,
        gzip=gzipped + len(gzip.flush()),
        zstd=zipped + len(zstd.flush()),
        packed=packing.count_bytes(),
        bound=round(packing.bound),
    )
