"""`snnprune theory construct`: the equivalent network built, run and counted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.checkpoint import Checkpoint, prunable_weights, read_checkpoint
from snnprune.errors import InputError, UsageError
from snnprune.progress import Progress
from snnprune.report import file_entry, report
from snnprune.theory import widths
from snnprune.theory.dynamics import Dynamics, require_memoryless
from snnprune.theory.trials import Count, Step, Whole, count, steps, whole
from snnprune.theory.widths import Setting

MOST = 10**10  # weights that a command draws at most, over all trials


@dataclass(frozen=True, kw_only=True)
class ConstructOptions:
    """What the command line asks for."""

    setting: Setting
    dynamics: Dynamics
    trials: int
    seed: int = 0
    samples: int = 1000
    rate: float = 0.5
    """Spikes per input per time step of random inputs."""
    by_margin: bool = True
    target: Path | None = None
    """A checkpoint whose weights (N, N) are the target's layers, in its order."""


@dataclass(frozen=True, kw_only=True)
class Constructed:
    """What came of it."""

    steps: tuple[Step, ...]
    networks: tuple[Whole, ...]
    within: Count
    """Whether every weight found a partner."""
    equal: Count
    """Whether every spike was the same."""
    report: dict[str, Any]


def theory_construct(options: ConstructOptions, progress: Progress) -> Constructed:
    """Try the lemmas one by one, and the whole theorem, over seeds.

    Raises:
        UsageError: the theorem is empty or does not hold for these numbers, or drawing would take
            too long.
    """
    setting, dynamics = options.setting, options.dynamics
    checkpoint = None if options.target is None else read_checkpoint(options.target)
    given = None if checkpoint is None else _weights_in(checkpoint, setting.span)
    if given is not None:
        setting = replace(setting, layers=len(given), neurons=given.shape[1])
        options = replace(options, setting=setting)
    widths.require_sense(setting)
    require_memoryless(dynamics, setting.span)
    error = widths.best_error(setting)
    _require_possible(options, error)
    single = steps(setting, error, options.trials, options.seed, progress.track)
    seeds = range(options.seed, options.seed + options.trials)
    networks = tuple(
        whole(
            setting,
            dynamics,
            seed=seed,
            samples=options.samples,
            rate=options.rate,
            by_margin=options.by_margin,
            given=given,
        )
        for seed in progress.track(seeds, label="whole networks", total=len(seeds))
    )
    within, equal = count(n.within for n in networks), count(n.compared.same for n in networks)
    return Constructed(
        steps=tuple(single),
        networks=networks,
        within=within,
        equal=equal,
        report=report(
            "theory construct",
            device=torch.device("cpu"),
            seed=options.seed,
            inputs=[file_entry(checkpoint.path, checkpoint.sha256)] if checkpoint else [],
            warnings=checkpoint.notes if checkpoint else (),
            model=None,
            data=None,
            setting=asdict(setting),
            dynamics=asdict(dynamics),
            by_margin=options.by_margin,
            eps=error,
            steps=[_about_step(step) for step in single],
            networks=[asdict(network) for network in networks],
            within=_about_count(within),
            equal=_about_count(equal),
        ),
    )


def _weights_in(checkpoint: Checkpoint, span: float) -> Tensor:
    """The layers of a target, (L, N, N) float64.

    Raises:
        InputError: there are none, they are not square and of one size, or too large to be found.
    """
    weights = [checkpoint.tensors[key] for key in prunable_weights(checkpoint.tensors)]
    shapes = {tuple(weight.shape) for weight in weights}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or shape[0] != shape[1]:
        raise InputError(
            "is no target: its weights are not all (N, N)",
            file=checkpoint.path,
            field="--target",
            hint="a target is layers of N neurons without biases",
        )
    whole = torch.stack([weight.double() for weight in weights])
    if float(largest := whole.abs().max()) >= span:
        raise InputError(
            f"has a weight of size {largest:.3g}; the large network has none of {span:g} or more",
            file=checkpoint.path,
            field="--target",
            hint="give a larger --span",
        )
    return whole


def _require_possible(options: ConstructOptions, error: float) -> None:
    """Refuse what would take days: the widths are known before anything is drawn."""
    setting = options.setting
    width = widths.network(setting, error)
    drawn = width * setting.neurons * setting.layers * options.trials * setting.firing
    if drawn > MOST:
        raise UsageError(
            f"{options.trials} networks of width {width:,} are {drawn:.1e} weights to draw",
            field="--trials",
            hint="give fewer, or a smaller --neurons, --layers or --steps",
        )


def _about_count(found: Count) -> dict[str, Any]:
    low, high = found.interval
    return {**asdict(found), "share": found.share, "low": low, "high": high}


def _about_step(step: Step) -> dict[str, Any]:
    return {**asdict(step), "count": _about_count(step.count)}
