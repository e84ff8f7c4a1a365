"""A state: all that a run needs to go on, in one safetensors file."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint import write_safetensors
from snnprune.checkpoint.containers.safetensors.file import read as read_safetensors
from snnprune.checkpoint.soundness import require_sound
from snnprune.errors import InputError

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

    `within` is as for `files.replacing`.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {
        f"{group}/{name}": tensor
        for group, named in state.groups.items()
        for name, tensor in named.items()
    }
    position = json.dumps(state.position, allow_nan=False)
    metadata = {"format": "pt", POSITION: position, HASH: hash_of(position, tensors)}
    write_safetensors(path, tensors, metadata, within=within)


def read_state(path: Path) -> State:
    """The state in the file, its tensors on the CPU.

    Raises:
        InputError: the file is damaged or no state.
    """
    contents = read_safetensors(path)
    position = contents.metadata.get(POSITION, "")
    if contents.metadata.get(HASH) != hash_of(position, contents.tensors):
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
def taking_up(state: State) -> Iterator[State]:
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


def hash_of(position: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the position and of every tensor's name, type, shape and bytes."""
    found = hashlib.sha256(position.encode())
    for name, tensor in tensors.items():
        found.update(f"\n{name}\n{tensor.dtype}\n{list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()
