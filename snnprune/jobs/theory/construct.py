"""`snnprune theory construct`: the equivalent network built, run and counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint, find_prunable_weights
from snnprune.checkpoint.containers import read_checkpoint
from snnprune.errors import InputError, UsageError, format_names
from snnprune.jobs.theory.options import ConstructOptions
from snnprune.report import make_file_entry, make_report
from snnprune.runtime import Progress
from snnprune.theory import widths
from snnprune.theory.construction import require_memoryless
from snnprune.theory.trials import (
    LemmaTrial,
    NetworkTrial,
    TrialCount,
    TrialInputs,
    choose_by_density,
    choose_by_margin,
    count_failures,
    try_lemmas,
    try_network,
)
from snnprune.theory.widths import Setting

_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True, kw_only=True)
class GivenTensors:
    """Target and input, as far as they are not drawn."""

    setting: Setting
    """With the sizes that follow from them."""
    weights: Tensor | None
    """(L, N, N) float64."""
    spikes: Tensor | None
    """(T, samples, N) float64, zeros and ones."""
    files: tuple[Checkpoint, ...]


def read_given(target: Path | None, spikes: Path | None, setting: Setting) -> GivenTensors:
    """Of the files that are asked for.

    Raises:
        InputError: a file is no target, or holds no spikes for it.
    """
    weights = data = None
    files = []
    if target is not None:
        files.append(checkpoint := read_checkpoint(target))
        weights = _read_weights(checkpoint)
        setting = replace(
            setting,
            layers=len(weights),
            neurons=weights.shape[1],
            largest=float(weights.abs().max()),
        )
    if spikes is not None:
        files.append(checkpoint := read_checkpoint(spikes, allow_nonfinite=True))
        data = _read_spikes(checkpoint, None if weights is None else setting.neurons)
        setting = replace(setting, steps=len(data), neurons=data.shape[2])
    return GivenTensors(setting=setting, weights=weights, spikes=data, files=tuple(files))


def _read_weights(checkpoint: Checkpoint) -> Tensor:
    """The layers of a target, (L, N, N) float64, in the order of their names' numbers.

    Raises:
        InputError: there are none, they are not square and of one size, or there is more.
    """
    keys = sorted(find_prunable_weights(checkpoint.tensors), key=_natural_order)
    shapes = {tuple(checkpoint.tensors[key].shape) for key in keys}
    wrong = None
    if others := sorted(checkpoint.tensors.keys() - set(keys)):
        wrong = f"it has {format_names(others)} too"
    elif len(shapes) != 1 or len(shape := shapes.pop()) != 2 or shape[0] != shape[1]:
        wrong = "its weights are not all (N, N)"
    if wrong is not None:
        raise InputError(
            f"is no target: {wrong}",
            file=checkpoint.path,
            field="--target",
            hint="a target is layers of N neurons without biases",
        )
    return torch.stack([checkpoint.tensors[key].double() for key in keys])


def _natural_order(key: str) -> list[tuple[int, str]]:
    """For sorting, layers.2 before layers.10: a file may have them by the letter."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBERS.split(key)]


def _read_spikes(checkpoint: Checkpoint, neurons: int | None) -> Tensor:
    """(T, samples, N) float64.

    Raises:
        InputError: there is no `x` (samples, T, N) of zeros and ones, or N is not the target's.
    """
    x = checkpoint.tensors.get("x")
    wrong = None
    if x is None:
        wrong = "holds no x"
    elif x.ndim != 3 or not x.numel():
        wrong = f"has x of shape {tuple(x.shape)}"
    elif not ((x == 0) | (x == 1)).all():
        wrong = "has other values than 0 and 1 in x"
    elif neurons is not None and x.shape[2] != neurons:
        wrong = f"has spikes of {x.shape[2]} inputs for a target of {neurons}"
    if x is None or wrong is not None:
        raise InputError(
            f"is no input: it {wrong}",
            file=checkpoint.path,
            field="--spikes",
            hint="name zeros and ones (samples, T, N) x",
        )
    return x.double().transpose(0, 1).contiguous()


