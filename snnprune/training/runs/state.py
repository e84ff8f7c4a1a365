"""The states of a run, the two newest in its folder, and what must be as it was to go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import require_sound
from snnprune.checkpoint.safetensors import read as read_safetensors
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError
from snnprune.files.writing import close_after, list_names, open_folder
from snnprune.recipe.schema import Recipe
from snnprune.runtime import collect_versions, device_name

POSITION, HASH = "snnprune.position", "snnprune.state_sha256"
START_AGAIN = "--force starts again"


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Where a run is, and its tensors by what they are for."""

    position: Mapping[str, Any]
    """JSON: whole numbers, floats that come back exactly, text, lists and tables of them."""
    groups: Mapping[str, Mapping[str, Tensor]]
    """Such as `model`, `optimizer`, `best`, by the names of the tensors; no empty group."""
    path: Path | None = None
    """The file that it was read from."""


def write_state(path: Path, state: State, *, within: Path | None = None) -> None:
    """Write the file whole or not at all; no more than one tensor is copied at a time.

    `within` is as for `files.writing.replace_file`.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {
        f"{group}/{name}": tensor
        for group, named in state.groups.items()
        for name, tensor in named.items()
    }
    position = json.dumps(state.position, allow_nan=False)
    metadata = {"format": "pt", POSITION: position, HASH: hash_state(position, tensors)}
    write_safetensors(path, tensors, metadata, within=within)


def read_state(path: Path) -> State:
    """The state in the file, its tensors on the CPU.

    Raises:
        InputError: the file is damaged or no state.
    """
    contents = read_safetensors(path)
    position = contents.metadata.get(POSITION, "")
    if contents.metadata.get(HASH) != hash_state(position, contents.tensors):
        raise InputError("does not fit its hash", file=path)
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in contents.tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    for group, named in groups.items():
        if group != "optimizer":  # what it remembers may overflow and do no harm
            require_sound(named, path, allow_nonfinite=False)
    try:
        return State(position=json.loads(position), groups=groups, path=path)
    except (ValueError, RecursionError) as error:
        raise InputError("its position is not JSON", file=path) from error


@contextlib.contextmanager
def take_up(state: State) -> Iterator[State]:
    """A block that puts what is in `state` where it belongs.

    Raises:
        InputError: something is missing or does not fit, as after a change of the model's code.
    """
    try:
        yield state
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"does not fit the run: {reason}", file=state.path, hint=START_AGAIN
        ) from error


def hash_state(position: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the position and of every tensor's name, type, shape and bytes."""
    found = hashlib.sha256(position.encode())
    for name, tensor in tensors.items():
        found.update(f"\n{name}\n{tensor.dtype}\n{list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


NAME = re.compile(r"step-(\d+)\.safetensors")


class StateStore:
    """States by the number of batches that were done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, number: int, state: State) -> None:
        """Write a state; then it and the one before it are kept.

        Raises:
            OutputError: it cannot be written; the older ones are as they were.
        """
        path = self.folder / f"step-{number:06}.safetensors"
        write_state(path, state, within=self.folder.parent)
        numbered = self._list_numbered()
        kept = {number, max((other for other in numbered if other < number), default=number)}
        for other, path in numbered.items():
            if other not in kept:  # also later ones, which were damaged and gone back from
                with contextlib.suppress(OSError):
                    self._delete([path])

    def read_newest(self) -> tuple[State | None, tuple[str, ...]]:
        """The newest state that is whole, and a warning for each later one; None without any.

        Raises:
            InputError: there are states, and all are damaged.
        """
        warnings: list[str] = []
        for _, path in sorted(self._list_numbered().items(), reverse=True):
            try:
                return read_state(path), tuple(warnings)
            except InputError as error:
                warnings.append(f"{path}: {error.message}; went on from the state before it")
                last = error
        if not warnings:
            return None, ()
        raise InputError(
            f"no state is whole: the last one {last.message}", file=last.file, hint=START_AGAIN
        )

    def find_newest(self) -> Path | None:
        """The file of the newest state, unread."""
        numbered = self._list_numbered()
        return numbered[max(numbered)] if numbered else None

    def clear(self) -> None:
        """Delete them all."""
        self._delete(self._list_numbered().values())

    def _delete(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with self._open_folder() as handle:
                os.unlink(path.name, dir_fd=handle)

    def _open_folder(self) -> contextlib.AbstractContextManager[int]:
        """The folder; a link in its place is not followed."""
        return close_after(open_folder(self.folder.parent, [self.folder.name], make=False))

    def _list_numbered(self) -> dict[int, Path]:
        """By number: as text, 999999 would come after 1000000."""
        try:
            with self._open_folder() as handle:
                names = list_names(handle)
        except OSError:
            return {}
        matches = filter(None, map(NAME.fullmatch, names))
        return {int(match[1]): self.folder / match[0] for match in matches}


def read_count(known: Mapping[str, Any], name: str, *, most: int | None = None) -> int:
    """A whole number from 0 on, and up to `most`."""
    value = known[name]
    if type(value) is not int or value < 0 or (most is not None and value > most):
        raise ValueError(f"{name} cannot be {_format_value(value)}")
    return value


def read_number(known: Mapping[str, Any], name: str) -> float:
    """A number that is neither NaN nor infinite."""
    value = known[name]
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} cannot be {_format_value(value)}")
    return float(value)


def require_names(known: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse a table with other names than these."""
    if set(known) != set(names):
        raise ValueError(f"it does not say {', '.join(names)} alone")


def require_alike(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse tensors with other names, shapes or types than those that are wanted."""
    if tensors.keys() != wanted.keys():
        odd = min(tensors.keys() ^ wanted.keys())
        raise ValueError(f"{odd} is {'missing' if odd in wanted else 'too many'}")
    for name, tensor in tensors.items():
        like = wanted[name]
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"{name} is {tensor.dtype} of shape {list(tensor.shape)}, "
                f"wanted {like.dtype} of shape {list(like.shape)}"
            )


def _format_value(value: object) -> str:
    text = repr(value) if not isinstance(value, int) else f"{value:,}"
    return text if len(text) < 80 else f"{text[:80]}..."


SHOWN = 10  # differences that an error lists
ABSENT = object()


def require_same(recipe: Recipe, of_run: Recipe, folder: Path) -> None:
    """Refuse to go on with another recipe.

    Raises:
        InputError: a setting differs; each is listed with both values.
    """
    before, now = (_flatten(each.model_dump(mode="json")) for each in (of_run, recipe))
    found = list_differences(before, now)
    if found:
        more = [f"{len(found) - SHOWN} more"] * (len(found) > SHOWN)
        raise InputError(
            "; ".join([*found[:SHOWN], *more]),
            file=folder,
            hint="without --recipe and --set the run goes on as it began; --force starts another",
        )


def list_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each name whose values differ."""
    names = dict.fromkeys([*before, *now])
    pairs = ((name, before.get(name, ABSENT), now.get(name, ABSENT)) for name in names)
    return [
        f"{name}: {_format_setting(then)} in the run, {_format_setting(value)} now"
        for name, then, value in pairs
        if then != value
    ]


def collect_conditions(device: torch.device, processes: int = 1) -> dict[str, str]:
    """What the last bits of a result depend on beside the recipe."""
    known = collect_versions()
    return {
        "snnprune": known["snnprune"],
        "torch": known["torch"],
        "device": device_name(device),
        "processes": str(processes),
    }


def check_differences(
    before: Mapping[str, str], now: Mapping[str, str], allowed: Collection[str], folder: Path
) -> list[str]:
    """A warning for each difference of what a run was made with; `allowed` are names in it.

    The number of a CPU's threads makes it no other device.

    Raises:
        InputError: something differs that is not allowed; each is listed with both values.
    """
    refused = [
        name
        for name in dict.fromkeys([*before, *now])
        if name not in allowed
        and _strip_details(before.get(name, "")) != _strip_details(now.get(name, ""))
    ]
    if refused:
        flags = " ".join(f"--allow-change {name}" for name in refused)
        raise InputError(
            "; ".join(told for told in list_differences(before, now) if _get_name(told) in refused),
            file=folder,
            hint=f"{flags} goes on all the same",
        )
    return list(map(_format_warning, list_differences(before, now)))


def _strip_details(made: str) -> str:
    return made.partition(" (")[0]


def _get_name(difference: str) -> str:
    return difference.partition(":")[0]


def _format_warning(difference: str) -> str:
    return f"{difference}: the result may differ in its last bits from that of an undisturbed run"


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"training": {"epochs": 3}}` as `{"training.epochs": 3}`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _format_setting(value: object) -> str:
    return "not set" if value is ABSENT else str(value)
