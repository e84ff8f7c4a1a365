"""Finding the state_dict among what a trainer saved beside it."""

from pathlib import Path

from torch import Tensor

from snnprune.checkpoint.naming import first_few
from snnprune.errors import InputError

WRAPPERS = ("model", "net", "state_dict", "model_state_dict")

DEPTH = 2
"""How far below the top a state_dict is looked for."""


def state_dict_in(loaded: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the state_dict in `loaded`, and notes of where it was and what it held else.

    Raises:
        InputError: there is no dict of tensors, or more than one and no telling which.
    """
    if not isinstance(loaded, dict):
        raise InputError(
            f"holds a {type(loaded).__name__}, not a state_dict",
            file=path,
            hint="torch.save(model.state_dict(), FILE) writes one",
        )
    found = _find(loaded, DEPTH)
    if found is None:
        raise InputError(
            f"no state_dict found; the keys are {first_few(loaded) or 'none'}",
            file=path,
            hint=f"put it at the top or under {', '.join(WRAPPERS)}",
        )
    trail, entries = found
    tensors = {
        name: value
        for name, value in entries.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    return tensors, _notes(trail, [name for name in entries if name not in tensors])


def _find(value: object, depth: int) -> tuple[list[str], dict[str, object]] | None:
    """The way to the state_dict in `value` and the dict itself."""
    if not isinstance(value, dict) or depth < 0:
        return None
    for name in WRAPPERS:
        if found := _find(value.get(name), depth - 1):
            return [name, *found[0]], found[1]
    if any(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items()):
        return [], value
    below = [(name, found) for name, item in value.items() if (found := _find(item, depth - 1))]
    if len(below) != 1:
        return None
    name, (trail, entries) = below[0]
    return [str(name), *trail], entries


def _notes(trail: list[str], skipped: list[str]) -> tuple[str, ...]:
    notes = []
    if trail:
        notes.append(f"read the tensors under {'.'.join(trail)}")
    if skipped:
        entries = "entry that is no tensor" if len(skipped) == 1 else "entries that are no tensors"
        notes.append(f"skipped {len(skipped)} {entries}: {first_few(skipped)}")
    return tuple(notes)
