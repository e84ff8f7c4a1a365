"""Which layers go on which cores, and how many channels or weights must go until all do. Pure.

A chip with a core for each layer is a bipartite graph of layers and the cores that they fit on; a
largest matching in it, by augmenting paths, leaves no layer over if any assignment does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from snnprune.chips.description import Chip, Core
from snnprune.chips.needs import LayerNeeds, change_channels, thin_out

Needs = Sequence[LayerNeeds]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Entries of memory that a layer takes."""

    weights: int
    neurons: int
    biases: int


def measure_memory(one: LayerNeeds, chip: Chip) -> Memory:
    """What a layer takes on a chip, rounded up to powers of two where it does so.

    Dense and padded as in sinabs' `DynapcnnLayer.memory_summary`: c 2^(ceil(log2(k_x k_y)) +
    ceil(log2 f)) entries of weights, f 2^(ceil(log2 f_y) + ceil(log2 f_x)) of neurons.
    """
    if chip.sparse:
        weights = one.alive if chip.shared_kernels else one.connections
    else:
        held = math.prod(one.kernel)
        weights = one.inputs // one.groups * _pad(held, chip) * _pad(one.outputs, chip)
        weights *= 1 if chip.shared_kernels else one.places
    neurons = one.outputs * math.prod(_pad(side, chip) for side in one.size)
    return Memory(weights=weights, neurons=neurons, biases=one.biases)


def _pad(count: int, chip: Chip) -> int:
    return 1 << (count - 1).bit_length() if chip.padded and count > 0 else count


def list_cores(chip: Chip) -> tuple[Core, ...]:
    """Each core by itself, in the order of the file."""
    return tuple(core for core in chip.cores for _ in range(core.count))


