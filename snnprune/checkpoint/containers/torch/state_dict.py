"""Finding the state_dict among what a trainer saved beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnprune.checkpoint.containers.torch.modules import entries_of, is_module
from snnprune.checkpoint.containers.torch.opcodes import Made
from snnprune.checkpoint.containers.torch.tensors import Odd, Stored
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
    whole: object = None
    """What the entries are of: the dict itself, or a module."""

    @property
    def entry(self) -> str:
        """The keys as one text: `model.state_dict`, `.` for the top."""
        return ".".join(map(str, self.trail)) or TOP

    @property
    def tensors(self) -> dict[str, Stored]:
        """Its dense tensors, in its order."""
        return {
            name: value
            for name, value in self.entries.items()
            if isinstance(name, str) and isinstance(value, Stored)
        }

    @property
    def odd(self) -> dict[str, str]:
        """Its tensors of another kind, and what they are."""
        return {
            str(name): value.kind for name, value in self.entries.items() if isinstance(value, Odd)
        }


def state_dict_in(loaded: object, path: Path, entry: str | None = None) -> Found:
    """The state_dict in `loaded`: the one under `entry`, or the one that trainers mean.

    Raises:
        InputError: there is no dict of tensors, more than one and no telling which, or none under
            `entry`.
    """
    if entries_of(loaded) is None:
        raise InputError(
            f"holds {_kind_of(loaded)}, not a state_dict",
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
        f"no state_dict found; the keys are {first_few(entries_of(loaded) or ()) or 'none'}",
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
    if is_module(found.whole):
        notes.append(
            "a module that was pickled whole: its tensors were read, nothing of its code was run"
        )
    skipped = [name for name in found.entries if name not in tensors and str(name) not in found.odd]
    if found.odd:
        kinds = ", ".join(f"{name} ({kind})" for name, kind in list(found.odd.items())[:5])
        more = f" and {len(found.odd) - 5} more" if len(found.odd) > 5 else ""
        notes.append(f"tensors of other kinds are left alone: {kinds}{more}")
    if skipped:
        entries = "entry that is no tensor" if len(skipped) == 1 else "entries that are no tensors"
        notes.append(f"skipped {len(skipped)} {entries}: {first_few(skipped)}")
    return tuple(notes)


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    return any(
        isinstance(name, str) and isinstance(item, Stored | Odd) for name, item in value.items()
    )


def _has_weights(found: Found) -> bool:
    return any(
        isinstance(value, Stored) and value.dtype.is_floating_point and len(value.size) > 1
        for value in found.entries.values()
    )


def _usual(value: object, depth: int) -> Found | None:
    """Under the name of a wrapper, else here, else where it is the only one below."""
    entries = entries_of(value)
    if entries is None or depth < 0:
        return None
    for name in WRAPPERS:
        if found := _usual(entries.get(name), depth - 1):
            return _below(name, found)
    if _holds_tensors(entries):
        return Found(trail=(), entries=entries, whole=value)
    below = {found.trail[0] for found in _all(value, depth)}
    if len(below) != 1:
        return None
    only = below.pop()
    inner = _usual(entries[only], depth - 1)
    return inner and _below(only, inner)


def _asked(value: object, entry: str) -> Found | None:
    """Where the dotted `entry` leads; keys may have dots themselves."""
    entries = entries_of(value)
    if entries is None:
        return None
    if entry == TOP:
        here = Found(trail=(), entries=entries, whole=value)
        return here if _holds_tensors(entries) else _usual(value, DEPTH)
    for name, item in entries.items():
        rest = TOP if str(name) == entry else entry.removeprefix(f"{name}.")
        if rest != entry and (found := _asked(item, rest)):
            return _below(name, found)
    return None


def _all(value: object, depth: int) -> list[Found]:
    """Every dict of tensors down to `depth`; one that has many names is looked into once."""
    found, holds = [], dict[int, bool]()
    known: dict[int, dict[Any, Any] | None] = {}
    level: list[tuple[tuple[object, ...], object]] = [((), value)]
    for _ in range(depth + 1):
        below: list[tuple[tuple[object, ...], object]] = []
        for trail, item in level:
            if id(item) not in known:
                known[id(item)] = entries_of(item)
            entries = known[id(item)]
            if entries is None:
                continue
            if id(item) not in holds:
                holds[id(item)] = _holds_tensors(entries)
                below += [((*trail, name), inner) for name, inner in entries.items()]
            if holds[id(item)]:
                found.append(Found(trail=trail, entries=entries, whole=item))
        level = below
    return found


def _below(name: object, found: Found) -> Found:
    return Found(trail=(name, *found.trail), entries=found.entries, whole=found.whole)


def _kind_of(loaded: object) -> str:
    if isinstance(loaded, Made):
        return f"an object of {loaded.name[:80]}"
    return "a Tensor" if isinstance(loaded, Stored | Odd) else f"a {type(loaded).__name__}"
