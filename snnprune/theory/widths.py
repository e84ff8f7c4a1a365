"""How wide a random network must be to hold a given one; Yao et al. 2023, arXiv 2305.12148.

The target has L layers of N x N weights, each at most 1/sqrt(N) in size, and runs for T steps.
Between two of its layers the large network has k virtual neurons in N blocks of k/N; all its
weights are drawn from U[-a, a] (the paper has a = 1). Of each block one virtual neuron is kept for
each weight of the target: one that fires whenever its input does, v >= u_th, and whose outgoing
weight is within eps/N of the target's. A random weight is that with probability eps/(N a), as the
paper has it, where |w| + eps/N <= a; nearer to the ends of U[-a, a] with down to half of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from snnprune.errors import UsageError
from snnprune.measure import Natural, Share

MOST = 1e100  # virtual neurons; more is nothing but a number


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a width depends on."""

    neurons: Natural
    """N, the width of the target."""
    layers: Natural = 1
    """L"""
    steps: Natural = 1
    """T"""
    threshold: float = 0.5
    """u_th"""
    beta: Share = 0.5
    """Decay of the membrane, in [0, 1)."""
    p_sup: float = 1.0
    """Supremum of the density of a membrane near its threshold, per unit of it."""
    delta: Share = 0.1
    """Chance of failure that is allowed, in (0, 1)."""
    span: float = 1.0
    """a: weights are drawn from U[-a, a]."""
    largest: float | None = None
    """Of the target's weights, in size; 1/sqrt(N) where nobody says."""

    @property
    def top(self) -> float:
        """The largest size of a weight of the target."""
        return self.neurons**-0.5 if self.largest is None else self.largest

    @property
    def firing(self) -> float:
        """C_th = P[v >= u_th] = (a - u_th) / (2 a): that a virtual neuron fires with its input."""
        return max(0.0, (self.span - self.threshold) / (2 * self.span))

    @property
    def crisis(self) -> float:
        """C = 2 p_sup / (1 - beta): by Lemma 3.4 the chance of a flip per unit of error."""
        return 2 * self.p_sup / (1 - self.beta)

    @property
    def flips(self) -> float:
        """N C L T: the chance that any spike of the network flips, per unit of error (Theorem 3.5
        and the union over layers and steps)."""
        return self.neurons * self.crisis * self.layers * self.steps

    @property
    def reach(self) -> float:
        """delta / (N C L T): errors must be below it, or flips alone are likelier than delta."""
        return self.delta / self.flips


def require_sense(setting: Setting) -> None:
    """Refuse a setting that no width serves.

    Raises:
        UsageError: a number is outside its range, or no virtual neuron can fire.
    """
    for flag, (value, fits, words) in {
        "--neurons": (setting.neurons, setting.neurons >= 1, "1 or more"),
        "--layers": (setting.layers, setting.layers >= 1, "1 or more"),
        "--steps": (setting.steps, setting.steps >= 1, "1 or more"),
        "--threshold": (setting.threshold, 0 < setting.threshold < math.inf, "above 0"),
        "--beta": (setting.beta, 0 <= setting.beta < 1, "in [0, 1)"),
        "--p-sup": (setting.p_sup, 0 < setting.p_sup < math.inf, "above 0"),
        "--delta": (setting.delta, 0 < setting.delta < 1, "in (0, 1)"),
        "--span": (setting.span, 0 < setting.span < math.inf, "above 0"),
    }.items():
        if not fits:
            raise UsageError(f"{value:g} is not {words}", field=flag)
    if setting.firing == 0:
        raise UsageError(
            f"no weight of U[-{setting.span:g}, {setting.span:g}] alone reaches the threshold "
            f"{setting.threshold:g}, so no virtual neuron fires and the theorem is empty",
            field="--threshold",
            hint=f"choose a threshold below {setting.span:g}, or a larger --span",
        )
    if setting.top > setting.span:
        raise UsageError(
            f"the target has weights up to {setting.top:.3g}, and U[-{setting.span:g}, "
            f"{setting.span:g}] has not",
            field="--span",
            hint="choose a larger one",
        )


def single_weight(setting: Setting, error: float, delta: float) -> int:
    """k of Lemma C.1: one weight to within `error`, k >= a / (C_th eps) log(1 / delta)."""
    return _count_draws(setting, error, math.log(1 / delta))


def layer_weights(setting: Setting, error: float, delta: float) -> int:
    """k of Lemma C.2: all weights of one neuron, k = N ceil(N a / (C_th eps) log(N / delta))."""
    n = setting.neurons
    return n * _count_draws(setting, error / n, math.log(n / delta))


def layer_to_layer(setting: Setting, error: float, delta: float) -> int:
    """k of Lemma C.3: all N^2 weights, k = N ceil(N a / (C_th eps) log(N^2 / delta)).

    Lemma 4.1 prints log(N / delta), which does not follow: see `layer_to_layer_as_printed`.
    """
    n = setting.neurons
    return n * _count_draws(setting, error / n, math.log(n**2 / delta))


def layer_to_layer_as_printed(setting: Setting, error: float, delta: float) -> int:
    """k of Lemma 4.1 as printed, with log(N / delta): too few."""
    return layer_weights(setting, error, delta)


