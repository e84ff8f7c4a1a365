"""From a network that is run to what it needs of a chip: shapes, pools, neurons, integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from snnprune.chips.needs import LayerNeeds, LayerNeuron, Pool
from snnprune.data.batches import copy_batch
from snnprune.graph.calls import LayerCall, name_of
from snnprune.graph.hooks import observe
from snnprune.graph.network import (
    Layer,
    Link,
    Network,
    Neuron,
    compute_norm_gain,
    find_bias_key,
)
from snnprune.graph.state import use_eval_mode
from snnprune.measure.workload import count_operations
from snnprune.pruning.structure.channels import ChannelGroup, find_channel_groups

MOST_BITS = 9
"""More than any chip has here: what is no integer of so many bits counts as a float."""
TOLERANCE = 1e-3
"""Of a step of the grid. float32 leaves a whole multiple k off by some k 2^-22; a float that is on
no grid is within it by a chance of 0.2 % for each weight."""


@dataclass(frozen=True, kw_only=True)
class SeenCall:
    """The first call of a layer in a pass."""

    call: LayerCall
    size: tuple[int, ...]
    """Sides of what it gave."""
    pools: tuple[Pool, ...]
    others: tuple[str, ...]
    """Functions that stand between it and the layers before, which no chip here has."""


OTHERS = {
    "layer_norm": "a LayerNorm",
    "group_norm": "a GroupNorm",
    "instance_norm": "an InstanceNorm",
    "softmax": "a softmax",
    "scaled_dot_product_attention": "attention",
    "multi_head_attention_forward": "attention",
    "embedding": "an embedding",
    "interpolate": "an interpolation",
    "lstm": "an LSTM",
    "gru": "a GRU",
}


class _PoolWatcher(TorchFunctionMode):
    """Keeps the pools that are called, until the next layer asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.pools: list[Pool] = []
        self.others: list[str] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],  # the signature is torch's
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        name = name_of(function)
        if "_pool" in name and (pool := _read_pool(name, args, kwargs or {}, result)):
            self.pools.append(pool)
        elif name in OTHERS and OTHERS[name] not in self.others:
            self.others.append(OTHERS[name])
        return result

    def take(self) -> tuple[tuple[Pool, ...], tuple[str, ...]]:
        """What was called since this was asked last."""
        found = tuple(self.pools), tuple(self.others)
        self.pools, self.others = [], []
        return found


def _read_pool(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
) -> Pool | None:
    """What a call pools; an adaptive pool by the sides of what enters and leaves."""
    made = result[0] if isinstance(result, tuple) else result
    x = args[0] if args else kwargs.get("input")
    space = int(name[-2]) if name[-2:-1].isdigit() else 0
    if not isinstance(x, Tensor) or not isinstance(made, Tensor) or not space:
        return None
    kind = "max" if "max" in name else "average" if "avg" in name else name
    if name.startswith("adaptive"):
        pairs = zip(x.shape[-space:], made.shape[-space:], strict=True)
        sides = tuple(math.ceil(before / after) for before, after in pairs)
        return Pool(kind=kind, sides=sides, strides=sides)
    sides = _repeat(args[1] if len(args) > 1 else kwargs["kernel_size"], space)
    stride = args[2] if len(args) > 2 else kwargs.get("stride")
    return Pool(kind=kind, sides=sides, strides=_repeat(stride, space) if stride else sides)


def _repeat(value: Any, times: int) -> tuple[int, ...]:
    found = tuple(int(one) for one in value) if isinstance(value, Sequence) else (int(value),)
    return found * times if len(found) == 1 else found


@dataclass
class _Seen:
    """Takes in the first call of each layer."""

    watcher: _PoolWatcher
    calls: dict[str, SeenCall] = field(default_factory=dict)
    waiting: dict[str, LayerCall] = field(default_factory=dict)

    def on_layer(self, key: str, call: LayerCall) -> None:
        """Before a layer is run."""
        if key not in self.calls:
            self.waiting[key] = call

    def on_current(self, key: str, current: Tensor) -> None:
        """With what it gave."""
        pools, others = self.watcher.take()
        call = self.waiting.pop(key, None)
        if call is None:
            return
        arranged = call.arranged(current)
        size = tuple(arranged.shape[arranged.dim() - call.space :]) if call.space else ()
        self.calls[key] = SeenCall(call=call, size=size, pools=pools, others=others)


