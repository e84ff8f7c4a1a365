"""Short names of batches and samples by what is in them, to see which are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from snnprune.batches import Pair, tensors


def of_batch(batch: Any) -> bytes | None:
    """A name for all tensors of a batch and their shapes; None where it holds none."""
    held = list(tensors(batch))
    return _of(held) if held else None


def of_samples(pair: Pair) -> Iterator[bytes]:
    """A name for each sample's tensor, without its label; of a batch of another kind, one for all.

    Samples lie along the first dimension, or along the first that is as long as the labels.
    """
    x, y = pair
    if not isinstance(x, Tensor):
        yield _of(tensors(x))
        return
    fits = (dim for dim, size in enumerate(x.shape) if y is None or size == len(y))
    samples = x.movedim(next(fits, 0), 0)
    kind = _kind(samples[:1])
    for row in _bytes(samples).reshape(len(samples), -1).numpy():
        yield hashlib.blake2b(row, key=kind, digest_size=16).digest()


def _of(held: Iterable[Tensor]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for tensor in held:
        found.update(_kind(tensor))
        found.update(_bytes(tensor).numpy().data)
    return found.digest()


def _kind(tensor: Tensor) -> bytes:
    text = f"{tensor.dtype}{tuple(tensor.shape)}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _bytes(tensor: Tensor) -> Tensor:
    """All that is in it, flat, uint8."""
    plain = tensor.detach().cpu()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.is_quantized:
        plain = plain.int_repr()
    plain = plain.resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8)
