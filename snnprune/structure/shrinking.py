"""A module whose layers become as small as a description says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from snnprune.errors import InputError
from snnprune.network import bare
from snnprune.structure.description import Description, Shapes, shapes_of

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
    resized(bare(model), shapes_of(description))
    return model


def resized(module: nn.Module, shapes: Shapes) -> nn.Module:
    """`module` with tensors of the given shapes, by state-dict key.

    Raises:
        InputError: see `shrink`; the module is as it was then.
    """
    owners = dict(_owners(module))
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


def smaller_shapes(module: nn.Module, tensors: Mapping[str, Tensor]) -> Shapes:
    """The shapes of those of `tensors` that are not as large as in `module`."""
    return {
        key: tuple(tensors[key].shape)
        for key, (_, own) in _owners(module)
        if key in tensors and not is_lazy(own) and own.shape != tensors[key].shape
    }


def _owners(module: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, Tensor]]]:
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
