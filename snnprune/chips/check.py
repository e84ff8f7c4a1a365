"""The design-rule check: a network against a chip, layer by layer. Pure; imports no torch.

The rules come first, then whether there is enough room of everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from snnprune.chips.description import Chip
from snnprune.chips.needs import LayerNeeds, change_channels
from snnprune.chips.placement import (
    Placement,
    find_fitting,
    fits_core,
    iter_layer_limits,
    list_cores,
    measure_memory,
    measure_totals,
    place,
    plan_channels,
    plan_density,
)
from snnprune.chips.rules import (
    FIXED,
    Misfit,
    check_bits,
    check_network,
    get_bits,
    join_names,
    make_misfit,
)
from snnprune.measure import Natural, Share


@dataclass(frozen=True, kw_only=True)
class LayerFit:
    """A layer on the chip."""

    layer: str
    kind: str
    held: str
    """Channels and kernel, as they are held."""
    weights: Natural
    """Entries of weight memory that it takes."""
    neurons: Natural
    """Entries of neuron memory."""
    biases: Natural
    alive: Natural
    fan_in: Natural
    bits: Natural | None
    """The fewest bits that its weights are integers of, with a scale as the chip has it."""
    cores: tuple[Natural, ...]
    """Their numbers; none where it has no place."""
    fits: bool


@dataclass(frozen=True, kw_only=True)
class ChipFit:
    """What came of a check."""

    chip: str
    """As it was named."""
    title: str
    fits: bool
    cores_needed: Natural
    cores: Natural
    layers: tuple[LayerFit, ...]
    misfits: tuple[Misfit, ...]
    remarks: tuple[str, ...]
    """What is taken for granted, or rounded by whoever loads it."""
    channels: Mapping[str, Natural] | None
    """With so many channels of each group, by its first layer, there is room for all; None where
    no number of channels makes room."""
    density: Share | None
    """On a chip that stores sparse weights, the share of those alive that there is room for."""


def check_design(
    needs: Sequence[LayerNeeds], chip: Chip, name: str, remarks: Sequence[str] = ()
) -> ChipFit:
    """Hold what a network needs against a chip, which the report calls `name`."""
    placed = place(needs, chip)
    channels, density = plan_channels(needs, chip), plan_density(needs, chip)
    misfits = [misfit for one in needs for rule in FIXED for misfit in rule(one, chip)]
    misfits += [*check_network(needs, chip)]
    misfits += [*_check_room(needs, chip, placed, channels, density)]
    misfits += [misfit for one in needs for misfit in check_bits(one, chip)]
    wrong = {misfit.layer for misfit in misfits}
    return ChipFit(
        chip=name,
        title=chip.title,
        fits=not misfits,
        cores_needed=placed.used,
        cores=len(list_cores(chip)),
        layers=tuple(_make_row(one, chip, placed, one.layer not in wrong) for one in needs),
        misfits=tuple(misfits),
        remarks=(*_iter_remarks(needs, chip), *remarks, *chip.notes),
        channels=channels,
        density=density if chip.sparse else None,
    )


def _make_row(one: LayerNeeds, chip: Chip, placed: Placement, fits: bool) -> LayerFit:
    memory = measure_memory(one, chip)
    return LayerFit(
        layer=one.layer,
        kind=one.kind,
        held=one.folded,
        weights=memory.weights,
        neurons=memory.neurons,
        biases=memory.biases,
        alive=one.alive,
        fan_in=one.fan_in,
        bits=get_bits(one, chip),
        cores=placed.cores.get(one.layer, ()),
        fits=fits,
    )


def format_density(density: float) -> str:
    """A share of weights that may be kept, never rounded up."""
    return f"{math.floor(density * 10_000) / 100:g} %"


LIMIT_WORDS = {
    "input_channels": "inputs",
    "neurons": "neurons",
    "hidden_neurons": "hidden neurons",
    "first_neurons": "hidden neurons behind the input",
    "last_hidden_neurons": "hidden neurons before the output",
    "output_neurons": "output neurons",
    "synapses": "synapses",
    "channels": "output channels",
    "fan_in": "synapses of a neuron",
}


def _check_room(
    needs: Sequence[LayerNeeds],
    chip: Chip,
    placed: Placement,
    channels: Mapping[str, int] | None,
    density: float | None,
) -> Iterator[Misfit]:
    """Whether there is enough of everything."""
    suggest = _Suggestions(needs=needs, chip=chip, channels=channels, density=density)
    for name, need, limit in measure_totals(needs, chip):
        if limit is not None and need > limit:
            yield Misfit(
                rule=name,
                layer=None,
                need=need,
                limit=limit,
                message=f"{need:,} {LIMIT_WORDS[name]}, the chip has {limit:,}",
                change=suggest.for_total(name, limit),
            )
    for one in needs:
        for name, need, limit in iter_layer_limits(one, chip):
            if limit is not None and need > limit:
                message = f"{need:,} {LIMIT_WORDS[name]}, the chip has {limit:,}"
                change = suggest.for_layer(one, name, limit)
                yield make_misfit(one, name, message, change, (need, limit))
    if chip.placement != "layer-per-core":
        if placed.left:
            yield _explain_full(chip, placed, suggest)
        return
    for one in needs:
        if one.layer in placed.left:
            yield from _explain_left(one, chip, placed, suggest)


def _explain_full(chip: Chip, placed: Placement, suggest: _Suggestions) -> Misfit:
    """That the cores of one kind do not hold all layers."""
    cores = len(list_cores(chip))
    message = (
        f"{placed.used:,} cores are needed, the chip has {cores:,}"
        if chip.placement == "spread"
        else "all layers together are more than the core holds"
    )
    return Misfit(
        rule="cores",
        layer=None,
        need=placed.used if chip.placement == "spread" else None,
        limit=cores if chip.placement == "spread" else None,
        message=message,
        change=suggest.for_all(),
    )


def _explain_left(
    one: LayerNeeds, chip: Chip, placed: Placement, suggest: _Suggestions
) -> Iterator[Misfit]:
    """Why a layer has no core."""
    memory, cores = measure_memory(one, chip), list_cores(chip)
    if find_fitting(one, chip):
        free = [
            n for n in range(len(cores)) if all(n not in held for held in placed.cores.values())
        ]
        where = f"cores {join_names(free)} are free, and too small" if free else "no core is free"
        yield make_misfit(
            one, "cores", f"the cores that hold it are taken; {where}", suggest.for_room(one)
        )
        return
    parts = (
        ("weights", memory.weights, [core.weights for core in cores]),
        ("neurons", memory.neurons, [core.neurons for core in cores]),
        ("biases", memory.biases, [core.biases for core in cores]),
    )
    told = False
    for name, need, held in parts:
        most = max((size for size in held if size is not None), default=None)
        if most is not None and None not in held and need > most:
            told = True
            message = f"takes {need:,} entries of {name}, the largest core has {most:,}"
            yield make_misfit(one, name, message, suggest.for_room(one), (need, most))
    if not told:
        yield make_misfit(
            one,
            "cores",
            f"takes {memory.weights:,} entries of weights and {memory.neurons:,} of neurons, "
            "no core has both",
            suggest.for_room(one),
        )


@dataclass(frozen=True, kw_only=True)
class _Suggestions:
    """The smallest changes that make room."""

    needs: Sequence[LayerNeeds]
    chip: Chip
    channels: Mapping[str, int] | None
    density: float | None

    def for_all(self) -> str | None:
        """Of all layers that share the cores."""
        if self.chip.sparse and self.density is not None and self.density < 1:
            return f"keep {format_density(self.density)} of the weights that there are"
        return self._tell_plan()

    def for_room(self, one: LayerNeeds) -> str | None:
        """Of a layer that has no core."""
        return self._shrink_alone(one) or self._tell_plan()

    def _shrink_alone(self, one: LayerNeeds) -> str | None:
        """How many channels alone bring it onto a core, where each layer has one."""
        if find_fitting(one, self.chip):
            return None
        counts = {
            f"of its {one.outputs:,} output channels": (one.group, one.outputs),
            f"of its {one.inputs:,} input channels": (one.reads, one.inputs),
        }
        told = []
        for what, (group, count) in counts.items():
            if group is None:
                continue
            fitting = [n for n in range(1, count) if self._fits_with(one, group, n)]
            if fitting:
                told.append(f"at most {fitting[-1]:,} {what}")
        return " or ".join(told) or None

    def _fits_with(self, one: LayerNeeds, group: str, count: int) -> bool:
        (changed,) = change_channels([one], {group: count})
        memory = measure_memory(changed, self.chip)
        return any(fits_core(memory, core) for core in list_cores(self.chip))

    def for_total(self, name: str, limit: int) -> str | None:
        """Of a limit of the whole chip."""
        if name == "synapses" and self.density is not None:
            return self.for_all()
        if name in ("input_channels", "output_neurons"):
            return f"at most {limit:,} {LIMIT_WORDS[name]}: another network"
        return self._tell_plan() or f"at most {limit:,} {LIMIT_WORDS[name]}: another network"

    def for_layer(self, one: LayerNeeds, name: str, limit: int) -> str | None:
        """Of a limit of a layer."""
        if name == "fan_in" and self.chip.sparse:
            gone = one.fan_in - limit
            return f"prune {gone:,} of the {one.fan_in:,} synapses of its fullest neuron"
        return f"at most {limit:,} {LIMIT_WORDS[name]}"

    def _tell_plan(self) -> str | None:
        if self.channels is None:
            return None
        before = {one.group: one.outputs for one in self.needs if one.group is not None}
        cuts = [
            f"{self.channels[group]:,} of the {count:,} channels of {group}"
            for group, count in before.items()
            if self.channels[group] < count
        ]
        return f"keep {' and '.join(cuts)}" if cuts else None


def _iter_remarks(needs: Sequence[LayerNeeds], chip: Chip) -> Iterator[str]:
    """What does not decide whether it fits, and changes what it does."""
    analog = [one.layer for one in needs if not one.sources and not one.whole_inputs]
    if analog:
        yield (
            f"{join_names(analog)}: its inputs are no whole numbers, and only events enter the "
            "chip: give it counts, and put their scale into its weights"
        )
    if chip.shift_decay:
        yield from _iter_shift_remarks(needs)


def _iter_shift_remarks(needs: Sequence[LayerNeeds]) -> Iterator[str]:
    for one in needs:
        for neuron in one.neurons:
            decay = neuron.decay
            if decay is None or not 0 < decay < 1:
                continue
            near = 1 - 2.0 ** -max(1, round(-math.log2(1 - decay)))
            if not math.isclose(near, decay, abs_tol=1e-6):
                yield f"{neuron.name}: it keeps {decay:.4g} a step, the chip the nearest {near:.4g}"
