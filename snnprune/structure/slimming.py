"""A smaller network without the channels that are gone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from snnprune.errors import InputError
from snnprune.grams import bias_key
from snnprune.network import Network
from snnprune.structure.channels import Removed, columns_of

STRUCTURE = "snnprune.structure"
"""Metadata of a file: `channels` where its layers are smaller than those of its model."""


def slim(network: Network, tensors: Mapping[str, Tensor], removed: Removed) -> dict[str, Tensor]:
    """`tensors` of the whole network, cut down to the channels that are kept.

    Raises:
        InputError: a layer reads the channels in a way that cannot be cut.
    """
    small = dict(tensors)
    for group in removed.groups:
        kept = removed.of(group)
        norms = [variance.removesuffix("running_var") for variance in group.norms]
        vectors = [bias_key(network, key) for key in group.layers]
        vectors += [
            f"{norm}{kind}"
            for norm in norms
            for kind in ("weight", "bias", "running_mean", "running_var")
        ]
        for key in (*group.layers, *filter(None, vectors)):
            if key in small:
                small[key] = small[key][kept].clone()
        for key in group.readers:
            columns = columns_of(kept, tensors[key])
            if columns is None:
                raise InputError("reads the channels in a way that cannot be cut", field=key)
            small[key] = small[key][:, columns].clone()
    return small


def resized(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """`module` with its convolutions, linear layers and BatchNorms as small as `tensors` are.

    Raises:
        InputError: a tensor is larger than the module's, has other dimensions, or is of something
            else.
    """
    for name, part in module.named_modules():
        for kind, own in [
            *part.named_parameters(recurse=False),
            *part.named_buffers(recurse=False),
        ]:
            key = f"{name}.{kind}" if name else kind
            wanted = tensors.get(key)
            if wanted is None or wanted.shape == own.shape:
                continue
            _require_smaller(part, key, own, wanted)
            smaller = own.new_empty(wanted.shape)
            if isinstance(own, nn.Parameter):
                part.register_parameter(kind, nn.Parameter(smaller, own.requires_grad))
            else:
                part.register_buffer(kind, smaller)
        _tell_sizes(part)
    return module


def _require_smaller(part: nn.Module, key: str, own: Tensor, wanted: Tensor) -> None:
    smaller = own.dim() == wanted.dim() and all(
        0 < new <= old for new, old in zip(wanted.shape, own.shape, strict=True)
    )
    kernel = own.shape[2:] == wanted.shape[2:]
    plain = isinstance(part, _ConvNd | nn.Linear | _BatchNorm) and getattr(part, "groups", 1) == 1
    if not (smaller and kernel and plain):
        raise InputError(f"{tuple(wanted.shape)} cannot be a part of {tuple(own.shape)}", field=key)


def _tell_sizes(part: nn.Module) -> None:
    """Let a layer say its true sizes."""
    if isinstance(part, _ConvNd):
        part.out_channels, part.in_channels = part.weight.shape[:2]
        part.in_channels *= part.groups
    elif isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, _BatchNorm) and part.running_var is not None:
        part.num_features = len(part.running_var)
