"""Finding the state_dict among what a trainer saved beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnprune.checkpoint.torch.machine import PickledCall, PickledDict, kind_of
from snnprune.checkpoint.torch.stand_ins import StoredTensor
from snnprune.errors import InputError, Note, format_names

PARTS = ("_parameters", "_buffers", "_modules")

DEEPEST = 200
"""Modules within modules."""

MOST = 100_000
"""Tensors and modules; a module with many names has its tensors under each."""


def is_module(value: object) -> bool:
    """Whether it is an object with the attributes that torch gives a module."""
    return isinstance(value, PickledCall) and all(
        _get_table(value, name) is not None for name in PARTS
    )


def tensors_of(module: PickledCall) -> dict[str, StoredTensor]:
    """Its parameters and persistent buffers by name, in the order of `state_dict`.

    Raises:
        ValueError: its modules are within each other, or far too many.
    """
    found: dict[str, StoredTensor] = {}
    for count, (name, tensor) in enumerate(_walk_modules(module, "", 0)):
        if count > MOST:
            raise ValueError("it has too many tensors")
        if tensor is not None:
            found[name] = tensor
    return found


def _walk_modules(
    module: PickledCall, prefix: str, depth: int
) -> Iterator[tuple[str, StoredTensor | None]]:
    if depth > DEEPEST:
        raise ValueError("its modules are within each other")
    passing = _list_unsaved_buffers(module)
    yield prefix, None  # counted, so that empty modules end too
    for part in PARTS[:2]:
        for name, value in (_get_table(module, part) or {}).items():
            saved = part == "_parameters" or name not in passing
            if saved and isinstance(name, str) and isinstance(value, StoredTensor):
                yield prefix + name, value
    for name, value in (_get_table(module, "_modules") or {}).items():
        if isinstance(name, str) and is_module(value):
            yield from _walk_modules(value, f"{prefix}{name}.", depth + 1)


def _list_unsaved_buffers(module: PickledCall) -> set[str]:
    """The names of buffers that are not saved."""
    state = _get_attributes(module)
    names = state.get("_non_persistent_buffers_set") if state is not None else None
    if not isinstance(names, PickledCall):
        return set()
    given = names.arguments[0] if isinstance(names.arguments, tuple) and names.arguments else []
    listed = [*given, *names.listed] if isinstance(given, list | tuple) else names.listed
    return {name for name in listed if isinstance(name, str)}


def _get_table(module: PickledCall, name: str) -> PickledDict | None:
    state = _get_attributes(module)
    part = state.get(name) if state is not None else None
    return part if isinstance(part, PickledDict) else None


def _get_attributes(module: PickledCall) -> PickledDict | None:
    """Its attributes; with slots they are the first of two."""
    state = module.state[0] if isinstance(module.state, tuple) and module.state else module.state
    return state if isinstance(state, PickledDict) else None


WRAPPERS = ("model", "net", "state_dict", "model_state_dict")

DEPTH = 2
"""How far below the top a state_dict is looked for."""

TOP = "."
"""The entry that is the whole file."""

FLAG = "--state-dict"


@dataclass(frozen=True, kw_only=True)
class StoredStateDict:
    """A dict of tensors in a file, or a module that was pickled whole, and the keys to it."""

    trail: tuple[object, ...]
    holder: PickledDict | PickledCall
    entries: Mapping[Any, Any]
    """Its items; of a module, its tensors by their names in a state_dict."""

    @property
    def entry(self) -> str:
        """The keys as one text: `model.state_dict`, `.` for the top."""
        return ".".join(map(str, self.trail)) or TOP

    def select_tensors(self) -> dict[str, StoredTensor]:
        """Its tensors, in its order, also those that are left alone."""
        return {
            name: value
            for name, value in self.entries.items()
            if isinstance(name, str) and isinstance(value, StoredTensor)
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
        return isinstance(self.holder, PickledCall) and is_module(self.holder)


def find_state_dict(loaded: object, path: Path, entry: str | None = None) -> StoredStateDict:
    """The state_dict in `loaded`: the one under `entry`, or the one that trainers mean.

    Raises:
        InputError: there is no dict of tensors, more than one and no telling which, or none under
            `entry`.
    """
    try:
        entries = list_entries(loaded)
        found = _find_usual(loaded, DEPTH) if entry is None else _find_entry(loaded, entry)
        there = [other.entry for other in _find_all(loaded, DEPTH)]
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
        message = f"no state_dict under {entry}; there is {format_names(there) or 'none'}"
        raise InputError(message, file=path, field=FLAG)
    if len(there) > 1:
        raise InputError(
            f"more than one state_dict: {format_names(there)}",
            file=path,
            hint=f"choose with {FLAG}",
        )
    raise InputError(
        f"no state_dict found; the keys are {format_names(entries) or 'none'}",
        file=path,
        hint=f"put it at the top or under {', '.join(WRAPPERS)}, or name it with {FLAG}",
    )


def list_notes(found: StoredStateDict, loaded: object) -> tuple[str, ...]:
    """Where the state_dict was, which others there are, and what it holds beside tensors."""
    notes = []
    if found.trail:
        others = [
            other.entry
            for other in _find_all(loaded, DEPTH)
            if other.entry != found.entry and _has_weights(other)
        ]
        beside = f", not those under {format_names(others)} ({FLAG} chooses)" if others else ""
        notes.append(Note(f"read the tensors under {found.entry}{beside}"))
    if found.is_module:
        told = "a module that was pickled whole: its tensors were read, nothing of its code was run"
        notes.append(Note(told))
    if odd := found.select_odd():
        named = format_names(f"{name} ({kind})" for name, kind in odd.items())
        notes.append(Note(f"tensors of other kinds are left alone: {named}"))
    tensors = found.select_tensors()
    skipped = [name for name in found.entries if name not in tensors]
    if skipped:
        entries = "entry that is no tensor" if len(skipped) == 1 else "entries that are no tensors"
        notes.append(Note(f"skipped {len(skipped)} {entries}: {format_names(skipped)}"))
    return tuple(notes)


def list_entries(value: object) -> Mapping[Any, Any] | None:
    """The items of a dict, also of a class of its own; the tensors of a module by name.

    Raises:
        ValueError: the module is within itself, or far too large.
    """
    if isinstance(value, PickledCall):
        if value.items is None and is_module(value):
            value.items = PickledDict(value.place)
            value.items.update(tensors_of(value))
        return value.items
    return value if isinstance(value, PickledDict) else None


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    return any(
        isinstance(name, str) and isinstance(item, StoredTensor) for name, item in value.items()
    )


def _has_weights(found: StoredStateDict) -> bool:
    return any(
        tensor.kind is None and tensor.dtype.is_floating_point and len(tensor.shape) > 1
        for tensor in found.select_tensors().values()
    )


def _make_state_dict(holder: object, entries: Mapping[Any, Any]) -> StoredStateDict:
    assert isinstance(holder, PickledDict | PickledCall)
    return StoredStateDict(trail=(), holder=holder, entries=entries)


def _find_usual(value: object, depth: int) -> StoredStateDict | None:
    """Under the name of a wrapper, else here, else where it is the only one below."""
    entries = list_entries(value)
    if entries is None or depth < 0:
        return None
    for name in WRAPPERS:
        if found := _find_usual(entries.get(name), depth - 1):
            return _prefix_keys(name, found)
    if _holds_tensors(entries):
        return _make_state_dict(value, entries)
    below = {found.trail[0] for found in _find_all(value, depth)}
    if len(below) != 1:
        return None
    only = below.pop()
    inner = _find_usual(entries[only], depth - 1)
    return inner and _prefix_keys(only, inner)


def _find_entry(value: object, entry: str) -> StoredStateDict | None:
    """Where the dotted `entry` leads; keys may have dots themselves."""
    entries = list_entries(value)
    if entries is None:
        return None
    if entry == TOP:
        return (
            _make_state_dict(value, entries)
            if _holds_tensors(entries)
            else _find_usual(value, DEPTH)
        )
    for name, item in entries.items():
        rest = TOP if str(name) == entry else entry.removeprefix(f"{name}.")
        if rest != entry and (found := _find_entry(item, rest)):
            return _prefix_keys(name, found)
    return None


def _find_all(value: object, depth: int) -> list[StoredStateDict]:
    """Every dict of tensors down to `depth`; one that has many names is looked into once."""
    found, holds = [], dict[int, bool]()
    level: list[tuple[tuple[object, ...], object]] = [((), value)]
    for _ in range(depth + 1):
        below: list[tuple[tuple[object, ...], object]] = []
        for trail, item in level:
            entries = list_entries(item)
            if entries is None:
                continue
            if id(item) not in holds:
                holds[id(item)] = _holds_tensors(entries)
                below += [((*trail, name), inner) for name, inner in entries.items()]
            if holds[id(item)]:
                found.append(replace(_make_state_dict(item, entries), trail=trail))
        level = below
    return found


def _prefix_keys(name: object, found: StoredStateDict) -> StoredStateDict:
    return replace(found, trail=(name, *found.trail))