MOST = 10**10  # weights that a command draws at most, over all trials


@dataclass(frozen=True, kw_only=True)
class ConstructResult:
    """What came of it."""

    steps: tuple[LemmaTrial, ...]
    networks: tuple[NetworkTrial, ...]
    within: TrialCount
    """Whether every weight found a partner."""
    equal: TrialCount
    """Whether every spike was the same."""
    one: TrialCount | None
    """Whether every spike of one random input was: what Theorem 4.3 promises, by density."""
    report: dict[str, Any]


def theory_construct(options: ConstructOptions, progress: Progress) -> ConstructResult:
    """Try the lemmas one by one, and the whole theorem, over seeds.

    Raises:
        UsageError: the theorem is empty or does not hold for these numbers, or drawing would take
            too long.
        InputError: a file is no target, or holds no spikes for it.
    """
    read = read_given(options.target, options.spikes, options.setting)
    setting, dynamics = read.setting, options.dynamics
    widths.require_sense(setting)
    require_memoryless(dynamics, setting.span)
    error = widths.best_error(setting)
    given = TrialInputs(
        setting=setting,
        dynamics=dynamics,
        samples=options.samples,
        rate=options.rate,
        weights=read.weights,
        spikes=read.spikes,
    )
    seeds = range(options.seed, options.seed + options.trials)
    planned = [
        choose_by_margin(given, s) if options.by_margin else choose_by_density(given) for s in seeds
    ]
    _require_possible(setting, [width for width, _ in planned], "networks")
    _require_possible(
        setting, [widths.layer_to_layer(setting, error, setting.delta)] * len(seeds), "layers"
    )
    single = try_lemmas(setting, error, options.trials, options.seed, progress.track)
    networks = tuple(
        try_network(given, seed=seed, width=width, error=eps)
        for seed, (width, eps) in progress.track(
            list(zip(seeds, planned, strict=True)), label="whole networks", total=len(seeds)
        )
    )
    within, equal = (
        count_failures(n.within for n in networks),
        count_failures(n.compared.same for n in networks),
    )
    one = count_failures(not n.compared.struck_one for n in networks)
    return ConstructResult(
        steps=tuple(single),
        networks=networks,
        within=within,
        equal=equal,
        one=None if options.by_margin else one,
        report=make_report(
            "theory construct",
            device=torch.device("cpu"),
            seed=options.seed,
            inputs=[make_file_entry(file.path, file.sha256) for file in read.files],
            warnings=[note for file in read.files for note in file.notes],
            model=None,
            data=None,
            setting=asdict(setting),
            dynamics=asdict(dynamics),
            by_margin=options.by_margin,
            eps=error,
            steps=[_describe_step(step) for step in single],
            networks=[asdict(network) for network in networks],
            within=_describe_count(within),
            equal=_describe_count(equal),
            one=_describe_count(one),
        ),
    )


def _require_possible(setting: Setting, planned: Sequence[int], what: str) -> None:
    """Refuse what would take days: the widths are known before anything is drawn."""
    layers = setting.layers if what == "networks" else 1
    drawn = sum(planned) * setting.neurons * layers * setting.firing
    if drawn > MOST:
        raise UsageError(
            f"{len(planned)} {what} of width up to {max(planned):,} have {drawn:.1e} weights "
            "to draw",
            field="--trials",
            hint="give fewer, or a smaller --neurons, --layers or --steps",
        )


def _describe_count(found: TrialCount) -> dict[str, Any]:
    low, high = found.compute_interval()
    return {**asdict(found), "share": found.share, "low": low, "high": high}


def _describe_step(step: LemmaTrial) -> dict[str, Any]:
    return {**asdict(step), "count": _describe_count(step.count)}
