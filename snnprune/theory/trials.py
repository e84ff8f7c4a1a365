"""The constructions, tried over and over: how often they fail, beside what is promised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.errors import UsageError
from snnprune.randomness import generator
from snnprune.theory import widths
from snnprune.theory.construction import (
    Compared,
    Target,
    all_spikes,
    build,
    compare,
    random_spikes,
    random_target,
)
from snnprune.theory.drawing import choose
from snnprune.theory.dynamics import Dynamics
from snnprune.theory.intervals import exact_interval
from snnprune.theory.widths import Setting

ALL = 12  # bits of input up to which every input is tried
CONFIDENCE = 0.95
WIDEST = 10**9  # virtual neurons of a layer; drawing more takes minutes for each


@dataclass(frozen=True, kw_only=True)
class Count:
    """How often something failed."""

    failures: int
    trials: int

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.failures / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Of the chance of failure, at 95 %."""
        return exact_interval(self.failures, self.trials, CONFIDENCE)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One lemma, tried."""

    name: str
    width: int
    """k"""
    promised: float
    """Its delta."""
    exact: float | None
    """The chance of failure that follows from the draws alone, where it can be written down."""
    count: Count


def count(trials: Iterable[bool]) -> Count:
    """Of trials that tell whether they went well."""
    went = list(trials)
    return Count(failures=sum(not one for one in went), trials=len(went))


def steps(
    setting: Setting, error: float, trials: int, seed: int, track: Callable[..., Iterable[int]]
) -> list[Step]:
    """Lemmas C.1, C.2 and C.3, and 4.1 as it is printed, each at its own width for `error`."""
    n, delta = setting.neurons, setting.delta
    shapes: dict[str, tuple[tuple[int, int], int, float]] = {
        "C.1": ((1, 1), widths.single_weight(setting, error, delta), error),
        "C.2": ((1, n), widths.layer_weights(setting, error, delta), error / n),
        "C.3": ((n, n), widths.layer_to_layer(setting, error, delta), error / n),
        "4.1 as printed": (
            (n, n),
            widths.layer_to_layer_as_printed(setting, error, delta),
            error / n,
        ),
    }
    found = []
    for name, (shape, width, near) in shapes.items():
        block = width // shape[1]
        went = (
            _near_enough(setting, shape, block, near, (seed, name, trial))
            for trial in track(range(trials), label=f"Lemma {name}", total=trials)
        )
        exact = None
        if 1 / n**0.5 + near <= setting.span:  # no target is nearer to the ends
            outputs, inputs = shape
            exact = widths.exact_failure(setting, near, block, outputs=outputs, inputs=inputs)
        found.append(Step(name=name, width=width, promised=delta, exact=exact, count=count(went)))
    return found


def _near_enough(
    setting: Setting,
    shape: tuple[int, int],
    block: int,
    near: float,
    key: tuple[object, ...],
) -> bool:
    """Whether every weight of a random target finds a partner."""
    unit = torch.rand(shape, generator=generator(*key, "target"), dtype=torch.float64)
    target = (2 * unit - 1) / setting.neurons**0.5
    chosen = choose(target, block, setting.threshold, span=setting.span, key=key)
    return bool((chosen.errors(target) <= near).all())


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A whole network, built and run."""

    seed: int
    width: int
    error: float
    """eps, to a weight's N-th part."""
    within: bool
    """Whether every weight came as near as that."""
    compared: Compared
    kept: int


def whole(
    setting: Setting,
    dynamics: Dynamics,
    *,
    seed: int,
    samples: int,
    rate: float,
    by_margin: bool,
    weights: Tensor | None = None,
    spikes: Tensor | None = None,
) -> Whole:
    """Draw a target, data, and the big network; build the equivalent one, and run both.

    `weights` (L, N, N) are those of a target that is not drawn, `spikes` (T, samples, N) the data.

    By the margin, eps follows from how near the target's membranes come to the threshold on the
    data; else from the density `p_sup` that is taken for granted.
    """
    target = random_target(setting.neurons, setting.layers, dynamics, (seed,))
    if weights is not None:
        target = Target(weights=weights, dynamics=dynamics)
    if spikes is None:
        spikes = inputs(setting, samples, rate, seed)
    if by_margin:
        width, error = widths.margin(setting, margin_of(target, spikes))
        _require_drawable(width, seed)
    else:
        error = widths.best_error(setting)
        width = widths.network(setting, error)
    built = build(target, width // setting.neurons, span=setting.span, key=(seed, "network"))
    return Whole(
        seed=seed,
        width=width,
        error=error,
        within=built.worst <= error / setting.neurons,
        compared=compare(target, built, spikes),
        kept=built.kept,
    )


def _require_drawable(width: int, seed: int) -> None:
    if width > WIDEST:
        raise UsageError(
            f"seed {seed}: a membrane comes so near the threshold that k is {width:,}",
            field="--seed",
            hint="choose another, fewer --trials, or --by-density",
        )


def inputs(setting: Setting, samples: int, rate: float, seed: int) -> Tensor:
    """Every input where there are few, else random ones."""
    if setting.steps * setting.neurons <= ALL:
        return all_spikes(setting.steps, setting.neurons)
    return random_spikes(setting.steps, samples, setting.neurons, rate, (seed,))


def margin_of(target: Target, spikes: Tensor) -> float:
    """min |u - u_th| over data, time and neurons."""
    _, membranes = target.run(spikes)
    return float((torch.stack(membranes) - target.dynamics.threshold).abs().min())
