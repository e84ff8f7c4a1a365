"""Randomness by counting: every draw is seeded by what it is for; no generator state is saved."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator


def derived_seed(*key: object) -> int:
    """A 63-bit seed that depends on every part of `key`, such as (seed, "shuffle", epoch)."""
    text = "\x1f".join(map(str, key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*key: object, device: str = "cpu") -> Generator:
    """A fresh generator on `device`, seeded by `key`."""
    import torch

    return torch.Generator(device=device).manual_seed(derived_seed(*key))
