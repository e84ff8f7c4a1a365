"""The tensors of a network without the channels that are gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from snnprune.errors import InputError
from snnprune.grams import bias_key
from snnprune.network import Network, Neuron
from snnprune.network.aliases import aliases
from snnprune.structure.channels import Removed, columns_of
from snnprune.structure.groups import Group

OF_NORMS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice:
    """What stays of a tensor along one of its dimensions."""

    key: str
    axis: int
    kept: Tensor
    """(length of that dimension,) bool."""


def slim(network: Network, tensors: Mapping[str, Tensor], removed: Removed) -> dict[str, Tensor]:
    """`tensors` of the whole network, cut down to the channels that are kept.

    They may be those of its state dict or in the form of these, as masks; what is not there needs
    no cut.

    Raises:
        InputError: a layer makes or reads the channels in a way that cannot be cut.
    """
    small = dict(tensors)
    for one in slices(network, removed):
        if one.key in small:
            places = one.kept.nonzero().flatten().to(small[one.key].device)
            small[one.key] = small[one.key].index_select(one.axis, places)
    return small


def slices(network: Network, removed: Removed) -> list[Slice]:
    """What must be cut of the tensors of a network, each dimension of each tensor once.

    Raises:
        InputError: see `slim`.
    """
    held, same = network.module.state_dict(), aliases(network.module)
    found: dict[tuple[str, int], tuple[Group, Slice]] = {}
    for group in removed.groups:
        for one in _of_group(network, group, removed.of(group), held):
            if held[one.key].shape[one.axis] != len(one.kept):
                raise InputError("has another number of channels", field=one.key)
            for name in same.get(one.key, (one.key,)):
                other, _ = found.setdefault((name, one.axis), (group, one))
                if other is not group:
                    raise InputError("several groups of channels meet in it", field=name)
                found[name, one.axis] = (group, Slice(key=name, axis=one.axis, kept=one.kept))
    return [one for _, one in found.values()]


def _of_group(
    network: Network, group: Group, kept: Tensor, held: Mapping[str, Tensor]
) -> Iterator[Slice]:
    for key in group.layers:
        _require_plain(network, key, held)
        yield Slice(key=key, axis=0, kept=kept)
    biases = (bias_key(network, key) for key in group.layers)
    norms = (v.removesuffix("running_var") + kind for v in group.norms for kind in OF_NORMS)
    for vector in (*filter(None, biases), *norms):
        if vector in held:
            yield Slice(key=vector, axis=0, kept=kept)
    for key in group.mixed:
        raise InputError("reads the channels beside others", field=key)
    for key in group.readers:
        _require_plain(network, key, held)
        columns = columns_of(kept, held[key])
        if columns is None:
            raise InputError("reads the channels in a way that cannot be cut", field=key)
        yield Slice(key=key, axis=1, kept=columns)
    for name in group.neurons:
        yield from _of_neuron(network, network.neurons[name], kept, held)


def _require_plain(network: Network, key: str, held: Mapping[str, Tensor]) -> None:
    layout = network.layers[key].layout
    if key not in held or not (layout is None or layout.is_plain):
        raise InputError("is not the weight as it is applied", field=key)


def _of_neuron(
    network: Network, neuron: Neuron, kept: Tensor, held: Mapping[str, Tensor]
) -> Iterator[Slice]:
    """Values of a neuron that it has by channel, as a learnt decay."""
    layers = [key.rpartition(".")[0] + "." for key in network.layers]
    for name, part in network.module.named_modules():
        if part is not neuron.module:
            continue
        prefix = f"{name}." if name else ""
        for key, value in held.items():
            own = key.startswith(prefix) and "." not in key[len(prefix) :]
            axis = axis_of(value, len(kept), neuron.axis)
            if own and axis is not None and prefix not in layers:
                yield Slice(key=key, axis=axis, kept=kept)


def axis_of(value: Tensor, channels: int, axis: int | None) -> int | None:
    """Which dimension of a neuron's values has its channels, from the front; None where none has.

    `axis` is that of its membrane, from the end. Values of one dimension may be laid along it by
    the neuron itself.
    """
    shape = tuple(value.shape)
    if channels == 1 or channels not in shape:
        return None
    if axis is not None and axis < 0 and -axis <= len(shape) and shape[axis] == channels:
        return axis + len(shape)
    alone = value.numel() == channels
    return shape.index(channels) if alone else None