@torch.no_grad()
def observe_calls(network: Network, x: Any) -> dict[str, SeenCall]:
    """The first call of each layer that a batch `x` comes to, by weight key, in their order."""
    watcher = _PoolWatcher()
    seen = _Seen(watcher)
    watched = observe(network, on_layer=seen.on_layer, on_current=seen.on_current)
    with use_eval_mode(network.module), watched as start:
        start()
        with watcher:
            network.run(copy_batch(x))
    return seen.calls


@torch.no_grad()
def measure_needs(network: Network, x: Any) -> tuple[LayerNeeds, ...]:
    """What each layer that a batch `x` comes to needs of a chip, in the order of the run.

    BatchNorm is taken as folded into the layer before it: its factors change the grid of integers,
    its shift makes a bias.
    """
    calls = observe_calls(network, x)
    groups = find_channel_groups(network).groups
    layers = {key: network.layers[key] for key in calls}
    return tuple(_LayerReader(network, layers, calls, groups, key).read() for key in layers)


@dataclass(frozen=True)
class _LayerReader:
    """Reads one layer."""

    network: Network
    layers: Mapping[str, Layer]
    calls: Mapping[str, SeenCall]
    groups: Sequence[ChannelGroup]
    key: str

    @property
    def layer(self) -> Layer:
        return self.layers[self.key]

    @property
    def seen(self) -> SeenCall:
        return self.calls[self.key]

    def read(self) -> LayerNeeds:
        """All of it."""
        layer, call, network = self.layer, self.seen.call, self.network
        weight = layer.weight_of(network.module.get_parameter(self.key)).detach()
        alive = weight != 0
        sources = self.find_sources()
        inputs, kernel = self._read_inputs(weight)
        linked = [network.neurons[name] for name in self._list_neurons()]
        grid = weight.flatten(1) * compute_norm_gain(network, self.key).unsqueeze(1)
        bits = find_bits(grid)
        return LayerNeeds(
            layer=self.key,
            kind=layer.kind,
            inputs=inputs,
            outputs=weight.shape[0],
            kernel=kernel,
            input_size=_get_sides(call),
            size=self.seen.size,
            groups=layer.groups,
            **_read_geometry(call),
            bias=self._has_bias(),
            alive=int(alive.sum()),
            connections=_count_connections(call, alive),
            fan_in=int(alive.flatten(1).sum(1).max()),
            bits=bits,
            channel_bits=bits or find_channel_bits(weight.flatten(1)),
            neurons=tuple(map(_describe_neuron, linked)),
            pools=self.seen.pools,
            sources=sources,
            beside=self._list_beside(),
            obstacles=tuple(self._list_obstacles()),
            group=self._find_group(),
            reads=self._find_read_group(inputs),
            whole_inputs=bool((call.input == call.input.round()).all()),
        )

    def find_sources(self) -> tuple[str, ...]:
        """Layers whose neurons' spikes enter it."""
        return self._list_drivers(self.layer.sources)

    def _list_drivers(self, neurons: Iterable[str]) -> tuple[str, ...]:
        """The layers that drive some neurons."""
        names = {*neurons}
        return tuple(
            key
            for key, layer in self.layers.items()
            if names & {link.neuron for link in layer.links}
        )

    def _list_neurons(self) -> list[str]:
        return list(dict.fromkeys(link.neuron for link in self.layer.links))

    def _list_beside(self) -> tuple[str, ...]:
        """Layers whose currents, or spikes past every layer, reach the neurons of this one."""
        found = [self.network.neurons[name] for name in self._list_neurons()]
        past = self._list_drivers(name for one in found for name in one.identities)
        feeders = {*past, *(key for one in found for key in one.feeders)}
        return tuple(key for key in self.layers if key in feeders and key != self.key)

    def _read_inputs(self, weight: Tensor) -> tuple[int, tuple[int, ...]]:
        """Channels that enter, and the kernel; places that were flattened are a kernel."""
        layer = self.layer
        channels = weight.shape[1] * layer.groups
        if layer.kind != "linear":
            return channels, tuple(weight.shape[2:])
        before = [self.layers[key] for key in self.find_sources()]
        made = {one.shape[0] for one in before}
        if len(made) != 1 or channels % min(made) or layer.side_by_side:
            return channels, ()
        width = made.pop()
        sizes = [self.calls[key].size for key in self.find_sources()]
        return width, _guess_sides(channels // width, sizes[0])

    def _has_bias(self) -> bool:
        own = find_bias_key(self.network, self.key)
        held = own is not None and bool(self.network.module.get_parameter(own).any())
        return held or self.layer.normalised

    def _list_obstacles(self) -> list[str]:
        links = self.layer.links
        told = [f"{what} before it, which the chip has not" for what in self.seen.others]
        told += [f"{link.obstacle} between it and its neuron" for link in links if link.obstacle]
        told += [
            f"{name} between it and its neuron" for link in links for name in _list_pools(link)
        ]
        if any(len(link.norms) > 1 for link in links):
            told.append("each time step has a BatchNorm of its own, which no weight holds")
        if any(norm.eps is None for link in links for chain in link.norms for norm in chain):
            told.append("its normalisation is written by hand, and nothing folds it")
        return list(dict.fromkeys(told))

    def _find_group(self) -> str | None:
        return next((g.layers[0] for g in self.groups if self.key in g.layers), None)

    def _find_read_group(self, inputs: int) -> str | None:
        reading = (g for g in self.groups if self.key in g.readers and g.channels == inputs)
        return next((g.layers[0] for g in reading), None)


def _list_pools(link: Link) -> list[str]:
    return [name for name in link.through if "pool" in name]


def _get_sides(call: LayerCall) -> tuple[int, ...]:
    return tuple(call.input.shape[call.input.dim() - call.space :]) if call.space else ()


def _guess_sides(places: int, size: tuple[int, ...]) -> tuple[int, ...]:
    """Sides of so many places that were flattened, of the form of `size` before any pool."""
    if places == 1:
        return ()
    shrunk = (places / math.prod(size)) ** (1 / len(size)) if size else 1.0
    sides = tuple(max(1, round(side * shrunk)) for side in size)
    return sides if math.prod(sides) == places else (places,)


def _read_geometry(call: LayerCall) -> dict[str, tuple[int, ...]]:
    """Stride, padding and dilation, as far as the call tells them in numbers."""
    if not call.space:
        return {}
    found = {}
    for name in ("stride", "padding", "dilation"):
        value = call.geometry.get(name, 0 if name == "padding" else 1)
        found[name] = _read_same(call) if isinstance(value, str) else _repeat(value, call.space)
    return found


def _read_same(call: LayerCall) -> tuple[int, ...]:
    """The padding of a convolution that says `same`; `valid` has none."""
    if call.geometry.get("padding") == "valid":
        return (0,) * call.space
    return tuple(side // 2 for side in call.weight.shape[2:])


def _count_connections(call: LayerCall, alive: Tensor) -> int:
    """Synapses, each weight at each place that it is used at."""
    if call.kind == "linear":
        return int(alive.sum())
    ones = torch.ones(1, *call.input.shape[-1 - call.space :], device=alive.device)
    return count_operations(call, ones, alive)


def _describe_neuron(neuron: Neuron) -> LayerNeuron:
    known, name = neuron.constants, type(neuron.module).__name__
    odd = known.beta is None or neuron.gated or name.startswith(ADAPTIVE)
    kind = f"{name} neurons" if odd else "if" if known.beta == 1 else "lif"
    resets = {True: "subtract", False: "zero", None: None}
    return LayerNeuron(
        name=neuron.name,
        kind=kind,
        decay=None if known.beta is None else float(known.beta),
        reset=resets[known.subtracts],
    )


ADAPTIVE = ("ALIF", "Adaptive", "GatedLIF", "LSNN", "LIFAdEx")
"""Their membrane keeps a share of itself, and more goes on beside."""


def find_bits(rows: Tensor) -> int | None:
    """The fewest bits that rows (out, d) are integers of with one scale; None beyond `MOST_BITS`.

    The largest |w| has to be a whole number of steps k, so each k is tried.
    """
    values = rows.abs().flatten().double()
    values = values[values > 0].unique()
    return _find_levels(values)


def find_channel_bits(rows: Tensor) -> int | None:
    """The same with a scale for each row."""
    found = [find_bits(row) for row in rows]
    if any(bits is None for bits in found):
        return None
    return max((bits for bits in found if bits is not None), default=None)


def _find_levels(values: Tensor) -> int | None:
    """The fewest bits of positive `values` that are multiples of one step."""
    if not len(values):
        return 2
    top = values[-1]
    some = values if len(values) <= SAMPLE else values[:: len(values) // SAMPLE]
    for steps in range(1, 2 ** (MOST_BITS - 1)):
        if _is_whole(some, top / steps) and _is_whole(values, top / steps):
            return max(2, steps.bit_length() + 1)
    return None


SAMPLE = 1000


def _is_whole(values: Tensor, step: Tensor) -> bool:
    counts = values / step
    return bool(((counts - counts.round()).abs() < TOLERANCE).all())
