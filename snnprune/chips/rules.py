"""The rules of a chip: what a layer or the way layers are joined asks for and the chip has not.

Each rule is a function that yields what does not fit and the smallest change that would mend it.
Pure; imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from snnprune.chips.description import Chip
from snnprune.chips.needs import LayerNeeds, LayerNeuron, Pool
from snnprune.measure import Natural


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


Rule = Callable[[LayerNeeds, Chip], Iterator[Misfit]]


def make_misfit(
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
        yield make_misfit(
            one, "kind", f"is {one.kind}, the chip has {join_names(chip.kinds)}", "another layer"
        )
    if one.groups > 1 and not chip.groups:
        yield make_misfit(
            one,
            "groups",
            f"has {one.groups} groups, the chip has none",
            "a convolution without groups",
            (one.groups, 1),
        )
    if max(one.dilation, default=1) > 1 and not chip.dilation:
        yield make_misfit(one, "dilation", "is dilated", "dilation 1", (max(one.dilation), 1))


def _check_geometry(one: LayerNeeds, chip: Chip) -> Iterator[Misfit]:
    limits = chip.limits
    if chip.square_kernels and len(set(one.kernel)) > 1:
        yield make_misfit(
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
            yield make_misfit(one, rule, message, change, (longest, most))
    strides = limits.strides
    if strides is not None and (wrong := [s for s in one.stride if s not in strides]):
        yield make_misfit(
            one,
            "stride",
            f"has stride {_by(one.stride)}, the chip has {join_names(strides)}",
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
            had = join_names(chip.pooling) or "none"
            message = f"{pool.kind} pooling before it, the chip has {had}"
            yield make_misfit(one, "pooling", message, _suggest_for_pool(pool, chip))
        elif wrong := _explain_pool(pool, chip):
            yield make_misfit(one, "pooling", *wrong)


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
            f"a pool of {_by(pool.sides)} before it, the chip has sides {join_names(sides)}",
            f"a pool of {near}",
        )
    return None


def _check_neurons(one: LayerNeeds, chip: Chip) -> Iterator[Misfit]:
    if not one.neurons and chip.spiking_output:
        yield make_misfit(
            one,
            "output",
            "drives no neuron, and only spikes leave the chip",
            f"{chip.neurons[0].upper()} neurons behind it, trained with them",
        )
    for neuron in one.neurons:
        yield from _check_neuron(one, neuron, chip)
    if one.beside and not chip.summed_currents:
        yield make_misfit(
            one,
            "summed_currents",
            f"its neuron takes in {join_names(one.beside)} too, a core has one layer",
            "add spikes in place of currents",
        )
    for obstacle in one.obstacles:
        yield make_misfit(one, "obstacle", obstacle, None)


def _check_neuron(one: LayerNeeds, neuron: LayerNeuron, chip: Chip) -> Iterator[Misfit]:
    had = join_names(kind.upper() for kind in chip.neurons)
    if neuron.kind not in chip.neurons:
        what = "keep their whole membrane" if neuron.kind == "if" else "leak"
        kept = "" if neuron.decay is None else f" (keeping {neuron.decay:.4g} a step)"
        told = f"its neurons {what}{kept}" if neuron.kind in ("if", "lif") else f"{neuron.kind}"
        yield make_misfit(
            one,
            "neuron",
            f"{told}, the chip's are {had}",
            f"{had} neurons in the network's code, and train or finetune: pruning keeps neurons",
        )
    if neuron.reset is not None and neuron.reset not in chip.resets:
        yield make_misfit(
            one,
            "reset",
            f"a spike {RESETS[neuron.reset]}, on the chip it {RESETS[chip.resets[0]]}",
            "that reset in the network's code, and train or finetune",
        )


RESETS = {"zero": "sets the membrane to 0", "subtract": "subtracts the threshold"}


def check_bits(one: LayerNeeds, chip: Chip) -> Iterator[Misfit]:
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


def check_network(needs: Sequence[LayerNeeds], chip: Chip) -> Iterator[Misfit]:
    """How layers are joined."""
    back = [one for one in needs if _reaches(one.layer, one.layer, needs)]
    if back and not chip.recurrent:
        yield make_misfit(back[0], "recurrent", "its spikes come back to it", None)
    most = chip.limits.fan_out_layers
    for one in needs:
        to = [other.layer for other in needs if one.layer in other.sources]
        if most is not None and len(to) > most:
            message = f"its spikes go to {len(to)} layers, the chip sends them to {most}"
            yield make_misfit(one, "fan_out", message, None, (len(to), most))
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


def join_names(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
