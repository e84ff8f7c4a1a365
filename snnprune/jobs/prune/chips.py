"""`prune --chip`: how many channels or weights there is room for, and the network that keeps them.

What a chip stores densely is freed by whole channels alone; sparse synapses by single weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from snnprune.chips import Chip
from snnprune.chips.check import ChipFit, check_design
from snnprune.chips.needs import LayerNeeds, change_channels
from snnprune.chips.placement import iter_layer_limits, plan_channels, plan_density
from snnprune.chips.rules import Misfit
from snnprune.chips.tracing import measure_needs
from snnprune.errors import GateError, InputError, layer_name
from snnprune.jobs.check import find_chip_limit
from snnprune.jobs.prune.options import PruneOptions
from snnprune.jobs.prune.pruned_model import PrunedModel
from snnprune.jobs.targets.opening import read_example
from snnprune.jobs.targets.target import Target
from snnprune.masks import RowBounds
from snnprune.pruning.budget import Budget, Cap
from snnprune.pruning.structure import CHANNELS, UNSTRUCTURED
from snnprune.report.verdicts import Limit

BY_PRUNING = ("channels", "cores", "weights", "neurons", "biases", "fan_in", "bits", "synapses")
"""Rules that fewer channels or weights, or integers, bring to be met."""
BY_NEURONS = ("hidden_neurons", "first_neurons", "last_hidden_neurons")
"""Likewise, by fewer neurons."""
PRICE = "weights"  # what a `Cap` counts


@dataclass(frozen=True, kw_only=True)
class ChipPlan:
    """What a network may keep on a chip."""

    chip: Chip
    name: str
    needs: tuple[LayerNeeds, ...]
    """Of the dense network."""
    channels: Mapping[str, int]
    """Of groups that lose some, by the first layer of each."""
    density: float
    """The share of the weights of each layer."""

    @property
    def structure(self) -> str:
        """What goes."""
        return CHANNELS if self.channels else UNSTRUCTURED

    def add_to_budget(self, budget: Budget, weights: Collection[str]) -> Budget:
        """A budget with caps on each layer of `weights` and on their neurons, where need be."""
        needs = [one for one in self.needs if one.layer in weights]
        caps = list(budget.caps)
        if self.density < 1:
            caps += [
                Cap(name="--chip", price=PRICE, most=int(self.density * one.alive), layer=one.layer)
                for one in needs
            ]
        rows = dict(budget.rows)
        for one in needs:
            most = self._find_fan_in(one)
            if most is not None and most < one.fan_in:
                before = rows.get(one.layer, RowBounds())
                narrow = most if before.most is None else min(most, before.most)
                rows[one.layer] = replace(before, most=narrow)
        return replace(budget, caps=tuple(caps), rows=rows)

    def _find_fan_in(self, one: LayerNeeds) -> int | None:
        limits = {name: limit for name, _, limit in iter_layer_limits(one, self.chip)}
        return limits["fan_in"] if self.chip.sparse else None

    def fit(self, target: Target, made: PrunedModel) -> ChipFit:
        """How what was made fits, as it is written: without the channels that are gone."""
        needs = trace_needs(target)
        if made.small is not None and made.removed is not None:
            counts = {
                group.layers[0]: int(made.removed.of(group).sum()) for group in made.removed.groups
            }
            needs = _drop_zeros(needs, counts)
        return check_design(needs, self.chip, self.name)


def _drop_zeros(needs: Sequence[LayerNeeds], channels: Mapping[str, int]) -> tuple[LayerNeeds, ...]:
    """The needs without channels that are all zeros: what is alive stays."""
    return tuple(
        replace(small, alive=whole.alive, connections=whole.connections, fan_in=whole.fan_in)
        for whole, small in zip(needs, change_channels(needs, channels), strict=True)
    )


def trace_needs(target: Target) -> tuple[LayerNeeds, ...]:
    """What the network of a target needs, as it is now.

    Raises:
        InputError: there is none, or nothing to run it on.
    """
    example = None
    if target.network is not None and target.spec is not None:
        example = read_example(target.spec, target.data, target.device)
    if target.network is None or example is None:
        raise InputError(
            f"a chip needs the network: {target.missing or 'no data'}",
            file=target.checkpoint.path,
            field="--chip",
            hint="give --model and --data",
        )
    return measure_needs(target.network, example.x)


def plan_chip(target: Target, options: PruneOptions) -> ChipPlan | None:
    """What fits of the network, where a chip is named; None where none is.

    Beside a sparsity a chip is a gate: then it asks for nothing but its bits.

    Raises:
        GateError: no pruning makes it fit.
        InputError: there is no network.
    """
    limit = find_chip_limit(options.limits)
    if limit is None:
        return None
    chip: Chip = limit.value
    needs = trace_needs(target)
    plan = ChipPlan(chip=chip, name=limit.text, needs=needs, channels={}, density=1.0)
    if not options.fits_chip:
        return plan
    _require_prunable(check_design(needs, chip, limit.text), limit, options)
    density = plan_density(needs, chip) if chip.sparse else None
    if density is not None:
        return replace(plan, density=density)
    counts = plan_channels(needs, chip)
    if counts is None:
        raise _make_error([], limit, options, "no number of channels makes room for all layers")
    whole = {one.group: one.outputs for one in needs if one.group is not None}
    cuts = {name: count for name, count in counts.items() if count < whole[name]}
    return replace(plan, channels=counts if cuts else {})


def _require_prunable(fit: ChipFit, limit: Limit, options: PruneOptions) -> None:
    """Refuse a network that does not fit for what pruning does not change."""
    mended = (*BY_PRUNING, *(BY_NEURONS if fit.channels is not None else ()))
    fixed = [one for one in fit.misfits if one.rule not in mended]
    if fixed:
        raise _make_error(fixed, limit, options, "pruning does not change it")


def _make_error(
    misfits: Sequence[Misfit], limit: Limit, options: PruneOptions, why: str
) -> GateError:
    told = dict.fromkeys(
        (one.message, one.change)
        for one in misfits  # of several layers alike, once
    )
    layers = {
        text: [layer_name(one.layer) for one in misfits if one.message == text and one.layer]
        for text, _ in told
    }
    words = [f"{', '.join(layers[text]) or 'the network'}: {text}" for text, _ in told]
    hints = [change for _, change in told if change]
    return GateError(
        f"does not fit {limit.text}, and {why}" + (f": {'; '.join(words)}" if words else ""),
        file=options.checkpoint,
        field=limit.gate.flag,
        hint=f"it takes {'; '.join(dict.fromkeys(hints))}" if hints else "see check --chip",
    )
