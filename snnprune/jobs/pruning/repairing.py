"""Which repair there can be, and the tensors that a file gets after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from snnprune.checkpoint import is_finite
from snnprune.errors import InputError, NonFiniteError
from snnprune.jobs.subjects.binding import load
from snnprune.jobs.subjects.subject import Subject
from snnprune.mask import Masks, masked
from snnprune.network import Network
from snnprune.notation import layer_name
from snnprune.repair import BY_LAYER, NONE
from snnprune.repair.batchnorm import batchnorms
from snnprune.repair.pruned import unfitted


def choose_repair(subject: Subject, asked: str | None, *, otherwise: str | None = None) -> str:
    """The repair asked for, else `otherwise`, else `bn` where the network has BatchNorm and data.

    Raises:
        InputError: the repair that was asked for needs what is missing.
    """
    normalised = subject.runnable is not None and bool(batchnorms(subject.runnable.module))
    if asked is None:
        return otherwise or ("bn" if normalised else NONE)
    if asked != NONE and subject.runnable is None:
        raise InputError(
            f"{asked} needs the network and data: {subject.missing or 'they are not at hand'}",
            file=subject.checkpoint.path,
            field="--repair",
            hint="choose none",
        )
    if "bn" in asked.split("+") and not normalised:
        raise InputError(
            "there is no BatchNorm to repair: the network has none",
            file=subject.checkpoint.path,
            field="--repair",
            hint="choose none",
        )
    return asked


def not_fitted(network: Network | None, repair: str, masks: Masks) -> list[str]:
    """A warning where a repair leaves layers as they are, with the reasons."""
    by_layer = [name for name in repair.split("+") if name in BY_LAYER]
    found = unfitted(network, masks) if network is not None and by_layer else {}
    if not found:
        return []
    reasons: dict[str, list[str]] = {}
    for key, why in found.items():
        reasons.setdefault(why, []).append(layer_name(key))
    told = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    return [f"{'+'.join(by_layer)} leaves the kept weights of some layers as they are: {told}"]


def pruned_tensors(
    subject: Subject, masks: Masks, changed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The checkpoint's tensors, pruned and repaired; the subject's network is left holding them.

    `changed` are those of the network that are not as they were, by state-dict key. What no repair
    touched is taken from the file itself, in its own type.

    Raises:
        NonFiniteError: a value does not fit into the type that the file keeps it in.
    """
    # a parameter that has two names in the file is pruned under both
    tied = subject.prunable.find_tied()
    all_masks = {name: mask for key, mask in masks.items() for name in tied.get(key, (key,))}
    tensors = masked(subject.checkpoint.tensors, all_masks)
    if subject.network is None:
        return tensors
    for key in _repairable(subject.network.module):
        if key in changed and key in tensors:
            tensors[key] = _stored(changed[key], tensors[key], all_masks.get(key), key)
    load(subject.network.module, tensors)  # what is measured now is what the file will hold
    return tensors


def _repairable(module: nn.Module) -> Iterator[str]:
    """What a repair may change: parameters and running statistics, but no state of a neuron."""
    yield from (name for name, _ in module.named_parameters(remove_duplicate=False))
    names = [name for name, _ in module.named_buffers(remove_duplicate=False)]
    yield from (name for name in names if name.endswith(("running_mean", "running_var")))


def _stored(repaired: Tensor, before: Tensor, mask: Tensor | None, key: str) -> Tensor:
    """A tensor in the type that the file keeps it in; 0 where it is pruned."""
    if mask is not None:
        repaired = torch.where(mask, repaired, torch.zeros_like(repaired))
    if torch.equal(repaired, before.to(repaired.dtype)):
        return before
    stored = repaired.to("cpu", before.dtype, copy=True).reshape(before.shape)
    if not bool(is_finite(stored).all()):
        raise NonFiniteError(
            f"does not fit into {str(before.dtype).removeprefix('torch.')} after repair",
            field=key,
            hint="choose --repair none, or convert the checkpoint to float32",
        )
    return stored
