"""Randomness by counting: every draw is seeded by what it is for; no generator state is saved."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived_seed(*key: object) -> int:
    """A 63-bit seed that depends on every part of `key`, such as (seed, "shuffle", epoch)."""
    text = "\x1f".join(map(str, key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*key: object, device: str = "cpu") -> torch.Generator:
    """A fresh generator on `device`, seeded by `key`."""
    import torch

    return torch.Generator(device=device).manual_seed(derived_seed(*key))


@contextlib.contextmanager
def drawing(*key: object, device: torch.device | None = None) -> Iterator[None]:
    """In the block torch's own generators are seeded by `key`; after it they are as before.

    For what draws by itself: dropout, a user's own initialisation or loader.
    """
    import torch

    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_all(*key)
        yield


def seed_all(*key: object) -> None:
    """As `torch.manual_seed`, by `key` and for the devices that are here.

    For each kind that is not, torch would note the call stack, longer than a small step takes.
    """
    import torch

    seed = derived_seed(*key)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
