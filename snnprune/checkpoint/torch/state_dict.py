"""Finding the state_dict among what a trainer saved beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnprune.checkpoint.torch.machine import Made, Table, kind_of
from snnprune.checkpoint.torch.stored_tensors import Described
from snnprune.errors import InputError
from snnprune.text import first_few

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


WRAPPERS = ("model", "net", "state_dict", "model_state_dict")

DEPTH = 2
"""How far below the top a state_dict is looked for."""

TOP = "."
"""The entry that is the whole file."""

FLAG = "--state-dict"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A dict of tensors in a file, or a module that was pickled whole, and the keys to it."""

    trail: tuple[object, ...]
    holder: Table | Made
    entries: Mapping[Any, Any]
    """Its items; of a module, its tensors by their names in a state_dict."""

    @property
    def entry(self) -> str:
        """The keys as one text: `model.state_dict`, `.` for the top."""
        return ".".join(map(str, self.trail)) or TOP

    def select_tensors(self) -> dict[str, Described]:
        """Its tensors, in its order, also those that are left alone."""
        return {
            name: value
            for name, value in self.entries.items()
            if isinstance(name, str) and isinstance(value, Described)
        }

    def select_odd(self) -> dict[str, str]:
        """Its tensors that are left alone, and what they are."""
        return {
            name: value.kind
            for name, value in self.select_tensors().items()
            if value.kind is not None
        }

    @property
    def is_module(self) -> bool:
        """Whether it is a module and no dict."""
        return isinstance(self.holder, Made) and is_module(self.holder)


def state_dict_in(loaded: object, path: Path, entry: str | None = None) -> Found:
    """The state_dict in `loaded`: the one under `entry`, or the one that trainers mean.

    Raises:
        InputError: there is no dict of tensors, more than one and no telling which, or none under
            `entry`.
    """
    try:
        entries = entries_in(loaded)
        found = _usual(loaded, DEPTH) if entry is None else _asked(loaded, entry)
        there = [other.entry for other in _all(loaded, DEPTH)]
    except ValueError as error:
        raise InputError(f"holds a module that cannot be read: {error}", file=path) from None
    if entries is None:
        raise InputError(
            f"holds a {kind_of(loaded)}, not a state_dict",
            file=path,
            hint="torch.save(model.state_dict(), FILE) writes one",
        )
    if found is not None:
        return found
    if entry is not None:
        message = f"no state_dict under {entry}; there is {first_few(there) or 'none'}"
        raise InputError(message, file=path, field=FLAG)
    if len(there) > 1:
        raise InputError(
            f"more than one state_dict: {first_few(there)}", file=path, hint=f"choose with {FLAG}"
        )
    raise InputError(
        f"no state_dict found; the keys are {first_few(entries) or 'none'}",
        file=path,
        hint=f"put it at the top or under {', '.join(WRAPPERS)}, or name it with {FLAG}",
    )


def notes_on(found: Found, loaded: object) -> tuple[str, ...]:
    """Where the state_dict was, which others there are, and what it holds beside tensors."""
    notes = []
    if found.trail:
        others = [
            other.entry
            for other in _all(loaded, DEPTH)
            if other.entry != found.entry and _has_weights(other)
        ]
        beside = f", not those under {first_few(others)} ({FLAG} chooses)" if others else ""
        notes.append(f"read the tensors under {found.entry}{beside}")
    if found.is_module:
        notes.append(
            "a module that was pickled whole: its tensors were read, nothing of its code was run"
        )
    if odd := found.select_odd():
        named = first_few(f"{name} ({kind})" for name, kind in odd.items())
        notes.append(f"tensors of other kinds are left alone: {named}")
    tensors = found.select_tensors()
    skipped = [name for name in found.entries if name not in tensors]
    if skipped:
        entries = "entry that is no tensor" if len(skipped) == 1 else "entries that are no tensors"
        notes.append(f"skipped {len(skipped)} {entries}: {first_few(skipped)}")
    return tuple(notes)


def entries_in(value: object) -> Mapping[Any, Any] | None:
    """The items of a dict, also of a class of its own; the tensors of a module by name.

    Raises:
        ValueError: the module is within itself, or far too large.
    """
    if isinstance(value, Made):
        if value.items is None and is_module(value):
            value.items = Table(value.place)
            value.items.update(tensors_of(value))
        return value.items
    return value if isinstance(value, Table) else None


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    return any(
        isinstance(name, str) and isinstance(item, Described) for name, item in value.items()
    )


def _has_weights(found: Found) -> bool:
    return any(
        tensor.kind is None and tensor.dtype.is_floating_point and len(tensor.shape) > 1
        for tensor in found.select_tensors().values()
    )


def _found(holder: object, entries: Mapping[Any, Any]) -> Found:
    assert isinstance(holder, Table | Made)
    return Found(trail=(), holder=holder, entries=entries)


def _usual(value: object, depth: int) -> Found | None:
    """Under the name of a wrapper, else here, else where it is the only one below."""
    entries = entries_in(value)
    if entries is None or depth < 0:
        return None
    for name in WRAPPERS:
        if found := _usual(entries.get(name), depth - 1):
            return _below(name, found)
    if _holds_tensors(entries):
        return _found(value, entries)
    below = {found.trail[0] for found in _all(value, depth)}
    if len(below) != 1:
        return None
    only = below.pop()
    inner = _usual(entries[only], depth - 1)
    return inner and _below(only, inner)


def _asked(value: object, entry: str) -> Found | None:
    """Where the dotted `entry` leads; keys may have dots themselves."""
    entries = entries_in(value)
    if entries is None:
        return None
    if entry == TOP:
        return _found(value, entries) if _holds_tensors(entries) else _usual(value, DEPTH)
    for name, item in entries.items():
        rest = TOP if str(name) == entry else entry.removeprefix(f"{name}.")
        if rest != entry and (found := _asked(item, rest)):
            return _below(name, found)
    return None


def _all(value: object, depth: int) -> list[Found]:
    """Every dict of tensors down to `depth`; one that has many names is looked into once."""
    found, holds = [], dict[int, bool]()
    level: list[tuple[tuple[object, ...], object]] = [((), value)]
    for _ in range(depth + 1):
        below: list[tuple[tuple[object, ...], object]] = []
        for trail, item in level:
            entries = entries_in(item)
            if entries is None:
                continue
            if id(item) not in holds:
                holds[id(item)] = _holds_tensors(entries)
                below += [((*trail, name), inner) for name, inner in entries.items()]
            if holds[id(item)]:
                found.append(replace(_found(item, entries), trail=trail))
        level = below
    return found


def _below(name: object, found: Found) -> Found:
    return replace(found, trail=(name, *found.trail))
