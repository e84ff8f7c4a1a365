"""From a file's keys to those of a network: what fits, what is neuron state, what is missing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from snnprune.checkpoint.checkpoint import Checkpoint, fold_masks, require_sound, strip_prefix
from snnprune.checkpoint.containers import MODULE
from snnprune.checkpoint.naming import SAVED, STATES
from snnprune.checkpoint.safetensors import bytes_of
from snnprune.errors import InputError, Note, format_count, format_names
from snnprune.graph.libraries import library_of
from snnprune.graph.network import find_aliases

# What older SpikingJelly containers put into a key: `conv1.0.weight`, `sn1.module.w`.
CONTAINER_PARTS = re.compile(r"(?<=\.)(\d+|module)\.")

Aliases = Mapping[str, tuple[str, ...]]
"""For each key of a network, all keys of the same tensor."""


def has_shape_of(stored: Tensor, wanted: Tensor) -> bool:
    """Whether a stored tensor has the shape that the network's has; a lazy one takes any."""
    return is_lazy(wanted) or stored.shape == wanted.shape


def strip_network_prefix(
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
    return strip_prefix(checkpoint, best) if fitting(best) > fitting("") else checkpoint


def match_container_names(checkpoint: Checkpoint, wanted: Mapping[str, Tensor]) -> Checkpoint:
    """With the keys that differ only by what a container put in, and have the same shape.

    Only where that leaves one key of the file and one of the network: layers of a Sequential that
    moved must not change places.
    """
    given = checkpoint.tensors
    here, there = (
        Counter(map(_drop_container_names, given)),
        Counter(map(_drop_container_names, wanted)),
    )
    missing = {_drop_container_names(key): key for key in wanted if key not in given}
    new = {
        old: missing[plain]
        for old, plain in ((old, _drop_container_names(old)) for old in given if old not in wanted)
        if plain in missing and here[plain] == there[plain] == 1
        if has_shape_of(given[old], wanted[missing[plain]])
    }
    if not new:
        return checkpoint
    note = f"matched {format_count(len(new), 'key')} by shape: " + format_names(
        f"{old} for {key}" for old, key in new.items()
    )
    return replace(_rename_keys(checkpoint, new), notes=(*checkpoint.notes, note))


def use_first_names(checkpoint: Checkpoint, same: Aliases) -> Checkpoint:
    """With the first of a tensor's names where the file has it under another one only."""
    given = checkpoint.tensors
    stored = {names: [name for name in names if name in given] for names in set(same.values())}
    new = {held[0]: names[0] for names, held in stored.items() if held and held[0] != names[0]}
    return _rename_keys(checkpoint, new)


def _rename_keys(checkpoint: Checkpoint, new: Mapping[str, str]) -> Checkpoint:
    given = checkpoint.tensors
    return replace(
        checkpoint,
        tensors={new.get(key, key): tensor for key, tensor in given.items()},
        names={new.get(key, key): checkpoint.names.get(key, key) for key in given},
    )


def _drop_container_names(key: str) -> str:
    return CONTAINER_PARTS.sub("", key)


EXTRA = "_extra_state"
"""How torch ends the key of what a module's get_extra_state gives."""


def bind_checkpoint(module: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the keys of `module`, whose state was left in it by neurons put aside.

    Prefixes are taken off, pruning masks folded in unless the module has them too, and names that
    older containers gave are matched by shape. A membrane that was saved is replaced by the one
    that the module has at rest, or left out where it has none: it would not load again. A tensor
    with several names in the module may have any of them in the file.

    Raises:
        InputError: tensors are missing, unexpected or of another shape; at most five are named.
    """
    same = find_aliases(module)
    wanted = {k: v for k, v in module.state_dict().items() if k in same and not k.endswith(EXTRA)}
    checkpoint = strip_network_prefix(checkpoint, wanted, same)
    beside = _find_wrapper_keys(checkpoint) | {
        key for key in checkpoint.tensors if key.endswith(EXTRA)
    }
    whole = fold_masks(checkpoint)
    if len(wanted.keys() & whole.tensors.keys()) > len(wanted.keys() & checkpoint.tensors.keys()):
        checkpoint = whole
    checkpoint = use_first_names(match_container_names(checkpoint, wanted), same)
    neurons = tuple(f"{n}." for n, m in module.named_modules() if n and library_of(m) is not None)
    checkpoint = _drop_states(checkpoint, wanted, neurons, find_states(module))
    absent = [
        key
        for key in wanted
        if not any(name in checkpoint.tensors for name in same[key])
        and not key.startswith(neurons)
        and not key.endswith("num_batches_tracked")  # which older versions did not save
    ]
    _require_fit(checkpoint, wanted, absent, beside)
    return checkpoint


def make_checkpoint(module: nn.Module, name: Path, *, allow_nonfinite: bool = False) -> Checkpoint:
    """What a file of the module would hold, on the CPU; errors call it `name`.

    What is the same tensor under several keys stays so. Its hash is that of keys, types, shapes and
    values. What is no tensor is left out, with a note.

    Raises:
        InputError: a parameter has no values yet, or one that no network can have (see
            `require_sound`).
    """
    tensors: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}
    state = module.state_dict(keep_vars=True)
    for key, held in state.items():
        if is_lazy(held):
            raise InputError(
                "has no values yet", file=name, field=key, hint="run the network on a batch first"
            )
        if isinstance(held, Tensor):
            if id(held) not in copies:  # of its own memory: what is pruned must not show here
                copies[id(held)] = held.detach().to("cpu", copy=True).contiguous()
            tensors[key] = copies[id(held)]
    left_out = [key for key in state if key not in tensors]
    notes = (f"left out what is no tensor: {format_names(left_out)}",) if left_out else ()
    return Checkpoint(
        path=name,
        container=MODULE,
        tensors=tensors,
        metadata={},
        sha256=_hash_tensors(tensors),
        notes=(*notes, *require_sound(tensors, name, allow_nonfinite=allow_nonfinite)),
        names={key: key for key in tensors},
    )


def _hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for key, tensor in tensors.items():
        found.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(bytes_of(tensor).numpy().data)
    return found.hexdigest()


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put into `module` what it has of `tensors`, bound to it."""
    own = module.state_dict()
    module.load_state_dict({key: tensors[key] for key in own if key in tensors}, strict=False)


def find_states(module: nn.Module) -> set[str]:
    """The keys of a network in which its neurons keep a state."""
    known = [(name, part, library_of(part)) for name, part in module.named_modules()]
    return {
        f"{name}.{buffer}"
        for name, part, library in known
        if library is not None
        for buffer in part._buffers
        if buffer in library.saved_states
    }


def _drop_states(
    checkpoint: Checkpoint,
    wanted: Mapping[str, Tensor],
    neurons: tuple[str, ...],
    states: set[str],
) -> Checkpoint:
    """Without the state that neurons had when the file was saved; `neurons` begin their keys."""
    given = checkpoint.tensors
    extra = [key for key in given if key not in wanted]
    gone = {key for key in extra if key.startswith(neurons) or key.rpartition(".")[2] in STATES}
    kept_states = states & given.keys() & wanted.keys()
    fresh = {key for key in kept_states if not has_shape_of(given[key], wanted[key])}
    if not gone | fresh:
        return checkpoint
    kept = {key: value for key, value in given.items() if key not in gone}
    return replace(
        checkpoint,
        tensors={
            key: wanted[key].detach().clone() if key in fresh else value
            for key, value in kept.items()
        },
        names={key: checkpoint.names.get(key, key) for key in kept},
        dropped=checkpoint.dropped | {checkpoint.names.get(key, key) for key in gone},
        notes=(
            *(note for note in checkpoint.notes if SAVED not in note),
            Note(f"left out what neurons had saved: {format_names(sorted(gone | fresh))}"),
        ),
    )


def _require_fit(
    checkpoint: Checkpoint, wanted: Mapping[str, Tensor], absent: list[str], beside: set[str]
) -> None:
    given = checkpoint.tensors
    extra = [key for key in given if key not in wanted and key not in beside]
    odd = [
        f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and not has_shape_of(given[key], wanted[key])
    ]
    for what, keys in (("missing", absent), ("unexpected", extra), ("of another shape", odd)):
        if keys:
            raise InputError(
                f"does not fit the model: {len(keys)} of {len(wanted)} tensors {what}: "
                + ", ".join(keys[:5]),
                file=checkpoint.path,
                hint="is it the right --model, with the right --model-arg?",
            )


def _find_wrapper_keys(checkpoint: Checkpoint) -> set[str]:
    """The keys that lack the prefix of all others: a wrapper's own."""
    kept = {key for key in checkpoint.tensors if checkpoint.names.get(key, key) == key}
    return kept if len(kept) < len(checkpoint.tensors) else set()
