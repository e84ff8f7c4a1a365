"""The gates that there are: one row each.

Counts are compared as whole numbers and exact fractions: 0.9 as it was written, never the nearest
float.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from snnprune.errors import UsageError
from snnprune.report.gates import limits
from snnprune.report.gates.gate import Count, Gate, Judgement, Limit, Measured, at_least, at_most


def _goal(sparsity: Fraction, weights: int) -> int:
    """As many weights as `prune --sparsity` prunes of so many, so that its files meet the gate."""
    return round(float(sparsity) * weights)


def _least(sparsity: Fraction, weights: int) -> int:
    """That goal, and no less than a weight for any share above 0: rounding meets no gate."""
    return max(_goal(sparsity, weights), 1 if sparsity > 0 else 0)


def _most(sparsity: Fraction, weights: int) -> int:
    """That goal, and no more than leaves a weight for any share below 1."""
    return min(_goal(sparsity, weights), weights if sparsity >= 1 else weights - 1)


def _min_sparsity(limit: Fraction, found: Measured) -> Judgement:
    pruned = found.count_pruned()
    goal = _least(limit, pruned.whole)
    words = f"{pruned.part:,} of {pruned.whole:,} weights pruned, {goal:,} wanted"
    return pruned.part >= goal, _share(pruned), words


def _max_sparsity(limit: Fraction, found: Measured) -> Judgement:
    pruned = found.count_pruned()
    goal = _most(limit, pruned.whole)
    words = f"{pruned.part:,} of {pruned.whole:,} weights pruned, {goal:,} allowed"
    return pruned.part <= goal, _share(pruned), words


def _max_layer_sparsity(limit: Fraction, found: Measured) -> Judgement:
    over = {k: c for k, c in found.layers.items() if c.part > _most(limit, c.whole)}
    key, most = max(found.layers.items(), key=lambda item: item[1].share)
    words = f"{most.part:,} of {most.whole:,} weights of {key} pruned"
    others = f"; {len(over)} layers are over" if len(over) > 1 else ""
    return not over, _share(most), words + others


def _min_accuracy(limit: Fraction, found: Measured) -> Judgement:
    assert found.right is not None
    return at_least(limit, found.right.share, f"{_of(found.right)} right")


def _max_accuracy_drop(limit: Fraction, found: Measured) -> Judgement:
    assert found.right is not None
    assert found.right_before is not None
    lost = 100 * (found.right_before.share - found.right.share)
    words = f"{_of(found.right)} right, {found.right_before.part:,} before"
    return at_most(limit, lost, words)


def _max_synops(limit: Fraction, found: Measured) -> Judgement:
    assert found.operations is not None
    mean = Fraction(found.operations, found.samples)
    return at_most(limit, mean, _mean(mean, found, "operations"))


def _max_energy(limit: Fraction, found: Measured) -> Judgement:
    assert found.energy is not None
    mean = found.energy / found.samples
    return at_most(limit, mean, _mean(mean, found, "pJ"))


def _max_size(limit: Fraction, found: Measured) -> Judgement:
    return at_most(limit, Fraction(found.size), f"{found.size:,} bytes")


def _max_dead(limit: tuple[Fraction, bool], found: Measured) -> Judgement:
    assert found.silent is not None
    most, percent = limit
    silent = found.silent
    words = f"{silent.part:,} of {silent.whole:,} channels never spike"
    return (silent.share if percent else silent.part) <= most, float(silent.part), words


def _min_spike_agreement(limit: Fraction, found: Measured) -> Judgement:
    assert found.same is not None
    return at_least(limit, found.same.share, f"{_of(found.same)} spikes the same")


def _mean(mean: Fraction, found: Measured, what: str) -> str:
    return f"{float(mean):,.0f} {what} a sample, the mean of {found.samples:,}"


def _share(count: Count) -> float:
    return float(count.share)


def _of(count: Count) -> str:
    return f"{count.part:,} of {count.whole:,}"


GATES: Mapping[str, Gate] = {
    gate.name: gate
    for gate in (
        Gate(
            name="min-sparsity",
            help="Least share of the weights that is 0.",
            unit="share",
            needs=(),
            read=limits.share,
            judge=_min_sparsity,
        ),
        Gate(
            name="max-sparsity",
            help="Greatest share of the weights that is 0.",
            unit="share",
            needs=(),
            read=limits.share,
            judge=_max_sparsity,
        ),
        Gate(
            name="max-layer-sparsity",
            help="Likewise, of each layer alone.",
            unit="share",
            needs=(),
            read=limits.share,
            judge=_max_layer_sparsity,
        ),
        Gate(
            name="min-accuracy",
            help="Least share of the images classified right.",
            unit="share",
            needs=("right",),
            read=limits.share,
            judge=_min_accuracy,
        ),
        Gate(
            name="max-accuracy-drop",
            help="Most percentage points of accuracy below the baseline.",
            unit="points",
            needs=("right", "right_before"),
            read=limits.points,
            judge=_max_accuracy_drop,
        ),
        Gate(
            name="min-spike-agreement",
            help="Least share of the spikes as in the baseline.",
            unit="share",
            needs=("same",),
            read=limits.share,
            judge=_min_spike_agreement,
        ),
        Gate(
            name="max-synops",
            help="Most effective synaptic operations of a sample, as 1.5M.",
            unit="operations",
            needs=("operations",),
            read=limits.operations,
            judge=_max_synops,
        ),
        Gate(
            name="max-energy",
            help="Most energy of a sample, in pJ or as 1.2uJ.",
            unit="pJ",
            needs=("energy",),
            read=limits.energy,
            judge=_max_energy,
        ),
        Gate(
            name="max-size",
            help="Most bytes of the file, also as 200kB.",
            unit="bytes",
            needs=(),
            read=limits.size,
            judge=_max_size,
        ),
        Gate(
            name="max-dead",
            help="Most channels that never spike, or a share as 5%.",
            unit="channels",
            needs=("silent",),
            read=limits.number_or_percent,
            judge=_max_dead,
        ),
    )
}


def read_limits(written: Mapping[str, str | None]) -> tuple[Limit, ...]:
    """The gates that somebody set, by name, in the order of the table.

    Raises:
        UsageError: one is no limit of its gate, or two leave nothing between them.
    """
    found = {
        name: Limit(gate=gate, text=text.strip(), value=gate.read(text, gate.flag))
        for name, gate in GATES.items()
        if (text := written.get(name)) is not None
    }
    low, high = found.get("min-sparsity"), found.get("max-sparsity")
    if low and high and low.value > high.value:
        raise UsageError(f"{low.text} is more than --max-sparsity {high.text}", field=low.gate.flag)
    return tuple(found.values())
