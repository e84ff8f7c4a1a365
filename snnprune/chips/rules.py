"""The design-rule check: a network against a chip, layer by layer. Pure; imports no torch.

What a layer needs is held against what there is, each rule a function that yields what does not
fit and the smallest change that would mend it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from snnprune.chips.description import Chip
from snnprune.chips.needs import LayerNeeds, LayerNeuron, Pool, change_channels
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
from snnprune.measure import Natural, Share


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Something that the chip does not hold or does not do."""

    rule: str
    """Its name, as weights, neurons, kind or pooling."""
    layer: str | None
    """Key of its weight; None where it is about the network."""
    need: Natural | None
    limit: Natural | None
    """None where it is not about a number."""
    message: str
    change: str | None
    """The smallest change that makes it fit; None where there is none but another network."""


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


Rule = Callable[[LayerNeeds, Chip], Iterator[Misfit]]


def _make_misfit(
    one: LayerNeeds,
    rule: str,
    message: str,
    change: str | None,
    numbers: tuple[int, int] | None = None,
) -> Misfit:
    need, limit = numbers or (None, None)
    return Misfit(
        rule=rule, layer=one.layer, need=need, limit=limit, message=message, change=change
    )


def _check_kind(one: LayerNeeds, chip: Chip) -> Iterator[Misfit]:
    if one.kind not in chip.kinds:
        yield _make_misfit(
            one, "kind", f"is {one.kind}, the chip has {_join(chip.kinds)}", "another layer"
        )
    if one.groups > 1 and not chip.groups:
        yield _make_misfit(
            one,
            "groups",
            f"has {one.groups} groups, the chip has none",
            "a convolution without groups",
            (one.groups, 1),
        )
    if max(one.dilation, default=1) > 1 and not chip.dilation:
        yield _make_misfit(one, "dilation", "is dilated", "dilation 1", (max(one.dilation), 1))


def _check_geometry(one: LayerNeeds, chip: Chip) -> Iterator[Misfit]:
    limits = chip.limits
    if chip.square_kernels and len(set(one.kernel)) > 1:
        yield _make_misfit(
            one, "square", f"has a kernel of {_by(one.kernel)}", "one with equal sides"
        )
    bounded = (
        ("kernel_side", "a kernel", one.kernel, limits.kernel_side),
        ("input_side", "an input", one.input_size, limits.input_side),
        ("output_side", "an output", one.size, limits.output_side),
        ("padding", "padding", one.padding, limits.padding),
    )
    for rule, what, sides, most in bounded:
        longest = max(sides, default=0)
        if most is not None and longest > most:
            change = f"at most {most} on a side" + _suggest_pool(rule, longest, most)
            message = f"has {what} of {_by(sides)}, the chip takes {most}"
            yield _make_misfit(one, rule, message, change, (longest, most))
    strides = limits.strides
    if strides is not None and (wrong := [s for s in one.stride if s not in strides]):
        yield _make_misfit(
            one,
            "stride",
            f"has stride {_by(one.stride)}, the chip has {_join(strides)}",
            f"stride {min(strides, key=lambda s: abs(s - wrong[0]))}",
        )


def _suggest_pool(rule: str, side: int, most: int) -> str:
    """A kernel of a linear layer is as large as what was flattened before it."""
    if rule != "kernel_side":
        return ""
    return f", as after {math.ceil(side / most)} times the pooling"


def _check_pools(one: LayerNeeds, chip: Chip) -> Iterator[Misfit]:
    for pool in one.pools:
        if pool.kind not in chip.pooling:
            had = _join(chip.pooling) or "none"
            message = f"{pool.kind} pooling before it, the chip has {had}"
            yield _make_misfit(one, "pooling", message, _suggest_for_pool(pool, chip))
        elif wrong := _explain_pool(pool, chip):
            yield _make_misfit(one, "pooling", *wrong)


def _suggest_for_pool(pool: Pool, chip: Chip) -> str | None:
    """What may stand in the place of a pool of a kind that the chip has not."""
    taken = chip.limits.strides
    strided = len(set(pool.strides)) == 1 and (taken is None or pool.strides[0] in taken)
    found = [
        *(["average pooling"] if "average" in chip.pooling else []),
        *([f"a convolution of stride {pool.strides[0]}"] if strided and _convolves(chip) else []),
    ]
    return f"train it with {' or '.join(found)} in its place" if found else None


def _convolves(chip: Chip) -> bool:
    return any(kind.startswith("conv") for kind in chip.kinds)


def _explain_pool(pool: Pool, chip: Chip) -> tuple[str, str] | None:
    sides = chip.limits.pool_sides
    if sides is None:
        return None
    if pool.sides != pool.strides:
        return f"a pool of {_by(pool.sides)} before it overlaps", "strides equal to its sides"
    if len(set(pool.sides)) > 1:
        return f"a pool of {_by(pool.sides)} before it is not square", "equal sides"
    if pool.sides and pool.sides[0] not in sides:
        near = min(sides, key=lambda s: abs(s - pool.sides[0]))
        return (
            f"a pool of {_by(pool.sides)} before it, the chip has sides {_join(sides)}",
            f"a pool of {near}",
        )
    return None