def fits_core(memory: Memory, core: Core) -> bool:
    """Whether a layer goes on one core."""
    pairs = (
        (memory.weights, core.weights),
        (memory.neurons, core.neurons),
        (memory.biases, core.biases),
    )
    return all(limit is None or need <= limit for need, limit in pairs)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the layers are."""

    cores: Mapping[str, tuple[int, ...]]
    """Numbers of the cores of each layer that has a place, by its key."""
    left: tuple[str, ...]
    """Layers that have none."""
    used: int
    """Cores that are needed, also where there are not so many."""


def place(needs: Needs, chip: Chip) -> Placement:
    """A place for as many layers as possible."""
    if chip.placement == "layer-per-core":
        return _match(needs, chip)
    core = chip.cores[0]
    if chip.placement == "together":
        total = _add([measure_memory(one, chip) for one in needs])
        numbers = {one.layer: (0,) for one in needs}
        if fits_core(total, core):
            return Placement(cores=numbers, left=(), used=1)
        return Placement(cores={}, left=tuple(numbers), used=1)
    return _spread(needs, chip, core)


def _add(memories: Sequence[Memory]) -> Memory:
    return Memory(
        weights=sum(one.weights for one in memories),
        neurons=sum(one.neurons for one in memories),
        biases=sum(one.biases for one in memories),
    )


def _match(needs: Needs, chip: Chip) -> Placement:
    cores = list_cores(chip)
    fitting = {one.layer: find_fitting(one, chip) for one in needs}
    holds: dict[int, str] = {}

    def take(layer: str, seen: set[int]) -> bool:
        """Give a layer a core, moving others on where that makes room."""
        for core in fitting[layer]:
            if core not in seen:
                seen.add(core)
                if core not in holds or take(holds[core], seen):
                    holds[core] = layer
                    return True
        return False

    left = tuple(one.layer for one in needs if not take(one.layer, set()))
    found = {layer: (core,) for core, layer in holds.items()}
    ordered = {one.layer: found[one.layer] for one in needs if one.layer in found}
    return Placement(cores=ordered, left=left, used=min(len(needs), len(cores)))


def find_fitting(one: LayerNeeds, chip: Chip) -> tuple[int, ...]:
    """Numbers of the cores that a layer goes on by itself."""
    memory = measure_memory(one, chip)
    return tuple(n for n, core in enumerate(list_cores(chip)) if fits_core(memory, core))


def count_cores(one: LayerNeeds, chip: Chip) -> int:
    """How many cores of one kind a layer is spread over."""
    memory, core = measure_memory(one, chip), chip.cores[0]
    pairs = (
        (memory.weights, core.weights),
        (memory.neurons, core.neurons),
        (memory.biases, core.biases),
    )
    return max(1, *(math.ceil(need / limit) for need, limit in pairs if limit is not None), 1)


def _spread(needs: Needs, chip: Chip, core: Core) -> Placement:
    first, found, left = 0, dict[str, tuple[int, ...]](), list[str]()
    for one in needs:
        last = first + count_cores(one, chip)
        if last <= core.count:
            found[one.layer] = tuple(range(first, last))
        else:
            left.append(one.layer)
        first = last
    return Placement(cores=found, left=tuple(left), used=first)


Totals = tuple[tuple[str, int, int | None], ...]
"""Name of a limit, what is needed, and the limit."""


def measure_totals(needs: Needs, chip: Chip) -> Totals:
    """What the whole network needs beside the limits of the whole chip."""
    limits = chip.limits
    driven = {one.neurons[0].name: one for one in needs if one.neurons}
    last = [one for one in driven.values() if _is_last(one, needs)]
    hidden = [one for one in driven.values() if not _is_last(one, needs)]
    feeding = {source for one in needs if _is_last(one, needs) for source in one.sources}
    synapses = sum(one.alive if chip.shared_kernels else one.connections for one in needs)
    return (
        ("input_channels", _count_inputs(needs), limits.input_channels),
        ("neurons", _sum_neurons(driven.values()), limits.neurons),
        ("hidden_neurons", _sum_neurons(hidden), limits.hidden_neurons),
        ("first_neurons", _sum_neurons(o for o in hidden if not o.sources), limits.first_neurons),
        (
            "last_hidden_neurons",
            _sum_neurons(one for one in hidden if one.layer in feeding),
            limits.last_hidden_neurons,
        ),
        ("output_neurons", _sum_neurons(last), limits.output_neurons),
        ("synapses", synapses, limits.synapses),
    )


def _is_last(one: LayerNeeds, needs: Needs) -> bool:
    """Whether no layer reads its spikes."""
    return all(one.layer not in other.sources for other in needs)


def _count_inputs(needs: Needs) -> int:
    return max((one.input_count for one in needs if not one.sources), default=0)


def _sum_neurons(layers: Iterable[LayerNeeds]) -> int:
    return sum(one.neuron_count for one in layers)


def iter_layer_limits(one: LayerNeeds, chip: Chip) -> Iterator[tuple[str, int, int | None]]:
    """What a layer needs beside the limits of a layer: what fewer channels or weights change."""
    core = chip.cores[0]
    inputs = core.inputs if chip.placement != "layer-per-core" else None
    limit = min((n for n in (inputs, chip.limits.fan_in) if n is not None), default=None)
    fan_in = one.fan_in if chip.sparse else one.inputs // one.groups * math.prod(one.kernel)
    yield "channels", one.outputs, chip.limits.channels
    yield "fan_in", fan_in, limit


def count_excess(needs: Needs, chip: Chip) -> int:
    """How many layers and limits do not fit; 0 where the chip holds the network."""
    over = [need for _, need, limit in measure_totals(needs, chip) if limit and need > limit]
    for one in needs:
        over += [n for _, n, limit in iter_layer_limits(one, chip) if limit and n > limit]
    return len(over) + len(place(needs, chip).left)


def plan_channels(needs: Needs, chip: Chip) -> dict[str, int] | None:
    """How many channels each group may keep so that the chip holds the network; None if none do.

    One group after the other: of all groups that fewer channels of bring a layer or a limit to
    fit, the one that loses the smallest share. Where no group does so alone, all are cut to the
    same share. What is found is as large as it may be: one channel more in any group, and
    something does not fit.
    """
    groups = _list_groups(needs)
    channels = dict(groups)
    if count_excess(needs, chip) == 0:
        return channels
    if count_excess(change_channels(needs, dict.fromkeys(groups, 1)), chip):
        return None
    while excess := count_excess(change_channels(needs, channels), chip):
        cuts = _list_cuts(needs, chip, channels, excess)
        if cuts:
            name = min(cuts, key=lambda name: 1 - cuts[name] / channels[name])
            channels[name] = cuts[name]
        else:
            channels = _cut_all(needs, chip, channels, excess)
    return _give_back(needs, chip, channels, groups)


def _list_groups(needs: Needs) -> dict[str, int]:
    return {one.group: one.outputs for one in needs if one.group is not None}


def _list_cuts(
    needs: Needs, chip: Chip, channels: Mapping[str, int], excess: int
) -> dict[str, int]:
    """The most channels of each group alone with which less does not fit."""

    def fits_more(name: str, count: int) -> bool:
        tried = change_channels(needs, {**channels, name: count})
        return count_excess(tried, chip) < excess

    return {
        name: _find_most(partial(fits_more, name), count - 1)
        for name, count in channels.items()
        if count > 1 and fits_more(name, 1)
    }


def _cut_all(needs: Needs, chip: Chip, channels: Mapping[str, int], excess: int) -> dict[str, int]:
    """All groups cut to the largest share with which less does not fit."""

    def cut(parts: int) -> dict[str, int]:
        return {name: max(1, count * parts // PARTS) for name, count in channels.items()}

    def fits_more(parts: int) -> bool:
        return count_excess(change_channels(needs, cut(parts)), chip) < excess

    return cut(_find_most(fits_more, PARTS - 1))


PARTS = 1024


def _give_back(
    needs: Needs, chip: Chip, channels: dict[str, int], groups: Mapping[str, int]
) -> dict[str, int]:
    """As many channels of each group as there is room for."""

    def fits(name: str, count: int) -> bool:
        tried = change_channels(needs, {**channels, name: count})
        return count_excess(tried, chip) == 0

    for name in sorted(channels, key=lambda name: channels[name] / groups[name]):
        channels[name] = _find_most(partial(fits, name), groups[name])
    return channels


def _find_most(holds: Callable[[int], bool], most: int) -> int:
    """The largest count of 1 to `most` that holds, where all smaller ones do; 1 at least."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def plan_density(needs: Needs, chip: Chip) -> float | None:
    """The largest share of the weights that a sparse chip has room for, 1 where it is all.

    The same share of each layer; fan-in is left out, which is a limit of each neuron. None where
    no share makes it fit, as where there are too many neurons.
    """

    def fits(parts: int) -> bool:
        thin = thin_out(needs, parts / DENSITIES)
        totals = measure_totals(thin, chip)
        over = any(limit is not None and need > limit for _, need, limit in totals)
        return not over and not place(thin, chip).left

    if not chip.sparse or not fits(1):
        return 1.0 if fits(DENSITIES) else None
    return 1.0 if fits(DENSITIES) else _find_most(fits, DENSITIES) / DENSITIES


DENSITIES = 10_000
