"""Finding the state_dict among what a trainer saved beside it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.checkpoint.naming import first_few
from snnprune.errors import InputError

WRAPPERS = ("model", "net", "state_dict", "model_state_dict")

DEPTH = 2
"""How far below the top a state_dict is looked for."""

TOP = "."
"""The entry that is the whole file."""

FLAG = "--state-dict"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A dict of tensors in a file, and the keys that lead to it."""

    trail: tuple[object, ...]
    entries: dict[Any, Any]

    @property
    def entry(self) -> str:
        """The keys as one text: `model.state_dict`, `.` for the top."""
        return ".".join(map(str, self.trail)) or TOP

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, in its order."""
        return {
            name: value
            for name, value in self.entries.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        }


def state_dict_in(loaded: object, path: Path, entry: str | None = None) -> Found:
    """The state_dict in `loaded`: the one under `entry`, or the one that trainers mean.

    Raises:
        InputError: there is no dict of tensors, more than one and no telling which, or none under
            `entry`.
    """
    if not isinstance(loaded, dict):
        raise InputError(
            f"holds a {type(loaded).__name__}, not a state_dict",
            file=path,
            hint="torch.save(model.state_dict(), FILE) writes one",
        )
    found = _usual(loaded, DEPTH) if entry is None else _asked(loaded, entry)
    if found is not None:
        return found
    there = [found.entry for found in _all(loaded, DEPTH)]
    if entry is not None:
        message = f"no state_dict under {entry}; there is {first_few(there) or 'none'}"
        raise InputError(message, file=path, field=FLAG)
    if len(there) > 1:
        raise InputError(
            f"more than one state_dict: {first_few(there)}", file=path, hint=f"choose with {FLAG}"
        )
    raise InputError(
        f"no state_dict found; the keys are {first_few(loaded) or 'none'}",
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
    tensors = found.tensors
    skipped = [name for name in found.entries if name not in tensors]
    if skipped:
        entries = "entry that is no tensor" if len(skipped) == 1 else "entries that are no tensors"
        notes.append(f"skipped {len(skipped)} {entries}: {first_few(skipped)}")
    return tuple(notes)


def with_state_dict(loaded: Any, trail: tuple[object, ...], entries: object) -> Any:
    """`loaded` with `entries` at the end of `trail`; what lies beside it is shared, not copied."""
    if not trail:
        return entries
    changed = copy.copy(loaded)
    changed[trail[0]] = with_state_dict(loaded[trail[0]], trail[1:], entries)
    return changed


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items())


def _has_weights(found: Found) -> bool:
    return any(
        isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1
        for value in found.entries.values()
    )


def _usual(value: object, depth: int) -> Found | None:
    """Under the name of a wrapper, else here, else where it is the only one below."""
    if not isinstance(value, dict) or depth < 0:
        return None
    for name in WRAPPERS:
        if found := _usual(value.get(name), depth - 1):
            return _below(name, found)
    if _holds_tensors(value):
        return Found(trail=(), entries=value)
    below = {found.trail[0] for found in _all(value, depth)}
    if len(below) != 1:
        return None
    only = below.pop()
    inner = _usual(value[only], depth - 1)
    return inner and _below(only, inner)


def _asked(value: object, entry: str) -> Found | None:
    """Where the dotted `entry` leads; keys may have dots themselves."""
    if not isinstance(value, dict):
        return None
    if entry == TOP:
        return Found(trail=(), entries=value) if _holds_tensors(value) else _usual(value, DEPTH)
    for name, item in value.items():
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
            if not isinstance(item, dict):
                continue
            if id(item) not in holds:
                holds[id(item)] = _holds_tensors(item)
                below += [((*trail, name), inner) for name, inner in item.items()]
            if holds[id(item)]:
                found.append(Found(trail=trail, entries=item))
        level = below
    return found


def _below(name: object, found: Found) -> Found:
    return Found(trail=(name, *found.trail), entries=found.entries)