def network_width(setting: Setting, error: float) -> int:
    """k of Lemmas C.4 (L = T = 1), C.5 (T = 1) and C.6, which is Theorem 4.3.

    k = N ceil(N a / (C_th eps) log(N^2 L / (delta - N C L T eps))), 0 < eps < delta / (N C L T). N
    blocks of k/N virtual neurons need one factor N, where the paper prints N^2.

    Raises:
        ValueError: `error` is not in that range.
    """
    return setting.neurons * _block_width(setting, error)


def network_width_as_printed(setting: Setting, error: float) -> int:
    """The same with the factor N^2 that the paper prints: enough, and N times too many."""
    return setting.neurons**2 * _block_width(setting, error)


def width_by_margin(setting: Setting, distance: float) -> tuple[int, float]:
    """k and the error for a finite data set whose membranes all keep `distance` to the threshold.

    With eps = (1 - beta) m no spike of these data can flip, with probability 1 - delta over the
    weights alone: k = N ceil(N a / (C_th eps) log(N^2 L / delta)). No density and no T is in it, as
    in T steps less than eps / (1 - beta) comes together.

    Raises:
        UsageError: a membrane lies on the threshold.
    """
    if not distance > 0:
        raise UsageError(
            "a membrane lies on the threshold itself, so that any error may flip its spike",
            field="--threshold",
            hint="choose another",
        )
    n, error = setting.neurons, (1 - setting.beta) * distance
    return n * _count_draws(
        setting, error / n, math.log(n**2 * setting.layers / setting.delta)
    ), error


def best_error(setting: Setting) -> float:
    """The error at which `network_width` is smallest.

    With b = N C L T and A = N^2 L the derivative of log(A / (delta - b eps)) / eps is 0 where
    z = delta / (delta - b eps) solves z - log z = 1 + log(A / delta), z > 1.
    """
    wanted = 1 + math.log(setting.neurons**2 * setting.layers / setting.delta)
    z = wanted + math.log(wanted)
    for _ in range(50):  # Newton, from above: convex, so that it never overshoots
        step = (z - math.log(z) - wanted) / (1 - 1 / z)
        z -= step
        if abs(step) < 1e-15 * z:
            break
    return setting.reach * (1 - 1 / z)


def failure(setting: Setting, error: float, block: int) -> float:
    """At most this is the chance that some weight of one layer finds no partner within `error`.

    N^2 (1 - C_th eps / (N a))^(k/N), the union that Lemma C.3 bounds; at most 1.
    """
    chance = setting.firing * _chance_near(setting, error / setting.neurons)
    return min(1.0, setting.neurons**2 * math.exp(block * math.log1p(-min(chance, 1 - 1e-16))))


def exact_failure(
    setting: Setting, near: float, block: int, *, outputs: int = 1, inputs: int = 1
) -> float:
    """Exactly the chance that of outputs x inputs weights one finds no partner within `near`.

    For targets at least `near` from the ends of U[-a, a]. The blocks of the inputs are independent.
    In one, a virtual neuron fires with C_th, and outgoing weights are drawn on their own: with m of
    `block` firing, all outputs find a partner with probability (1 - (1 - near/a)^m)^outputs, and m
    is binomial.
    """
    fires, chance = setting.firing, near / setting.span
    spread = 40 * math.sqrt(block * fires * (1 - fires)) + 40  # further off it is below rounding
    low, high = max(0, int(block * fires - spread)), min(block, int(block * fires + spread))
    count = torch.arange(low, high + 1, dtype=torch.float64)
    ways = _log_factorial(block) - torch.lgamma(count + 1) - torch.lgamma(block - count + 1)
    log_share = ways + count * math.log(fires) + (block - count) * math.log1p(-fires)
    share = log_share.softmax(0)  # of huge blocks the log-factorials lose digits, all the same ones
    found = (-torch.expm1(count * math.log1p(-chance))) ** outputs
    return 1 - min(1.0, float((share * found).sum())) ** inputs


def _chance_near(setting: Setting, distance: float) -> float:
    """The least chance that a weight of U[-a, a] is that near to one of the target."""
    a = setting.span
    return min(2 * distance, a - setting.top + distance, 2 * a) / (2 * a)


def _count_draws(setting: Setting, distance: float, rarity: float) -> int:
    """How many virtual neurons until one fires and is near enough, but for exp(-rarity).

    Raises:
        UsageError: more than can be counted.
    """
    chance = setting.firing * _chance_near(setting, distance)
    if chance < rarity / MOST:
        raise UsageError(
            f"weights within {distance:.3g} take more than {MOST:.0e} virtual neurons",
            field="--error",
            hint="choose a larger error or margin, or a smaller network",
        )
    return math.ceil(rarity / chance)


def _block_width(setting: Setting, error: float) -> int:
    """k/N of Theorem 4.3."""
    left = setting.delta - setting.flips * error
    if not error > 0 or left <= 0:
        raise ValueError(f"{error:g} is not in (0, {setting.reach:g})")
    n = setting.neurons
    return _count_draws(setting, error / n, math.log(n**2 * setting.layers / left))


def _log_factorial(n: int) -> float:
    return math.lgamma(n + 1)
