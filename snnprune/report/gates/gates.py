"""The gates that there are: one row each.

Counts are compared as whole numbers and exact fractions: 0.9 as it was written, never the nearest
float.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from snnprune.errors import UsageError
from snnprune.report.gates import limits
from snnprune.report.gates.gate import (
    GateRule,
    Judgement,
    Limit,
    Measurements,
    Proportion,
    check_at_least,
    check_at_most,
)


def _count_goal(sparsity: Fraction, weights: int) -> int:
    """As many weights as `prune --sparsity` prunes of so many, so that its files meet the gate."""
    return round(float(sparsity) * weights)


def _count_least(sparsity: Fraction, weights: int) -> int:
    """That goal, and no less than a weight for any share above 0: rounding meets no gate."""
    return max(_count_goal(sparsity, weights), 1 if sparsity > 0 else 0)


def _count_most(sparsity: Fraction, weights: int) -> int:
    """That goal, and no more than leaves a weight for any share below 1."""
    return min(_count_goal(sparsity, weights), weights if sparsity >= 1 else weights - 1)


def _judge_min_sparsity(limit: Fraction, found: Measurements) -> Judgement:
    pruned = found.count_pruned()
    goal = _count_least(limit, pruned.whole)
    words = f"{pruned.part:,} of {pruned.whole:,} weights pruned, {goal:,} wanted"
    return pruned.part >= goal, _compute_share(pruned), words


def _judge_max_sparsity(limit: Fraction, found: Measurements) -> Judgement:
    pruned = found.count_pruned()
    goal = _count_most(limit, pruned.whole)
    words = f"{pruned.part:,} of {pruned.whole:,} weights pruned, {goal:,} allowed"
    return pruned.part <= goal, _compute_share(pruned), words


def _judge_max_layer_sparsity(limit: Fraction, found: Measurements) -> Judgement:
    over = {k: c for k, c in found.layers.items() if c.part > _count_most(limit, c.whole)}
    key, most = max(found.layers.items(), key=lambda item: item[1].share)
    words = f"{most.part:,} of {most.whole:,} weights of {key} pruned"
    others = f"; {len(over)} layers are over" if len(over) > 1 else ""
    return not over, _compute_share(most), words + others


def _judge_min_accuracy(limit: Fraction, found: Measurements) -> Judgement:
    assert found.right is not None
    return check_at_least(limit, found.right.share, f"{_format_of(found.right)} right")


def _judge_max_accuracy_drop(limit: Fraction, found: Measurements) -> Judgement:
    assert found.right is not None
    assert found.right_before is not None
    lost = 100 * (found.right_before.share - found.right.share)
    words = f"{_format_of(found.right)} right, {found.right_before.part:,} before"
    return check_at_most(limit, lost, words)


def _judge_max_synops(limit: Fraction, found: Measurements) -> Judgement:
    assert found.operations is not None
    mean = Fraction(found.operations, found.samples)
    return check_at_most(limit, mean, _format_mean(mean, found, "operations"))


def _judge_max_energy(limit: Fraction, found: Measurements) -> Judgement:
    assert found.energy is not None
    mean = found.energy / found.samples
    return check_at_most(limit, mean, _format_mean(mean, found, "pJ"))


def _judge_max_size(limit: Fraction, found: Measurements) -> Judgement:
    return check_at_most(limit, Fraction(found.size), f"{found.size:,} bytes")


def _judge_max_dead(limit: tuple[Fraction, bool], found: Measurements) -> Judgement:
    assert found.silent is not None
    most, percent = limit
    silent = found.silent
    words = f"{silent.part:,} of {silent.whole:,} channels never spike"
    return (silent.share if percent else silent.part) <= most, float(silent.part), words


def _judge_min_spike_agreement(limit: Fraction, found: Measurements) -> Judgement:
    assert found.same is not None
    return check_at_least(limit, found.same.share, f"{_format_of(found.same)} spikes the same")


def _format_mean(mean: Fraction, found: Measurements, what: str) -> str:
    return f"{float(mean):,.0f} {what} a sample, the mean of {found.samples:,}"


def _compute_share(count: Proportion) -> float:
    return float(count.share)


def _format_of(count: Proportion) -> str:
    return f"{count.part:,} of {count.whole:,}"


GATES: Mapping[str, GateRule] = {
    gate.name: gate
    for gate in (
        GateRule(
            name="min-sparsity",
            help="Least share of the weights that is 0.",
            unit="share",
            needs=(),
            read=limits.parse_share,
            judge=_judge_min_sparsity,
        ),
        GateRule(
            name="max-sparsity",
            help="Greatest share of the weights that is 0.",
            unit="share",
            needs=(),
            read=limits.parse_share,
            judge=_judge_max_sparsity,
        ),
        GateRule(
            name="max-layer-sparsity",
            help="Likewise, of each layer alone.",
            unit="share",
            needs=(),
            read=limits.parse_share,
            judge=_judge_max_layer_sparsity,
        ),
        GateRule(
            name="min-accuracy",
            help="Least share of the images classified right.",
            unit="share",
            needs=("right",),
            read=limits.parse_share,
            judge=_judge_min_accuracy,
        ),
        GateRule(
            name="max-accuracy-drop",
            help="Most percentage points of accuracy below the baseline.",
            unit="points",
            needs=("right", "right_before"),
            read=limits.parse_points,
            judge=_judge_max_accuracy_drop,
        ),
        GateRule(
            name="min-spike-agreement",
            help="Least share of the spikes as in the baseline.",
            unit="share",
            needs=("same",),
            read=limits.parse_share,
            judge=_judge_min_spike_agreement,
        ),
        GateRule(
            name="max-synops",
            help="Most effective synaptic operations of a sample, as 1.5M.",
            unit="operations",
            needs=("operations",),
            read=limits.parse_operations,
            judge=_judge_max_synops,
        ),
        GateRule(
            name="max-energy",
            help="Most energy of a sample, in pJ or as 1.2uJ.",
            unit="pJ",
            needs=("energy",),
            read=limits.parse_energy,
            judge=_judge_max_energy,
        ),
        GateRule(
            name="max-size",
            help="Most bytes of the file, also as 200kB.",
            unit="bytes",
            needs=(),
            read=limits.parse_size,
            judge=_judge_max_size,
        ),
        GateRule(
            name="max-dead",
            help="Most channels that never spike, or a share as 5%.",
            unit="channels",
            needs=("silent",),
            read=limits.parse_number_or_percent,
            judge=_judge_max_dead,
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
