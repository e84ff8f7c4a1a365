"""The names of a network for a file's tensors, that trainers and containers gave others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor
from torch.nn.parameter import is_lazy

from snnprune.checkpoint import Checkpoint, renamed
from snnprune.checkpoint.naming import counted, first_few

# What older SpikingJelly containers put into a key: `conv1.0.weight`, `sn1.module.w`.
CONTAINER_PARTS = re.compile(r"(?<=\.)(\d+|module)\.")

Aliases = Mapping[str, tuple[str, ...]]
"""For each key of a network, all keys of the same tensor."""


def fits(stored: Tensor, wanted: Tensor) -> bool:
    """Whether a stored tensor has the shape that the network's has; a lazy one takes any."""
    return is_lazy(wanted) or stored.shape == wanted.shape


def without_prefix(
    checkpoint: Checkpoint, wanted: Mapping[str, Tensor], same: Aliases
) -> Checkpoint:
    """Without what stands before the network's keys, such as `net.` of a Lightning module."""
    given = checkpoint.tensors
    longest = max(wanted, key=len, default="")
    prefixes = {
        key.removesuffix(name)
        for name in same.get(longest, (longest,))
        for key in given
        if key.endswith(f".{name}")
    }

    def fitting(prefix: str) -> int:
        return sum(f"{prefix}{key}" in given for key in wanted)

    best = max(sorted(prefixes), key=fitting, default="")
    return renamed(checkpoint, best) if fitting(best) > fitting("") else checkpoint


def with_new_names(checkpoint: Checkpoint, wanted: Mapping[str, Tensor]) -> Checkpoint:
    """With the keys that differ only by what a container put in, and have the same shape.

    Only where that leaves one key of the file and one of the network: layers of a Sequential that
    moved must not change places.
    """
    given = checkpoint.tensors
    here, there = Counter(map(_plain, given)), Counter(map(_plain, wanted))
    missing = {_plain(key): key for key in wanted if key not in given}
    new = {
        old: missing[plain]
        for old, plain in ((old, _plain(old)) for old in given if old not in wanted)
        if plain in missing and here[plain] == there[plain] == 1
        if fits(given[old], wanted[missing[plain]])
    }
    if not new:
        return checkpoint
    note = f"matched {counted(len(new), 'key')} by shape: " + first_few(
        f"{old} for {key}" for old, key in new.items()
    )
    return replace(_named(checkpoint, new), notes=(*checkpoint.notes, note))


def with_first_names(checkpoint: Checkpoint, same: Aliases) -> Checkpoint:
    """With the first of a tensor's names where the file has it under another one only."""
    given = checkpoint.tensors
    stored = {names: [name for name in names if name in given] for names in set(same.values())}
    new = {held[0]: names[0] for names, held in stored.items() if held and held[0] != names[0]}
    return _named(checkpoint, new)


def _named(checkpoint: Checkpoint, new: Mapping[str, str]) -> Checkpoint:
    given = checkpoint.tensors
    return replace(
        checkpoint,
        tensors={new.get(key, key): tensor for key, tensor in given.items()},
        names={new.get(key, key): checkpoint.names.get(key, key) for key in given},
    )


def _plain(key: str) -> str:
    return CONTAINER_PARTS.sub("", key)
