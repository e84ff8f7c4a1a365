"""From a file's keys to those of a network: what fits, what is neuron state, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from snnprune.checkpoint import Checkpoint, folded
from snnprune.checkpoint.naming import first_few
from snnprune.checkpoint.states import SAVED, STATES
from snnprune.errors import InputError
from snnprune.jobs.subjects.renaming import fits, with_first_names, with_new_names, without_prefix
from snnprune.network.aliases import aliases
from snnprune.network.libraries import library_of

EXTRA = "_extra_state"
"""How torch ends the key of what a module's get_extra_state gives."""


def bound(module: nn.Module, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with the keys of `module`, whose state was left in it by neurons put aside.

    Prefixes are taken off, pruning masks folded in unless the module has them too, and names that
    older containers gave are matched by shape. A membrane that was saved is replaced by the one
    that the module has at rest, or left out where it has none: it would not load again. A tensor
    with several names in the module may have any of them in the file.

    Raises:
        InputError: tensors are missing, unexpected or of another shape; at most five are named.
    """
    same = aliases(module)
    wanted = {k: v for k, v in module.state_dict().items() if k in same and not k.endswith(EXTRA)}
    checkpoint = without_prefix(checkpoint, wanted, same)
    beside = _beside(checkpoint) | {key for key in checkpoint.tensors if key.endswith(EXTRA)}
    whole = folded(checkpoint)
    if len(wanted.keys() & whole.tensors.keys()) > len(wanted.keys() & checkpoint.tensors.keys()):
        checkpoint = whole
    checkpoint = with_first_names(with_new_names(checkpoint, wanted), same)
    neurons = tuple(f"{n}." for n, m in module.named_modules() if n and library_of(m) is not None)
    checkpoint = _at_rest(checkpoint, wanted, neurons, _states_of(module))
    absent = [
        key
        for key in wanted
        if not any(name in checkpoint.tensors for name in same[key])
        and not key.startswith(neurons)
        and not key.endswith("num_batches_tracked")  # which older versions did not save
    ]
    _require_fit(checkpoint, wanted, absent, beside)
    return checkpoint


def load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put into `module` what it has of `tensors`, which are `bound` to it."""
    own = module.state_dict()
    module.load_state_dict({key: tensors[key] for key in own if key in tensors}, strict=False)


def _states_of(module: nn.Module) -> set[str]:
    """The keys of a network in which its neurons keep a state."""
    known = [(name, part, library_of(part)) for name, part in module.named_modules()]
    return {
        f"{name}.{buffer}"
        for name, part, library in known
        if library is not None
        for buffer in part._buffers
        if buffer in library.saved_states
    }


def _at_rest(
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
    fresh = {key for key in kept_states if not fits(given[key], wanted[key])}
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
            f"left out what neurons had saved: {first_few(sorted(gone | fresh))}",
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
        if key in given and not fits(given[key], wanted[key])
    ]
    for what, keys in (("missing", absent), ("unexpected", extra), ("of another shape", odd)):
        if keys:
            raise InputError(
                f"does not fit the model: {len(keys)} of {len(wanted)} tensors {what}: "
                + ", ".join(keys[:5]),
                file=checkpoint.path,
                hint="is it the right --model, with the right --model-arg?",
            )


def _beside(checkpoint: Checkpoint) -> set[str]:
    """The keys that lack the prefix of all others: a wrapper's own."""
    kept = {key for key in checkpoint.tensors if checkpoint.names.get(key, key) == key}
    return kept if len(kept) < len(checkpoint.tensors) else set()
