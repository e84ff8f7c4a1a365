"""A module that was pickled whole, as the dict of tensors that its state_dict would be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from snnprune.checkpoint.containers.torch.opcodes import Bag, Made
from snnprune.checkpoint.containers.torch.tensors import Odd, Stored

PARTS = ("_parameters", "_buffers", "_modules")
DEPTH = 64
"""Modules lie in each other no deeper."""
MOST = 10**6
"""Names of tensors; one that is reached on many ways has as many."""


def entries_of(value: object) -> dict[Any, Any] | None:
    """A dict as it is, a whole module as what its state_dict would be; None of anything else."""
    if is_module(value):
        return dict(_named(value))
    return value if isinstance(value, dict) else None


def is_module(value: object) -> bool:
    """Whether it is a record of a module, known by the attributes that torch gives it."""
    return isinstance(value, Made) and isinstance(value.state, dict) and PARTS[0] in value.state


def _named(module: object) -> Iterator[tuple[str, Stored | Odd]]:
    """The tensors of a module by the keys of its state_dict, in that order."""
    count = 0
    pending: list[tuple[str, object, int]] = [("", module, 0)]
    while pending:
        prefix, here, depth = pending.pop()
        if not (is_module(here) and isinstance(here, Made) and isinstance(here.state, dict)):
            continue
        for name, tensor in _own(here.state):
            count += 1
            if count > MOST:
                return
            yield f"{prefix}{name}", tensor
        below = here.state.get("_modules")
        if isinstance(below, dict) and depth < DEPTH:
            found = [(f"{prefix}{name}.", part, depth + 1) for name, part in below.items()]
            pending += reversed(found)
        count += 1
        if count > MOST:
            return


def _own(state: dict[Any, Any]) -> Iterator[tuple[str, Stored | Odd]]:
    passing = state.get("_non_persistent_buffers_set")
    left_out = {name for name in passing if type(name) is str} if isinstance(passing, Bag) else ()
    for part in PARTS[:2]:
        held = state.get(part)
        for name, tensor in held.items() if isinstance(held, dict) else ():
            if type(name) is str and isinstance(tensor, Stored | Odd) and name not in left_out:
                yield name, tensor
