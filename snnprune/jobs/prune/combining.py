"""Which criterion, allocation and repair a checkpoint is pruned by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from snnprune.checkpoint.weights import is_finite
from snnprune.errors import InputError, NonFiniteError, UsageError
from snnprune.errors.text import layer_name
from snnprune.graph.network import Network
from snnprune.jobs.prune.options import PruneOptions
from snnprune.jobs.prune.tuning import choose_surrogate, choose_tuning, make_settings
from snnprune.jobs.targets.binding import load_tensors
from snnprune.jobs.targets.target import Target
from snnprune.masks import Masks, apply_masks
from snnprune.pruning.oneshot import Plan
from snnprune.pruning.repair import BY_LAYER, NONE, TUNE
from snnprune.pruning.repair.batchnorm import find_batchnorms
from snnprune.pruning.repair.pruned import explain_unfitted
from snnprune.pruning.structure.structure import UNSTRUCTURED


def choose_repair(target: Target, asked: str | None, *, otherwise: str | None = None) -> str:
    """The repair asked for, else `otherwise`, else `bn` where the network has BatchNorm and data.

    Raises:
        InputError: the repair that was asked for needs what is missing.
    """
    normalised = target.runnable is not None and bool(find_batchnorms(target.runnable.module))
    if asked is None:
        return otherwise or ("bn" if normalised else NONE)
    if asked != NONE and target.runnable is None:
        raise InputError(
            f"{asked} needs the network and data: {target.missing or 'they are not at hand'}",
            file=target.checkpoint.path,
            field="--repair",
            hint="choose none",
        )
    if "bn" in asked.split("+") and not normalised:
        raise InputError(
            "there is no BatchNorm to repair: the network has none",
            file=target.checkpoint.path,
            field="--repair",
            hint="choose none",
        )
    return asked


def list_unfitted(network: Network | None, repair: str, masks: Masks) -> list[str]:
    """A warning where a repair leaves layers as they are, with the reasons."""
    by_layer = [name for name in repair.split("+") if name in BY_LAYER]
    found = explain_unfitted(network, masks) if network is not None and by_layer else {}
    if not found:
        return []
    reasons: dict[str, list[str]] = {}
    for key, why in found.items():
        reasons.setdefault(why, []).append(layer_name(key))
    told = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    return [f"{'+'.join(by_layer)} leaves the kept weights of some layers as they are: {told}"]


def load_pruned_tensors(
    target: Target, masks: Masks, changed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The checkpoint's tensors, pruned and repaired; the target's network is left holding them.

    `changed` are those of the network that are not as they were, by state-dict key. What no repair
    touched is taken from the file itself, in its own type.

    Raises:
        NonFiniteError: a value does not fit into the type that the file keeps it in.
    """
    # a parameter that has two names in the file is pruned under both
    tied = target.prunable.find_tied()
    all_masks = {name: mask for key, mask in masks.items() for name in tied.get(key, (key,))}
    tensors = apply_masks(target.checkpoint.tensors, all_masks)
    if target.network is None:
        return tensors
    for key in _iter_repairable(target.network.module):
        if key in changed and key in tensors:
            tensors[key] = _convert_to_stored(changed[key], tensors[key], all_masks.get(key), key)
    load_tensors(target.network.module, tensors)  # what is measured now is what the file will hold
    return tensors


def _iter_repairable(module: nn.Module) -> Iterator[str]:
    """What a repair may change: parameters and running statistics, but no state of a neuron."""
    yield from (name for name, _ in module.named_parameters(remove_duplicate=False))
    names = [name for name, _ in module.named_buffers(remove_duplicate=False)]
    yield from (name for name in names if name.endswith(("running_mean", "running_var")))


def _convert_to_stored(repaired: Tensor, before: Tensor, mask: Tensor | None, key: str) -> Tensor:
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


BEST = Plan(criterion="sf-obs", allocation="lamp-magnitude", repair="obs")
"""The best closed form that was measured where network and data are at hand; see docs/results."""
BY_SIZE = Plan(criterion="magnitude", allocation="lamp")
"""The same counts without scores, for repairs that choose the weights of a layer themselves."""
CHOOSING = frozenset({"obs", TUNE})


@dataclass(frozen=True, kw_only=True)
class MethodChoice:
    """How it is pruned, and why so."""

    plan: Plan
    why: str
    """Why this criterion."""
    tuning_why: str | None = None
    """Why it is tuned so, or not, where that was left to the tool."""


def choose_methods(target: Target, options: PruneOptions) -> MethodChoice:
    """What was asked for, and for the rest the best known for what is at hand.

    Beside a criterion that was asked for, the allocation is the one that fits its scores and the
    repair is `bn` where it can be; what goes with `sf-obs` was measured with `sf-obs` alone.

    Raises:
        InputError: the repair that was asked for cannot be had.
    """
    shaped = options.structure not in (None, UNSTRUCTURED)
    plan, why = _choose_defaults(target, options)
    tuning, tuning_why = make_settings(target, options), None
    repair = choose_repair(target, options.repair, otherwise=plan.repair)
    asked = (options.criterion, options.repair, options.steps)
    left_to_us = all(one is None for one in asked)
    if left_to_us and target.runnable is not None:
        choice = choose_tuning(target, options)
        tuning_why = choice.why
        if choice.settings is not None:
            tuning, repair = choice.settings, f"obs+{TUNE}" if shaped else TUNE
    elif TUNE in repair.split("+"):
        tuning = choose_surrogate(target, tuning)
    if plan is BEST and not shaped and repair.split("+")[0] in CHOOSING:
        plan = BY_SIZE
    # channels and patterns have their own way
    allocation = options.allocation or (None if shaped else plan.allocation)
    plan = replace(
        plan, allocation=allocation, repair=repair, steps=options.steps or 1, tuning=tuning
    )
    if not plan.tunes:
        _refuse_tuning(target, options, plan)
    return MethodChoice(plan=plan, why=why, tuning_why=tuning_why)


def _refuse_tuning(target: Target, options: PruneOptions, plan: Plan) -> None:
    """Refuse flags of tuning where nothing is tuned.

    Raises:
        InputError: the network or its data is missing.
        UsageError: another repair was asked for.
    """
    asked = [*options.list_given(), *["--effort"] * options.thorough]
    if not asked:
        return
    if target.runnable is None:
        raise InputError(
            f"needs the network and data: {target.missing or 'they are not at hand'}",
            file=target.checkpoint.path,
            field=asked[0],
        )
    raise UsageError(
        f"says how to tune, and repair {plan.repair} does not",
        field=asked[0],
        hint="leave it out, or give --repair tune",
    )


def _choose_defaults(target: Target, options: PruneOptions) -> tuple[Plan, str]:
    """Criterion, allocation and repair, and why."""
    if options.criterion is not None:
        fitting = choose_repair(target, None)
        return Plan(criterion=options.criterion, repair=fitting), "asked for"
    if target.runnable is not None:
        return BEST, "the network and its data are at hand"
    if target.network is not None and options.calibration is not None:
        return Plan(criterion="sf"), "the network and its calibration are at hand"
    why = target.missing or "the network is not at hand"
    return Plan(criterion="magnitude", allocation="lamp"), why
