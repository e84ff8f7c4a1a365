"""What a network draws by itself, as for dropout, by counting too."""

import contextlib
from collections.abc import Iterator

import torch

from snnprune.randomness import derived_seed


@contextlib.contextmanager
def drawing(*key: object, device: torch.device) -> Iterator[None]:
    """In the block torch's own generators are seeded by `key`; after it they are as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(*key))
        yield