def _check_neurons(one: LayerNeeds, chip: Chip) -> Iterator[Misfit]:
    if not one.neurons and chip.spiking_output:
        yield _make_misfit(
            one,
            "output",
            "drives no neuron, and only spikes leave the chip",
            f"{chip.neurons[0].upper()} neurons behind it, trained with them",
        )
    for neuron in one.neurons:
        yield from _check_neuron(one, neuron, chip)
    if one.beside and not chip.summed_currents:
        yield _make_misfit(
            one,
            "summed_currents",
            f"its neuron takes in {_join(one.beside)} too, a core has one layer",
            "add spikes in place of currents",
        )
    for obstacle in one.obstacles:
        yield _make_misfit(one, "obstacle", obstacle, None)


def _check_neuron(one: LayerNeeds, neuron: LayerNeuron, chip: Chip) -> Iterator[Misfit]:
    had = _join(kind.upper() for kind in chip.neurons)
    if neuron.kind not in chip.neurons:
        what = "keep their whole membrane" if neuron.kind == "if" else "leak"
        kept = "" if neuron.decay is None else f" (keeping {neuron.decay:.4g} a step)"
        told = f"its neurons {what}{kept}" if neuron.kind in ("if", "lif") else f"{neuron.kind}"
        yield _make_misfit(
            one,
            "neuron",
            f"{told}, the chip's are {had}",
            f"{had} neurons in the network's code, and train or finetune: pruning keeps neurons",
        )
    if neuron.reset is not None and neuron.reset not in chip.resets:
        yield _make_misfit(
            one,
            "reset",
            f"a spike {RESETS[neuron.reset]}, on the chip it {RESETS[chip.resets[0]]}",
            "that reset in the network's code, and train or finetune",
        )


RESETS = {"zero": "sets the membrane to 0", "subtract": "subtracts the threshold"}


def _check_bits(one: LayerNeeds, chip: Chip) -> Iterator[Misfit]:
    found = get_bits(one, chip)
    if found is not None and found <= chip.weight_bits:
        return
    scale = "one scale" if chip.weight_scale == "layer" else "a scale for each output channel"
    are = f"integers of {found} bits" if found else "no integers"
    yield Misfit(
        rule="bits",
        layer=one.layer,
        need=found,
        limit=chip.weight_bits,
        message=f"its weights are {are} with {scale}, the chip has {chip.weight_bits} bits",
        change=f"prune --chip, which puts them on {chip.weight_bits} bits",
    )


def get_bits(one: LayerNeeds, chip: Chip) -> int | None:
    """The fewest bits of a layer's integers with a scale as the chip has it; None where none."""
    return one.bits if chip.weight_scale == "layer" else one.channel_bits


FIXED: tuple[Rule, ...] = (
    _check_kind,
    _check_geometry,
    _check_pools,
    _check_neurons,
)
"""Of what no pruning changes."""


def check_design(
    needs: Sequence[LayerNeeds], chip: Chip, name: str, remarks: Sequence[str] = ()
) -> ChipFit:
    """Hold what a network needs against a chip, which the report calls `name`."""
    placed = place(needs, chip)
    channels, density = plan_channels(needs, chip), plan_density(needs, chip)
    misfits = [misfit for one in needs for rule in FIXED for misfit in rule(one, chip)]
    misfits += [*_check_network(needs, chip)]
    misfits += [*_check_room(needs, chip, placed, channels, density)]
    misfits += [misfit for one in needs for misfit in _check_bits(one, chip)]
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


def _check_network(needs: Sequence[LayerNeeds], chip: Chip) -> Iterator[Misfit]:
    """How layers are joined."""
    back = [one for one in needs if _reaches(one.layer, one.layer, needs)]
    if back and not chip.recurrent:
        yield _make_misfit(back[0], "recurrent", "its spikes come back to it", None)
    most = chip.limits.fan_out_layers
    for one in needs:
        to = [other.layer for other in needs if one.layer in other.sources]
        if most is not None and len(to) > most:
            message = f"its spikes go to {len(to)} layers, the chip sends them to {most}"
            yield _make_misfit(one, "fan_out", message, None, (len(to), most))
    spiking = sum(bool(one.neurons) for one in needs)
    least = chip.limits.layers
    if least is not None and spiking < least:
        yield Misfit(
            rule="layers",
            layer=None,
            need=spiking,
            limit=least,
            message=f"{spiking} layers of neurons, the chip has hidden and output neurons",
            change=f"at least {least} layers of neurons",
        )


def _reaches(start: str, end: str, needs: Sequence[LayerNeeds]) -> bool:
    """Whether spikes of one layer come to another, over any others."""
    seen, waiting = set[str](), [start]
    while waiting:
        here = waiting.pop()
        for one in needs:
            if here in one.sources and one.layer not in seen:
                if one.layer == end:
                    return True
                seen.add(one.layer)
                waiting.append(one.layer)
    return False


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
                yield _make_misfit(one, name, message, change, (need, limit))
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
        where = f"cores {_join(free)} are free, and too small" if free else "no core is free"
        yield _make_misfit(
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
            yield _make_misfit(one, name, message, suggest.for_room(one), (need, most))
    if not told:
        yield _make_misfit(
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
            f"{_join(analog)}: its inputs are no whole numbers, and only events enter the chip: "
            "give it counts, and put their scale into its weights"
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


def _join(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
