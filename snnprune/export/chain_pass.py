"""What a network does on a batch, as calls of layers, BatchNorms, pools and neurons in their order.

Nothing is read off names of classes. One round of the calls becomes stages of a chain, with each
BatchNorm folded into the layer before it.
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
from snnprune.export.chain import ChainError, Pair, Pool, Weights
from snnprune.graph.calls import LayerCall, name_of
from snnprune.graph.hooks import observe
from snnprune.graph.network import LayerKind, Network, find_bias_key
from snnprune.graph.state import replace_tensors, use_eval_mode

LOUD = 8.0
"""What weights are multiplied by in a second pass, in which neurons fire that are quiet else."""


@dataclass(frozen=True, kw_only=True)
class NormCalled:
    """One `batch_norm` call."""

    mean: Tensor
    variance: Tensor
    scale: Tensor | None
    shift: Tensor | None
    eps: float


@dataclass(frozen=True, kw_only=True)
class LayerCalled:
    key: str
    kind: LayerKind
    weight: Tensor
    bias: Tensor | None
    groups: int
    geometry: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class NeuronFired:
    name: str


Event = LayerCalled | NeuronFired | NormCalled | Pool


@dataclass
class ChainPass:
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


class _CallRecorder(TorchFunctionMode):
    """Keeps the calls that normalise and pool, in their order among those of layers and neurons."""

    watches_neurons = False

    def __init__(self, seen: ChainPass) -> None:
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
) -> NormCalled:
    if training or running_mean is None or running_var is None:
        raise ChainError("a BatchNorm takes the batch's own statistics")
    kept = [
        None if one is None else one.detach().double().cpu()
        for one in (running_mean, running_var, weight, bias)
    ]
    mean, variance, scale, shift = kept
    assert mean is not None
    assert variance is not None
    return NormCalled(mean=mean, variance=variance, scale=scale, shift=shift, eps=eps)


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
def record_pass(network: Network, x: Any, times: int = 1) -> ChainPass:
    """What is seen of `times` calls on the same batch, from rest before the first."""
    seen = ChainPass()
    first = next(iter(network.layers))
    driving = {key for key, layer in network.layers.items() if layer.links}
    own = dict(network.module.named_parameters(remove_duplicate=False))
    biases = {key: own.get(find_bias_key(network, key) or "") for key in network.layers}

    def on_layer(key: str, call: LayerCall) -> None:
        seen.events.append(
            LayerCalled(
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
        seen.events.append(NeuronFired(name=name))
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
        _CallRecorder(seen),
    ):
        start()
        for _ in range(times):
            network.run(copy_batch(x))  # it may work in place
    return seen


def record_loud_pass(network: Network, x: Any, times: int) -> ChainPass:
    own = network.module.state_dict()
    keys = [key for layer in network.layers for key in (layer, find_bias_key(network, layer))]
    with replace_tensors(network.module, {key: own[key] * LOUD for key in keys if key}):
        return record_pass(network, x, times)


def fold_round(events: Sequence[Event]) -> list[Weights | Pool | NeuronFired]:
    """The stages of one round, each BatchNorm in the layer before it."""
    found: list[Weights | Pool | NeuronFired] = []
    for event in _iter_round(events):
        if isinstance(event, LayerCalled):
            layers = [one for one in found if isinstance(one, Weights)]
            if layers and not any(isinstance(one, NeuronFired) for one in _since(found, layers)):
                raise ChainError(
                    f"no neuron stands between it and {layers[-1].key}", where=event.key
                )
            found.append(_make_weights(event))
        elif isinstance(event, NormCalled):
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
        if isinstance(event, NormCalled | Pool):
            pending.append(event)
            continue
        name = event.key if isinstance(event, LayerCalled) else event.name
        if name not in met:
            yield from pending if met else ()
            yield event
        met.add(name)
        pending = []


def _make_weights(called: LayerCalled) -> Weights:
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


def _fold_norm(found: list[Weights | Pool | NeuronFired], norm: NormCalled) -> None:
    """Put a BatchNorm into the layer before it, in float64.

    Raises:
        ChainError: it stands before a layer, or a pool between them does not change places with it.
    """
    where = max((i for i, one in enumerate(found) if isinstance(one, Weights)), default=None)
    if where is None or any(isinstance(one, NeuronFired) for one in found[where:]):
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
