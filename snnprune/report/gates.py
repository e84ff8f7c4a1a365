"""The gates that there are, one row each: how their limits are read, and what they judge.

Counts are compared as whole numbers and exact fractions: 0.9 as it was written, never the nearest
float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from snnprune.errors import UsageError, suggest_percent, suggest_share
from snnprune.report.verdicts import (
    GateRule,
    Judgement,
    Limit,
    Measurements,
    Proportion,
    check_at_least,
    check_at_most,
)

if TYPE_CHECKING:
    from snnprune.chips import Chip

NUMBER = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)\s*(\D*)")
LONGEST = 32  # characters; 1e999999999 is short too
MOST = 10**24  # more is no limit of anything
THOUSANDS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BYTES = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
PICOJOULES = {"": 1, "pJ": 1, "nJ": 10**3, "uJ": 10**6, "µJ": 10**6, "mJ": 10**9, "J": 10**12}


def parse_share(text: str, flag: str) -> Fraction:
    """A share in [0, 1].

    Raises:
        UsageError: it is none.
    """
    value = _parse_number(text, {"": 1}, flag, suggest_percent(text.strip()))
    if value > 1:
        raise UsageError(f"{text} is outside [0, 1]", field=flag, hint=suggest_share(float(value)))
    return value


def parse_points(text: str, flag: str) -> Fraction:
    """Percentage points in [0, 100).

    Raises:
        UsageError: it is none.
    """
    value = _parse_number(text, {"": 1}, flag, "percentage points are written as 1.5")
    if value >= 100:
        raise UsageError(
            f"{text} is no number of percentage points in [0, 100)",
            field=flag,
            hint="percentage points are written as 1.5",
        )
    return value


def parse_operations(text: str, flag: str) -> Fraction:
    """Operations, as 1500000, 1.5M or 1.5e6.

    Raises:
        UsageError: it is no such number.
    """
    return _parse_number(text, THOUSANDS, flag, "operations are written as 1500000 or 1.5M")


def parse_weights(text: str, flag: str) -> Fraction:
    """A number of weights, as 20000 or 20k.

    Raises:
        UsageError: it is no whole number.
    """
    hint = "a number of weights is written as 20000 or 20k"
    value = _parse_number(text, THOUSANDS, flag, hint)
    if value.denominator != 1:
        raise UsageError(f"{text!r} is no number of weights", field=flag, hint=hint)
    return value


def parse_energy(text: str, flag: str) -> Fraction:
    """pJ, also as 1.2uJ.

    Raises:
        UsageError: it is no energy.
    """
    return _parse_number(text, PICOJOULES, flag, "an energy is written as 1200000 (pJ) or 1.2uJ")


def parse_size(text: str, flag: str) -> Fraction:
    """Bytes, also as 200kB or 2MiB.

    Raises:
        UsageError: it is no size.
    """
    return _parse_number(text, BYTES, flag, "a size is written as 200000, 200kB or 200KiB")


def parse_number_or_percent(text: str, flag: str) -> tuple[Fraction, bool]:
    """A whole number, or a share written as 5%; and whether it is a share.

    Raises:
        UsageError: it is neither.
    """
    hint = "a number of channels is written as 3, a share of them as 5%"
    value = _parse_number(text, {"": 1, "%": Fraction(1, 100)}, flag, hint)
    percent = text.strip().endswith("%")
    if (percent and value > 1) or (not percent and value.denominator != 1):
        raise UsageError(f"{text!r} is no number of channels", field=flag, hint=hint)
    return value, percent


def _parse_number(text: str, units: Mapping[str, int | Fraction], flag: str, hint: str) -> Fraction:
    found = NUMBER.fullmatch(text.strip()) if len(text) <= LONGEST else None
    exponent = re.search(r"[eE][+-]?(\d+)", text)
    if found is None or found[2] not in units or (exponent and int(exponent[1]) > 24):
        raise UsageError(f"{text!r} is no such limit", field=flag, hint=hint)
    value = Fraction(found[1]) * units[found[2]]
    if value > MOST:
        raise UsageError(f"{text} limits nothing", field=flag, hint=hint)
    return value


def _count_goal(sparsity: Fraction, weights: int) -> int:
    """As many weights as `prune --sparsity` prunes of so many, so that its files meet the gate."""
    return round(float(sparsity) * weights)


def _count_least(sparsity: Fraction, weights: int) -> int:
    """That goal, and no less than a weight for any share above 0: rounding meets no gate."""
    return max(_count_goal(sparsity, weights), 1 if sparsity > 0 else 0)


def count_most(sparsity: Fraction, weights: int) -> int:
    """That goal, and no more than leaves a weight for any share below 1."""
    return min(_count_goal(sparsity, weights), weights if sparsity >= 1 else weights - 1)


def _judge_min_sparsity(limit: Fraction, found: Measurements) -> Judgement:
    pruned = found.count_pruned()
    goal = _count_least(limit, pruned.whole)
    words = f"{pruned.part:,} of {pruned.whole:,} weights pruned, {goal:,} wanted"
    return pruned.part >= goal, _compute_share(pruned), words


def _judge_max_sparsity(limit: Fraction, found: Measurements) -> Judgement:
    pruned = found.count_pruned()
    goal = count_most(limit, pruned.whole)
    words = f"{pruned.part:,} of {pruned.whole:,} weights pruned, {goal:,} allowed"
    return pruned.part <= goal, _compute_share(pruned), words


def _judge_max_layer_sparsity(limit: Fraction, found: Measurements) -> Judgement:
    over = {k: c for k, c in found.layers.items() if c.part > count_most(limit, c.whole)}
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


def _judge_max_layer_synops(limit: Fraction, found: Measurements) -> Judgement:
    assert found.layer_operations is not None
    key, most = max(found.layer_operations.items(), key=lambda item: item[1])
    over = sum(one > limit * found.samples for one in found.layer_operations.values())
    words = f"{_format_mean(Fraction(most, found.samples), found, 'operations')}, of {key}"
    return not over, float(Fraction(most, found.samples)), words + _format_others(over)


def _judge_max_weights(limit: Fraction, found: Measurements) -> Judgement:
    pruned = found.count_pruned()
    kept = pruned.whole - pruned.part
    return check_at_most(limit, Fraction(kept), f"{kept:,} of {pruned.whole:,} weights kept")


def _judge_max_fan_in(limit: Fraction, found: Measurements) -> Judgement:
    assert found.rows is not None
    key, rows = max(found.rows.items(), key=lambda item: item[1].most)
    over = sum(one.most > limit for one in found.rows.values())
    words = f"{rows.most:,} of {rows.size:,} inputs of an output of {key} kept"
    return not over, float(rows.most), words + _format_others(over)


def _judge_min_per_channel(limit: Fraction, found: Measurements) -> Judgement:
    assert found.rows is not None
    lacking = {
        key: one for key, one in found.rows.items() if one.fewest < min(int(limit), one.size)
    }
    key, rows = min((lacking or found.rows).items(), key=lambda item: item[1].fewest)
    words = f"{rows.fewest:,} of {rows.size:,} weights of a channel of {key} kept"
    return not lacking, float(rows.fewest), words + _format_others(len(lacking))


def _format_others(over: int) -> str:
    return f"; {over} layers are beyond" if over > 1 else ""


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


def _read_chip(text: str, _: str) -> Chip:
    """A chip, by the name of a built-in or the path of a file.

    Raises:
        InputError: there is none, or its file is wrong.
    """
    from snnprune.chips import load_chip  # pydantic is for those that name one

    return load_chip(text)


def _judge_chip(_: Chip, found: Measurements) -> Judgement:
    fit = found.chip
    assert fit is not None
    if fit.fits:
        return True, 0.0, f"{len(fit.layers)} layers on {fit.cores_needed} of {fit.cores} cores"
    first = fit.misfits[0]
    where = f"{first.layer}: " if first.layer is not None else ""
    count = len(fit.misfits)
    rest = f", and {count - 1} more" if count > 1 else ""
    return False, float(count), f"does not fit: {where}{first.message}{rest}"


GATES: Mapping[str, GateRule] = {
    gate.name: gate
    for gate in (
        GateRule(
            name="min-sparsity",
            help="Least share of the weights that is 0.",
            unit="share",
            needs=(),
            read=parse_share,
            judge=_judge_min_sparsity,
        ),
        GateRule(
            name="max-sparsity",
            help="Greatest share of the weights that is 0.",
            unit="share",
            needs=(),
            read=parse_share,
            judge=_judge_max_sparsity,
        ),
        GateRule(
            name="max-layer-sparsity",
            help="Likewise, of each layer alone.",
            unit="share",
            needs=(),
            read=parse_share,
            judge=_judge_max_layer_sparsity,
        ),
        GateRule(
            name="min-accuracy",
            help="Least share of the samples classified right.",
            unit="share",
            needs=("right",),
            read=parse_share,
            judge=_judge_min_accuracy,
        ),
        GateRule(
            name="max-accuracy-drop",
            help="Most percentage points of accuracy below the baseline.",
            unit="points",
            needs=("right", "right_before"),
            read=parse_points,
            judge=_judge_max_accuracy_drop,
        ),
        GateRule(
            name="min-spike-agreement",
            help="Least share of the spikes as in the baseline.",
            unit="share",
            needs=("same",),
            read=parse_share,
            judge=_judge_min_spike_agreement,
        ),
        GateRule(
            name="max-synops",
            help="Most effective synaptic operations of a sample, as 1.5M.",
            unit="operations",
            needs=("operations",),
            read=parse_operations,
            judge=_judge_max_synops,
        ),
        GateRule(
            name="max-layer-synops",
            help="Likewise, of each layer alone.",
            unit="operations",
            needs=("layer_operations",),
            read=parse_operations,
            judge=_judge_max_layer_synops,
        ),
        GateRule(
            name="max-energy",
            help="Most energy of a sample, in pJ or as 1.2uJ.",
            unit="pJ",
            needs=("energy",),
            read=parse_energy,
            judge=_judge_max_energy,
        ),
        GateRule(
            name="max-size",
            help="Most bytes of the file, also as 200kB.",
            unit="bytes",
            needs=(),
            read=parse_size,
            judge=_judge_max_size,
        ),
        GateRule(
            name="max-weights",
            help="Most weights that are not 0, as 20k.",
            unit="weights",
            needs=(),
            read=parse_weights,
            judge=_judge_max_weights,
        ),
        GateRule(
            name="max-fan-in",
            help="Most weights that are not 0 of any one output channel.",
            unit="weights",
            needs=("rows",),
            read=parse_weights,
            judge=_judge_max_fan_in,
        ),
        GateRule(
            name="min-per-channel",
            help="Least of them, or all that a channel has.",
            unit="weights",
            needs=("rows",),
            read=parse_weights,
            judge=_judge_min_per_channel,
        ),
        GateRule(
            name="max-dead",
            help="Most channels that never spike, or a share as 5%.",
            unit="channels",
            needs=("silent",),
            read=parse_number_or_percent,
            judge=_judge_max_dead,
        ),
        GateRule(
            name="chip",
            help="A chip that it has to fit: a name of chips ls, or a YAML file.",
            unit="misfits",
            needs=("chip",),
            read=_read_chip,
            judge=_judge_chip,
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
    low, high = found.get("min-per-channel"), found.get("max-fan-in")
    if low and high and low.value > high.value:
        raise UsageError(f"{low.text} is more than --max-fan-in {high.text}", field=low.gate.flag)
    return tuple(found.values())
