"""A module whose layers become as small as a description says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from snnprune.errors import InputError
from snnprune.graph.network import Network, Neuron, find_aliases, find_bias_key
from snnprune.graph.state import unwrap
from snnprune.pruning.structure import Description, Shapes, load_shapes
from snnprune.pruning.structure.channels import ChannelGroup, RemovedChannels, find_columns

OF_NORMS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice:
    """What stays of a tensor along one of its dimensions."""

    key: str
    axis: int
    kept: Tensor
    """(length of that dimension,) bool."""


def slim(
    network: Network, tensors: Mapping[str, Tensor], removed: RemovedChannels
) -> dict[str, Tensor]:
    """`tensors` of the whole network, cut down to the channels that are kept.

    They may be those of its state dict or in the form of these, as masks; what is not there needs
    no cut.

    Raises:
        InputError: a layer makes or reads the channels in a way that cannot be cut.
    """
    small = dict(tensors)
    for one in list_slices(network, removed):
        if one.key in small:
            places = one.kept.nonzero().flatten().to(small[one.key].device)
            small[one.key] = small[one.key].index_select(one.axis, places)
    return small


def list_slices(network: Network, removed: RemovedChannels) -> list[Slice]:
    """What must be cut of the tensors of a network, each dimension of each tensor once.

    Raises:
        InputError: see `slim`.
    """
    held, same = network.module.state_dict(), find_aliases(network.module)
    found: dict[tuple[str, int], tuple[ChannelGroup, Slice]] = {}
    for group in removed.groups:
        for one in _iter_group_slices(network, group, removed.of(group), held):
            if held[one.key].shape[one.axis] != len(one.kept):
                raise InputError("has another number of channels", field=one.key)
            for name in same.get(one.key, (one.key,)):
                other, _ = found.setdefault((name, one.axis), (group, one))
                if other is not group:
                    raise InputError("several groups of channels meet in it", field=name)
                found[name, one.axis] = (group, Slice(key=name, axis=one.axis, kept=one.kept))
    return [one for _, one in found.values()]


def _iter_group_slices(
    network: Network, group: ChannelGroup, kept: Tensor, held: Mapping[str, Tensor]
) -> Iterator[Slice]:
    for key in group.layers:
        _require_plain(network, key, held)
        yield Slice(key=key, axis=0, kept=kept)
    biases = (find_bias_key(network, key) for key in group.layers)
    norms = (v.removesuffix("running_var") + kind for v in group.norms for kind in OF_NORMS)
    for vector in (*filter(None, biases), *norms):
        if vector in held:
            yield Slice(key=vector, axis=0, kept=kept)
    for key in group.mixed:
        raise InputError("reads the channels beside others", field=key)
    for key in group.readers:
        _require_plain(network, key, held)
        columns = find_columns(kept, held[key])
        if columns is None:
            raise InputError("reads the channels in a way that cannot be cut", field=key)
        yield Slice(key=key, axis=1, kept=columns)
    for name in group.neurons:
        yield from _iter_neuron_slices(network, network.neurons[name], kept, held)


def _require_plain(network: Network, key: str, held: Mapping[str, Tensor]) -> None:
    layout = network.layers[key].layout
    if key not in held or not (layout is None or layout.is_plain):
        raise InputError("is not the weight as it is applied", field=key)


def _iter_neuron_slices(
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
            axis = find_axis(value, len(kept), neuron.axis)
            if own and axis is not None and prefix not in layers:
                yield Slice(key=key, axis=axis, kept=kept)


def find_axis(value: Tensor, channels: int, axis: int | None) -> int | None:
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


Module = TypeVar("Module", bound=nn.Module)
Layers = _ConvNd | nn.Linear | _BatchNorm


def shrink(model: Module, description: Description) -> Module:
    """`model`, its layers made as small as those of a file of `prune --structure channels`.

        model = snnprune.shrink(Net(), "small.safetensors")
        model.load_state_dict(safetensors.torch.load_file("small.safetensors"))

    The model is as its code builds it, with all channels, and is changed in place: weights (out,
    in, *kernel) of convolutions and (out, in) of linear layers, their biases, vectors of BatchNorms
    and what neurons have by channel, with the sizes that layers say of themselves. Values are those
    of the first channels until a state dict is loaded. Nothing in the file is run.

    Args:
        model: as large as it was before pruning, also inside DataParallel or `torch.compile`.
        description: path of the smaller file, or the text or table of its metadata
            `snnprune.smaller`: from state-dict key to shape.

    Raises:
        InputError: there is no such file or description, it names what the model does not have, or
            a shape is no part of the model's. The model is as it was then.
    """
    resize_module(unwrap(model), load_shapes(description))
    return model


def resize_module(module: nn.Module, shapes: Shapes) -> nn.Module:
    """`module` with tensors of the given shapes, by state-dict key.

    Raises:
        InputError: see `shrink`; the module is as it was then.
    """
    owners = dict(_iter_owners(module))
    for key, shape in shapes.items():
        if key not in owners:
            raise InputError(
                "is not in the model", field=key, hint="give the model that was pruned"
            )
        _require_part(*owners[key], key, shape)
    for key, shape in shapes.items():
        part, own = owners[key]
        if not is_lazy(own) and own.shape != shape:
            # in place, so that what is tied stays tied
            own.data = own.data[tuple(slice(length) for length in shape)].clone()
            own.grad = None
            _tell_sizes(part)
    return module


def find_smaller_shapes(module: nn.Module, tensors: Mapping[str, Tensor]) -> Shapes:
    """The shapes of those of `tensors` that are not as large as in `module`."""
    return {
        key: tuple(tensors[key].shape)
        for key, (_, own) in _iter_owners(module)
        if key in tensors and not is_lazy(own) and own.shape != tensors[key].shape
    }


def _iter_owners(module: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, Tensor]]]:
    """Each tensor of the state dict and the module that it is directly in."""
    for name, part in module.named_modules(remove_duplicate=False):
        saved = {
            k: b for k, b in part._buffers.items() if k not in part._non_persistent_buffers_set
        }
        for kind, own in [*part._parameters.items(), *saved.items()]:
            if own is not None:
                yield f"{name}.{kind}" if name else kind, (part, own)


def _require_part(part: nn.Module, own: Tensor, key: str, shape: tuple[int, ...]) -> None:
    if is_lazy(own) or own.shape == shape:  # a lazy layer takes the size of what is loaded
        return
    old = tuple(own.shape)
    if len(old) != len(shape) or not all(
        0 < new <= was for new, was in zip(shape, old, strict=True)
    ):
        raise InputError(f"{shape} cannot be a part of {old}", field=key)
    less = [axis for axis, length in enumerate(shape) if length < old[axis]]
    if not (max(less) < 2 and _works_at_any_size(part)) and not (len(less) == 1 and _is_own(part)):
        raise InputError(f"{shape} cannot be a part of {old} of {type(part).__name__}", field=key)


def _works_at_any_size(part: nn.Module) -> bool:
    plain = isinstance(part, Layers) and not isinstance(part, _ConvTransposeNd)
    return plain and getattr(part, "groups", 1) == 1


def _is_own(part: nn.Module) -> bool:
    """Whether it is a neuron or other code that may have values by channel, and none of torch's."""
    return not isinstance(part, Layers) and not type(part).__module__.startswith("torch.")


def _tell_sizes(part: nn.Module) -> None:
    """Let a layer say its true sizes."""
    if isinstance(part, _ConvNd):
        part.out_channels, part.in_channels = part.weight.shape[:2]
    elif isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, _BatchNorm):
        vectors = (part.running_var, part.weight)
        part.num_features = next(len(one) for one in vectors if one is not None)
