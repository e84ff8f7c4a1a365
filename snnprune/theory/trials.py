"""The constructions, tried over and over: how often they fail, beside what is promised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.errors import UsageError
from snnprune.measure import Natural, Share
from snnprune.runtime import make_generator
from snnprune.theory import widths
from snnprune.theory.construction import (
    NetworkComparison,
    NeuronDynamics,
    SmallNetwork,
    build_equivalent,
    choose_neurons,
    compare_networks,
    draw_spikes,
    draw_target,
    enumerate_spikes,
)
from snnprune.theory.widths import Setting


def exact_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a binomial's chance: at least as sure as it says."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: 1 - _sum_up_to(hits - 1, trials, p) - tail)
    high = 1.0 if hits == trials else _solve(lambda p: tail - _sum_up_to(hits, trials, p))
    return low, high


def _sum_up_to(hits: int, trials: int, chance: float) -> float:
    """P[X <= hits]."""
    logs = (_log_binomial(trials, k, chance) for k in range(hits + 1))
    return min(1.0, math.fsum(math.exp(log) for log in logs))


def _solve(rising: Callable[[float], float]) -> float:
    """Where a rising function of (0, 1) is 0."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _log_binomial(trials: int, hits: int, chance: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return ways + hits * math.log(chance) + (trials - hits) * math.log1p(-chance)


ALL = 12  # bits of input up to which every input is tried
CONFIDENCE = 0.95
WIDEST = 10**9  # virtual neurons of a layer; drawing more takes minutes for each


@dataclass(frozen=True, kw_only=True)
class TrialCount:
    """How often something failed."""

    failures: Natural
    trials: Natural

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.failures / self.trials

    def compute_interval(self) -> tuple[float, float]:
        """Of the chance of failure, at 95 %."""
        return exact_interval(self.failures, self.trials, CONFIDENCE)


@dataclass(frozen=True, kw_only=True)
class LemmaTrial:
    """One lemma, tried."""

    name: str
    width: Natural
    """k"""
    promised: Share
    """Its delta."""
    exact: Share | None
    """The chance of failure that follows from the draws alone, where it can be written down."""
    count: TrialCount


def count_failures(trials: Iterable[bool]) -> TrialCount:
    """Of trials that tell whether they went well."""
    went = list(trials)
    return TrialCount(failures=sum(not one for one in went), trials=len(went))


def try_lemmas(
    setting: Setting, error: float, trials: int, seed: int, track: Callable[..., Iterable[int]]
) -> list[LemmaTrial]:
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
        if setting.top + near <= setting.span:  # no weight is nearer to the ends
            outputs, inputs = shape
            exact = widths.exact_failure(setting, near, block, outputs=outputs, inputs=inputs)
        found.append(
            LemmaTrial(
                name=name, width=width, promised=delta, exact=exact, count=count_failures(went)
            )
        )
    return found


def _near_enough(
    setting: Setting,
    shape: tuple[int, int],
    block: int,
    near: float,
    key: tuple[object, ...],
) -> bool:
    """Whether every weight of a random target finds a partner."""
    unit = torch.rand(shape, generator=make_generator(*key, "target"), dtype=torch.float64)
    target = (2 * unit - 1) * setting.top
    chosen = choose_neurons(target, block, setting.threshold, span=setting.span, key=key)
    return bool((chosen.errors(target) <= near).all())


@dataclass(frozen=True, kw_only=True)
class NetworkTrial:
    """A whole network, built and run."""

    seed: Natural
    width: Natural
    error: float
    """eps, to a weight's N-th part."""
    within: bool
    """Whether every weight came as near as that."""
    compared: NetworkComparison
    kept: Natural


@dataclass(frozen=True, kw_only=True)
class TrialInputs:
    """What a target and its input are drawn from, or are where they are given."""

    setting: Setting
    dynamics: NeuronDynamics
    samples: int = 1000
    rate: float = 0.5
    """Spikes per input per time step of random inputs."""
    weights: Tensor | None = None
    """(L, N, N) of a target that is not drawn."""
    spikes: Tensor | None = None
    """(T, samples, N) of an input that is not made up."""

    def draw(self, seed: int) -> tuple[SmallNetwork, Tensor]:
        """The target and its input spikes of a seed."""
        setting, spikes = self.setting, self.spikes
        target = draw_target(setting.neurons, setting.layers, self.dynamics, (seed,))
        if self.weights is not None:
            target = SmallNetwork(weights=self.weights, dynamics=self.dynamics)
        if spikes is None:
            spikes = make_inputs(setting, self.samples, self.rate, seed)
        return target, spikes


def choose_by_margin(given: TrialInputs, seed: int) -> tuple[int, float]:
    """k and eps by how near the target's membranes come to the threshold on its input.

    Raises:
        UsageError: they come so near that nobody can draw that many.
    """
    target, spikes = given.draw(seed)
    width, error = widths.width_by_margin(given.setting, measure_margin(target, spikes))
    if width > WIDEST:
        raise UsageError(
            f"seed {seed}: a membrane comes so near the threshold that k is {width:,}",
            field="--seed",
            hint="choose another, fewer --trials, or --by-density",
        )
    return width, error


def choose_by_density(given: TrialInputs) -> tuple[int, float]:
    """k and eps of Theorem 4.3, with the density `p_sup` that is taken for granted."""
    error = widths.best_error(given.setting)
    return widths.network_width(given.setting, error), error


def try_network(given: TrialInputs, *, seed: int, width: int, error: float) -> NetworkTrial:
    """Draw a target, data, and the big network; build the equivalent one, and run both."""
    target, spikes = given.draw(seed)
    neurons, span = given.setting.neurons, given.setting.span
    built = build_equivalent(target, width // neurons, span=span, key=(seed, "network"))
    one = torch.randint(spikes.shape[1], (), generator=make_generator(seed, "one"))
    return NetworkTrial(
        seed=seed,
        width=width,
        error=error,
        within=built.worst <= error / neurons,
        compared=compare_networks(target, built, spikes, int(one)),
        kept=built.kept,
    )


def make_inputs(setting: Setting, samples: int, rate: float, seed: int) -> Tensor:
    """Every input where there are few, else random ones."""
    if setting.steps * setting.neurons <= ALL:
        return enumerate_spikes(setting.steps, setting.neurons)
    return draw_spikes(setting.steps, samples, setting.neurons, rate, (seed,))


def measure_margin(target: SmallNetwork, spikes: Tensor) -> float:
    """min |u - u_th| over data, time and neurons."""
    _, membranes = target.run(spikes)
    return float((torch.stack(membranes) - target.dynamics.threshold).abs().min())
