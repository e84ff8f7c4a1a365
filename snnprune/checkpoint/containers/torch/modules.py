"""A module that was pickled whole: the names that its tensors would have in a state_dict."""

from __future__ import annotations

from collections.abc import Iterator

from snnprune.checkpoint.containers.torch.pickled.values import Made, Table
from snnprune.checkpoint.containers.torch.tensors import Described

PARTS = ("_parameters", "_buffers", "_modules")

DEEPEST = 200
"""Modules within modules."""

MOST = 100_000
"""Tensors and modules; a module with many names has its tensors under each."""


def is_module(value: object) -> bool:
    """Whether it is an object with the attributes that torch gives a module."""
    return isinstance(value, Made) and all(_part(value, name) is not None for name in PARTS)


def tensors_of(module: Made) -> dict[str, Described]:
    """Its parameters and persistent buffers by name, in the order of `state_dict`.

    Raises:
        ValueError: its modules are within each other, or far too many.
    """
    found: dict[str, Described] = {}
    for count, (name, tensor) in enumerate(_walked(module, "", 0)):
        if count > MOST:
            raise ValueError("it has too many tensors")
        if tensor is not None:
            found[name] = tensor
    return found


def _walked(module: Made, prefix: str, depth: int) -> Iterator[tuple[str, Described | None]]:
    if depth > DEEPEST:
        raise ValueError("its modules are within each other")
    passing = _passing(module)
    yield prefix, None  # counted, so that empty modules end too
    for part in PARTS[:2]:
        for name, value in (_part(module, part) or {}).items():
            saved = part == "_parameters" or name not in passing
            if saved and isinstance(name, str) and isinstance(value, Described):
                yield prefix + name, value
    for name, value in (_part(module, "_modules") or {}).items():
        if isinstance(name, str) and is_module(value):
            yield from _walked(value, f"{prefix}{name}.", depth + 1)


def _passing(module: Made) -> set[str]:
    """The names of buffers that are not saved."""
    state = _state(module)
    names = state.get("_non_persistent_buffers_set") if state is not None else None
    if not isinstance(names, Made):
        return set()
    given = names.arguments[0] if isinstance(names.arguments, tuple) and names.arguments else []
    listed = [*given, *names.listed] if isinstance(given, list | tuple) else names.listed
    return {name for name in listed if isinstance(name, str)}


def _part(module: Made, name: str) -> Table | None:
    state = _state(module)
    part = state.get(name) if state is not None else None
    return part if isinstance(part, Table) else None


def _state(module: Made) -> Table | None:
    """Its attributes; with slots they are the first of two."""
    state = module.state[0] if isinstance(module.state, tuple) and module.state else module.state
    return state if isinstance(state, Table) else None
