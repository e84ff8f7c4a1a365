"""A network as a chain of layers and neurons, for programs that know no more than that.

What a network does between its weights and neurons is seen in a pass over a batch; what its neurons
do is fitted to their membranes. The chain is then held against that pass, stage by stage: from the
spikes before it each membrane has to follow. Nothing is read off names of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from snnprune.data.batches import copy_batch
from snnprune.errors import InputError, format_names
from snnprune.export import ChainCheck
from snnprune.export.exporters import RecordedNetwork
from snnprune.graph.calls import LayerCall, name_of
from snnprune.graph.hooks import observe
from snnprune.graph.libraries import NeuronConstants
from snnprune.graph.network import Layer, LayerKind, Network, find_bias_key
from snnprune.graph.state import replace_tensors, use_eval_mode

Pair = tuple[int, int]
Reset = Literal["to", "by", "skip"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """A layer with its BatchNorm in it: y = weight * x + bias."""

    key: str
    weight: Tensor
    """(out, in) of a linear layer, (out, in / groups, height, width) of a convolution; float32."""
    bias: Tensor
    """(out,) float32."""
    factor: Tensor
    """(out,) float64: what BatchNorm multiplies each row by; 1 where there is none."""
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def is_linear(self) -> bool:
        """Whether it is no convolution."""
        return self.weight.dim() == 2

    def apply(self, x: Tensor) -> Tensor:
        """Currents (N, out, ...) of inputs (N, ...); a linear layer flattens them."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if self.is_linear:
            return functional.linear(x.flatten(1), weight, bias)
        return functional.conv2d(
            x, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The largest, the mean or the sum of each window; what it is padded with counts in a mean."""

    how: Literal["max", "avg", "sum"]
    size: Pair
    stride: Pair
    padding: Pair

    def apply(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W')."""
        if self.how == "max":
            return functional.max_pool2d(x, self.size, self.stride, self.padding)
        divisor = 1 if self.how == "sum" else None
        return functional.avg_pool2d(
            x, self.size, self.stride, self.padding, divisor_override=divisor
        )


@dataclass(frozen=True, kw_only=True)
class Spiking:
    """Neurons; potentials are counted from rest, time in steps.

    u[t] = h[t-1] + gain x[t], s[t] = 1 where u[t] >= threshold (> where not `inclusive`), and h
    after a spike is `amount` (reset "to"), beta u - s amount ("by"), or u[t+1] is `amount` whatever
    enters ("skip"); else h = beta u. `several`: s = floor(u / threshold) spikes at once.
    """

    name: str
    beta: float
    gain: float
    threshold: float
    inclusive: bool
    reset: Reset
    amount: float
    several: bool = False

    def fire(self, u: Tensor) -> Tensor:
        """The number of spikes, in the type of `u`."""
        above = u >= self.threshold if self.inclusive else u > self.threshold
        return (u / self.threshold).floor() * above if self.several else above.to(u.dtype)

    def carry(self, u: Tensor, spikes: Tensor) -> Tensor:
        """What is left for the next step, before its input."""
        left = self.beta * u
        if self.reset == "by":
            return left - self.amount * spikes
        return torch.where(spikes > 0, torch.full_like(u, self.amount), left)

    def apply(self, x: Tensor) -> Tensor:
        """Spikes (T, ...) of currents (T, ...), from rest."""
        carried, held, steps = torch.zeros_like(x[0]), torch.zeros_like(x[0], dtype=torch.bool), []
        for now in x:
            u = torch.where(held, carried, carried + self.gain * now)
            steps.append(self.fire(u))
            carried = self.carry(u, steps[-1])
            held = (steps[-1] > 0) if self.reset == "skip" else held
        return torch.stack(steps)

    def follow(self, x: Tensor, u: Tensor) -> Tensor:
        """The membranes (T, ...) that follow from currents and, step by step, from those of `u`."""
        spikes = self.fire(u[:-1])
        carried = self.carry(u[:-1], spikes)
        driven = carried + self.gain * x[1:]
        if self.reset == "skip":
            driven = torch.where(spikes > 0, carried, driven)
        return torch.cat([self.gain * x[:1], driven])


Stage = Weights | Pool | Spiking


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Stages in the order in which data meets them, first and last of all a layer or neurons."""

    stages: tuple[Stage, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Of one sample: what enters the first stage, and what each puts out."""

    def run(self, x: Tensor) -> dict[int, Tensor]:
        """What each stage puts out, (T, N, ...), for what enters the first, from rest."""
        found = {}
        for index, stage in enumerate(self.stages):
            found[index] = x = apply_stage(stage, x)
        return found

    @property
    def layers(self) -> tuple[Weights, ...]:
        """Those that have weights."""
        return tuple(stage for stage in self.stages if isinstance(stage, Weights))

    @property
    def neurons(self) -> tuple[Spiking, ...]:
        """Those that spike."""
        return tuple(stage for stage in self.stages if isinstance(stage, Spiking))


def apply_stage(stage: Stage, x: Tensor) -> Tensor:
    """What a stage makes of (T, N, ...)."""
    if isinstance(stage, Spiking):
        return stage.apply(x)
    return stage.apply(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@dataclass(frozen=True, kw_only=True)
class ExtractedChain:
    """A chain, and the pass that it was held against."""

    chain: Chain
    check: ChainCheck
    inputs: Tensor
    """(T, N, ...), what enters the first layer."""
    spikes: tuple[Tensor, ...]
    """(T, N, ...) of each of the network's neurons."""


class ChainError(InputError):
    """The network is no chain, or one of parts that are not known."""

    def __init__(self, message: str, *, where: str | None = None) -> None:
        """`where` is a layer, a neuron or a module."""
        super().__init__(
            f"{where}: {message}" if where else message,
            hint="only a chain of layers, BatchNorm, pools and integrate-and-fire neurons can be "
            "written so",
        )


@dataclass(frozen=True, kw_only=True)
class _Norm:
    """One `batch_norm` call."""

    mean: Tensor
    variance: Tensor
    scale: Tensor | None
    shift: Tensor | None
    eps: float


@dataclass(frozen=True, kw_only=True)
class _LayerCalled:
    key: str
    kind: LayerKind
    weight: Tensor
    bias: Tensor | None
    groups: int
    geometry: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _NeuronFired:
    name: str


Event = _LayerCalled | _NeuronFired | _Norm | Pool


@dataclass
class _Pass:
    """What was seen on one batch."""

    events: list[Event] = field(default_factory=list)
    entered: list[Tensor] = field(default_factory=list)
    """Of the first layer, each call's (..., in, *space)."""
    distances: dict[str, list[Tensor]] = field(default_factory=dict)
    """u - u_th of each neuron, (steps, N, ...)."""
    put_out: dict[str, list[Tensor]] = field(default_factory=dict)
    """What each neuron put out."""
    currents: dict[str, list[Tensor]] = field(default_factory=dict)
    """What each layer that drives no neuron gave."""

    def count_steps(self) -> int:
        """Of the neurons; the first ones tell."""
        return sum(map(len, next(iter(self.distances.values()), [])))


class _Recorder(TorchFunctionMode):
    """Keeps the calls that normalise and pool, in their order among those of layers and neurons."""

    watches_neurons = False

    def __init__(self, seen: _Pass) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.batch_norm:
            self.seen.events.append(_read_norm(*args, **kwargs))
        elif (read := POOLS.get(name_of(function))) is not None:
            self.seen.events.append(read(*args, **kwargs))
        return function(*args, **kwargs)


def _read_norm(
    input: Tensor,  # noqa: ARG001  # the signature is that of torch
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001  # likewise
    eps: float = 1e-5,
) -> _Norm:
    if training or running_mean is None or running_var is None:
        raise ChainError("a BatchNorm takes the batch's own statistics")
    kept = [
        None if one is None else one.detach().double().cpu()
        for one in (running_mean, running_var, weight, bias)
    ]
    mean, variance, scale, shift = kept
    assert mean is not None
    assert variance is not None
    return _Norm(mean=mean, variance=variance, scale=scale, shift=shift, eps=eps)


def _pair(value: Any) -> Pair:
    values = (value, value) if isinstance(value, int) else tuple(int(one) for one in value)
    if len(values) == 1:
        values *= 2
    return values[0], values[1]


def _read_max_pool(
    input: Tensor,  # noqa: ARG001
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pool:
    if _pair(dilation) != (1, 1) or ceil_mode or return_indices:
        raise ChainError("a pool with dilation, indices or ceil_mode")
    return Pool(
        how="max",
        size=_pair(kernel_size),
        stride=_pair(stride or kernel_size),
        padding=_pair(padding),
    )


def _read_avg_pool(
    input: Tensor,  # noqa: ARG001
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Pool:
    padded = _pair(padding) != (0, 0) and not count_include_pad
    if ceil_mode or divisor_override is not None or padded:
        raise ChainError("a mean pool with ceil_mode, or that leaves its padding out")
    return Pool(
        how="avg",
        size=_pair(kernel_size),
        stride=_pair(stride or kernel_size),
        padding=_pair(padding),
    )


def _read_sum_pool(
    input: Tensor,  # noqa: ARG001
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> Pool:
    """What sinabs has for a sum: of spikes, which are not negative, the norm is one."""
    if norm_type != 1 or ceil_mode:
        raise ChainError("a pool by a norm that is no sum")
    size = _pair(kernel_size)
    return Pool(how="sum", size=size, stride=_pair(stride or kernel_size), padding=(0, 0))


def _read_adaptive(
    input: Tensor,
    output_size: Any,
    return_indices: bool = False,  # noqa: ARG001
    *,
    how: Literal["max", "avg"],
) -> Pool:
    wide = input.shape[-2:]
    into = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    into = tuple(have if want is None else want for have, want in zip(wide, into, strict=True))
    if any(have % want for have, want in zip(wide, into, strict=True)):
        raise ChainError("an adaptive pool of windows of several sizes")
    size = (wide[0] // into[0], wide[1] // into[1])
    return Pool(how=how, size=size, stride=size, padding=(0, 0))


POOLS: dict[str, Callable[..., Pool]] = {
    "max_pool2d": _read_max_pool,
    "avg_pool2d": _read_avg_pool,
    "lp_pool2d": _read_sum_pool,
    "adaptive_avg_pool2d": lambda *args, **kwargs: _read_adaptive(*args, how="avg", **kwargs),
    "adaptive_max_pool2d": lambda *args, **kwargs: _read_adaptive(*args, how="max", **kwargs),
}


@torch.no_grad()
def _watch(network: Network, x: Any, times: int = 1) -> _Pass:
    """What is seen of `times` calls on the same batch, from rest before the first."""
    seen = _Pass()
    first = next(iter(network.layers))
    driving = {key for key, layer in network.layers.items() if layer.links}
    own = dict(network.module.named_parameters(remove_duplicate=False))
    biases = {key: own.get(find_bias_key(network, key) or "") for key in network.layers}

    def on_layer(key: str, call: LayerCall) -> None:
        seen.events.append(
            _LayerCalled(
                key=key,
                kind=call.kind,
                weight=call.weight.detach().clone(),
                bias=None if (bias := biases[key]) is None else bias.detach().clone(),
                groups=call.groups,
                geometry=call.geometry,
            )
        )
        if key == first:
            seen.entered.append(call.input.detach().clone())

    def on_current(key: str, current: Tensor) -> None:
        if key not in driving:
            seen.currents.setdefault(key, []).append(current.detach().clone())

    def on_membrane(name: str, distance: Tensor) -> None:
        seen.distances.setdefault(name, []).append(distance.detach().clone())

    def on_spikes(name: str, spikes: Tensor) -> None:
        seen.events.append(_NeuronFired(name=name))
        seen.put_out.setdefault(name, []).append(spikes.detach().clone())

    with (
        use_eval_mode(network.module),
        observe(
            network,
            on_layer=on_layer,
            on_current=on_current,
            on_membrane=on_membrane,
            on_spikes=on_spikes,
        ) as start,
        _Recorder(seen),
    ):
        start()
        for _ in range(times):
            network.run(copy_batch(x))  # it may work in place
    return seen


TIMES = 6  # a network that goes one step a call is called so often
LOUD = 8.0
"""What weights are multiplied by in a second pass, in which neurons fire that are quiet else."""
NEAR = 1e-4  # of the largest membrane: what float32 may do to a sum of many
MOST_OTHERS = 0.01  # of the spikes, that may come otherwise when the chain runs by itself


@torch.no_grad()
def extract_chain(seen: RecordedNetwork) -> ExtractedChain:
    """The chain that does on the batch of `seen` what its network does.

    Raises:
        InputError: there is no data.
        ChainError: the network is none, or no chain of known parts comes to the same membranes.
    """
    if seen.blank:
        raise InputError("nothing to hold the chain against", field="--data", hint="give --data")
    network, x = seen.network, seen.fed
    _require_chain(network)
    first = _watch(network, x)
    times = 1 if first.count_steps() > 1 else TIMES
    passes = (_watch(network, x, times), _watch_loud(network, x, times))
    walk = _Walk(network, passes)
    for plan in zip(*(_fold(one.events) for one in passes), strict=True):
        walk.take(*plan)
    chain = Chain(stages=tuple(walk.stages), shapes=tuple(walk.shapes))
    return _check_alone(chain, walk)


def _check_alone(chain: Chain, walk: _Walk) -> ExtractedChain:
    """Run by itself: a spike that rounding decides otherwise may bring others about."""
    found = chain.run(walk.entered)
    alone = [found[i] for i, stage in enumerate(chain.stages) if isinstance(stage, Spiking)]
    pairs = list(zip(alone, walk.spikes, strict=True))
    others = sum(int((one - other).abs().sum()) for one, other in pairs)
    spikes = sum(int(one.sum()) for one in walk.spikes)
    if others > MOST_OTHERS * max(spikes, 1):
        raise ChainError(
            f"run by itself it puts out {others:,} spikes otherwise than the network's {spikes:,}"
        )
    steps, samples = walk.entered.shape[:2]
    check = ChainCheck(
        samples=samples,
        time_steps=steps,
        folded=sum(bool((layer.factor != 1).any()) for layer in chain.layers),
        deviation=walk.deviation,
        spikes=spikes,
        other_spikes=others,
    )
    return ExtractedChain(chain=chain, check=check, inputs=walk.entered, spikes=tuple(walk.spikes))


def _require_chain(network: Network) -> None:
    for key in network.made:
        raise ChainError("is made of other parameters as a whole", where=key)
    for layer in network.layers.values():
        _require_plain_link(layer)
    for name, neuron in network.neurons.items():
        if len(neuron.feeders) != 1 or neuron.identities:
            driven = format_names([*neuron.feeders, *neuron.identities])
            raise ChainError(f"is driven by several ({driven}), as in a residual block", where=name)
        if neuron.gated:
            raise ChainError("something else decides with it whether it spikes", where=name)


def _require_plain_link(layer: Layer) -> None:
    if layer.kind not in ("linear", "conv2d") or layer.unseen:
        raise ChainError(layer.unseen or f"is a {layer.kind}", where=layer.weight)
    if len(layer.links) > 1 or layer.side_by_side or len(layer.sources) > 1:
        raise ChainError("has several ways in or out", where=layer.weight)
    for link in layer.links:
        if len(link.norms) > 1:
            raise ChainError("each time step has a BatchNorm of its own", where=layer.weight)
        if link.obstacle or link.gains:
            between = link.obstacle or "a factor"
            raise ChainError(f"{between} stands before {link.neuron}", where=layer.weight)


def _watch_loud(network: Network, x: Any, times: int) -> _Pass:
    own = network.module.state_dict()
    keys = [key for layer in network.layers for key in (layer, find_bias_key(network, layer))]
    with replace_tensors(network.module, {key: own[key] * LOUD for key in keys if key}):
        return _watch(network, x, times)


def _fold(events: Sequence[Event]) -> list[Weights | Pool | _NeuronFired]:
    """The stages of one round, each BatchNorm in the layer before it."""
    found: list[Weights | Pool | _NeuronFired] = []
    for event in _iter_round(events):
        if isinstance(event, _LayerCalled):
            layers = [one for one in found if isinstance(one, Weights)]
            if layers and not any(isinstance(one, _NeuronFired) for one in _since(found, layers)):
                raise ChainError(
                    f"no neuron stands between it and {layers[-1].key}", where=event.key
                )
            found.append(_make_weights(event))
        elif isinstance(event, _Norm):
            _fold_norm(found, event)
        else:
            found.append(event)
    return found


def _since(found: Sequence[Any], layers: Sequence[Any]) -> Sequence[Any]:
    return found[found.index(layers[-1]) :]


def _iter_round(events: Sequence[Event]) -> Iterator[Event]:
    """What happens before each layer and neuron when it is first met, and that.

    A network goes through them once for each time step, or a neuron by itself. What is done before
    the first layer is not a part of it.
    """
    pending, met = list[Event](), set[str]()
    for event in events:
        if isinstance(event, _Norm | Pool):
            pending.append(event)
            continue
        name = event.key if isinstance(event, _LayerCalled) else event.name
        if name not in met:
            yield from pending if met else ()
            yield event
        met.add(name)
        pending = []


def _make_weights(called: _LayerCalled) -> Weights:
    weight = called.weight.float().cpu()
    bias = torch.zeros(len(weight)) if called.bias is None else called.bias.float().cpu()
    one = Weights(
        key=called.key,
        weight=weight,
        bias=bias,
        factor=torch.ones(len(weight), dtype=torch.float64),
        groups=called.groups,
    )
    if called.kind == "linear":
        if called.groups > 1:
            raise ChainError("is a product in groups", where=called.key)
        return one
    stride, dilation = (_pair(called.geometry.get(name, 1)) for name in ("stride", "dilation"))
    padding = called.geometry.get("padding", 0)
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if padding == "same" and any(span % 2 for span in spans):
            raise ChainError("is padded more on one side", where=called.key)
        padding = [span // 2 for span in spans] if padding == "same" else 0
    return replace(one, stride=stride, dilation=dilation, padding=_pair(padding))


def _fold_norm(found: list[Weights | Pool | _NeuronFired], norm: _Norm) -> None:
    """Put a BatchNorm into the layer before it, in float64.

    Raises:
        ChainError: it stands before a layer, or a pool between them does not change places with it.
    """
    where = max((i for i, one in enumerate(found) if isinstance(one, Weights)), default=None)
    if where is None or any(isinstance(one, _NeuronFired) for one in found[where:]):
        raise ChainError("a BatchNorm comes before a layer, not after one, and cannot be folded")
    layer = found[where]
    assert isinstance(layer, Weights)
    ones = torch.ones_like(norm.variance)
    factor = (ones if norm.scale is None else norm.scale) / (norm.variance + norm.eps).sqrt()
    for pool in found[where + 1 :]:
        assert isinstance(pool, Pool)
        if pool.padding != (0, 0) or (pool.how == "max" and bool((factor <= 0).any())):
            raise ChainError(
                "the pool before its BatchNorm does not let it be folded", where=layer.key
            )
    shift = torch.zeros_like(ones) if norm.shift is None else norm.shift
    rows = factor.view(-1, *[1] * (layer.weight.dim() - 1))
    found[where] = replace(
        layer,
        weight=(layer.weight.double() * rows).float(),
        bias=((layer.bias.double() - norm.mean) * factor + shift).float(),
        factor=layer.factor * factor,
    )


class _Walk:
    """Two passes side by side, from stage to stage: as the network is, and with loud weights."""

    def __init__(self, network: Network, passes: Sequence[_Pass]) -> None:
        self.network, self.passes = network, passes
        self.stages: list[Stage] = []
        self.spikes: list[Tensor] = []
        self.deviation = 0.0
        first = next(iter(network.neurons))
        self.steps, self.samples = torch.cat(passes[0].distances[first]).shape[:2]
        self.x = [
            self._align(one.entered, network.layers[next(iter(network.layers))]) for one in passes
        ]
        self.entered = self.x[0]
        self.shapes: list[tuple[int, ...]] = [tuple(self.entered.shape[2:])]

    def take(
        self, stage: Weights | Pool | _NeuronFired, loud: Weights | Pool | _NeuronFired
    ) -> None:
        """Go on over the next stage, which both passes have."""
        if isinstance(stage, _NeuronFired):
            self._take_neuron(stage.name)
        else:
            assert not isinstance(loud, _NeuronFired)
            self.stages.append(stage)
            try:
                self.x = [apply_stage(one, x) for one, x in zip((stage, loud), self.x, strict=True)]
            except RuntimeError as error:
                raise ChainError(
                    "what enters it has another shape than what comes before it puts out",
                    where=stage.key if isinstance(stage, Weights) else "a pool",
                ) from error
            if isinstance(stage, Weights) and stage.key in self.passes[0].currents:
                self._require_output(stage)
        self.shapes.append(tuple(self.x[0].shape[2:]))

    def _take_neuron(self, name: str) -> None:
        membranes = []
        for one, x in zip(self.passes, self.x, strict=True):
            distance = torch.cat(one.distances.get(name, [torch.empty(0)])).float().cpu()
            if distance.shape[:2] != x.shape[:2] or distance.numel() != x.numel():
                raise ChainError(
                    f"takes in {tuple(x.shape)} and has membranes {tuple(distance.shape)} "
                    "(steps, samples, ...)",
                    where=name,
                )
            membranes.append(distance.reshape(x.shape))
        put_out = [torch.cat([part.flatten() for part in one.put_out[name]]) for one in self.passes]
        constants = self.network.neurons[name].constants
        spiking = fit_neuron(
            name, constants, torch.cat(self.x, 1), torch.cat(membranes, 1), put_out
        )
        fired = []
        for x, distance, given in zip(self.x, membranes, put_out, strict=True):
            u = distance.double() + spiking.threshold  # or rounding moves some over it
            left = spiking.follow(x.double(), u) - u
            apart = float(left.abs().max() / u.abs().max().clamp(min=1e-9))
            if not apart <= NEAR:
                raise _not_followed_error(name, apart)
            self.deviation = max(self.deviation, apart)
            fired.append(spiking.fire(u).float())
            if float(fired[-1].sum()) != float(given.double().sum()):
                raise ChainError("puts out something else than its spikes", where=name)
        self.stages.append(spiking)
        self.spikes.append(fired[0])
        self.x = fired

    def _require_output(self, stage: Weights) -> None:
        layer = self.network.layers[stage.key]
        wanted = self._align(self.passes[0].currents[stage.key], layer)
        apart = float((wanted - self.x[0]).abs().max() / wanted.abs().max().clamp(min=1e-9))
        if not apart <= NEAR:
            raise _not_followed_error(stage.key, apart)
        self.deviation = max(self.deviation, apart)

    def _align(self, parts: Sequence[Tensor], layer: Layer) -> Tensor:
        """(T, N, ...) of what entered or left a layer, call by call."""
        steps, samples, own = self.steps, self.samples, len(layer.shape) - 1
        rows = torch.cat([part.flatten(0, part.dim() - 1 - own) for part in parts]).float().cpu()
        if len(rows) == samples:  # the same at every step, so once
            return rows.unsqueeze(0).expand(steps, *rows.shape)
        if len(rows) != steps * samples:
            raise ChainError(
                f"takes {len(rows)} inputs for {samples} samples of {steps} steps",
                where=layer.weight,
            )
        libraries = [neuron.library for neuron in self.network.neurons.values()]
        written = parts[0].shape[:2] == (samples, steps) and steps != samples
        if len(parts) == 1 and (written or any(one.batch_first for one in libraries)):
            return rows.unflatten(0, (samples, steps)).transpose(0, 1)
        return rows.unflatten(0, (steps, samples))


def _not_followed_error(name: str, apart: float) -> ChainError:
    return ChainError(
        f"is off by {apart:.1g} of the largest from what comes before it: something is done there "
        "that is no layer, BatchNorm or pool, or it is another neuron than integrate-and-fire",
        where=name,
    )


def fit_neuron(
    name: str,
    constants: NeuronConstants,
    x: Tensor,
    distance: Tensor,
    put_out: Sequence[Tensor],
) -> Spiking:
    """The neurons that make u - u_th (T, N, ...) of currents `x` (T, N, ...), from rest.

    Raises:
        ChainError: they have no one threshold or decay, or never fire.
    """
    if len(x) < 2:
        raise ChainError("runs for one time step, which does not tell what it keeps", where=name)
    x, distance = x.double(), distance.double()
    gain, threshold = _fit_first_step(constants, x[0], distance[0])
    u = distance + threshold
    spiking = Spiking(
        name=name,
        beta=0.0,
        gain=gain,
        threshold=threshold,
        inclusive=constants.fires_at_threshold,
        reset="to",
        amount=0.0,
        several=max(float(one.max()) for one in put_out) > 1,
    )
    spikes = spiking.fire(u[:-1])
    if not bool(spikes.any()):
        raise ChainError("never fires, so that its reset cannot be seen", where=name)
    quiet, before = spikes == 0, u[:-1]
    left = u[1:] - gain * x[1:]
    power = float((before[quiet] ** 2).sum())
    beta = float((before[quiet] * left[quiet]).sum()) / power if power else 0.0
    spiking = replace(spiking, beta=_snap(beta, constants.beta, 0.0, 1.0))
    return _fit_reset(spiking, spikes[~quiet], before[~quiet], left[~quiet], u[1:][~quiet])


def _fit_first_step(constants: NeuronConstants, x: Tensor, distance: Tensor) -> tuple[float, float]:
    """Gain and threshold, counted from rest: u - u_th = gain x - threshold."""
    centred = x - x.mean()
    power = float((centred**2).sum())
    known = 1 - constants.beta if constants.decay_input and constants.beta is not None else 1.0
    gain = _snap(float((centred * distance).sum()) / power if power else known, known, 1.0)
    given = torch.as_tensor(constants.threshold).flatten()
    threshold = float((gain * x - distance).median())
    return gain, _snap(threshold, float(given[0]), 1.0)


def _snap(value: float, *known: float | None) -> float:
    """The first of `known` that it is but for rounding, or itself."""
    near = (
        one for one in known if one is not None and abs(one - value) <= 1e-5 * max(abs(one), 1e-2)
    )
    return next(near, value)


def _fit_reset(
    spiking: Spiking, spikes: Tensor, before: Tensor, left: Tensor, after: Tensor
) -> Spiking:
    """With the reset that describes best what is left after `spikes` (n,) of `before`."""
    beta, threshold = spiking.beta, spiking.threshold
    lost = (beta * before - left) / spikes
    choices: tuple[tuple[Reset, Tensor, Tensor], ...] = (
        ("to", left, torch.ones_like(spikes)),
        ("by", lost, spikes),
        ("skip", after, torch.ones_like(spikes)),
    )
    found = []
    for reset, values, times in choices:
        amount = _snap(float(values.median()), 0.0, threshold, beta * threshold)
        found.append((float(((values - amount) * times).abs().max()), reset, amount))
    _, reset, amount = min(found, key=lambda one: one[0])
    return replace(spiking, reset=reset, amount=amount)
