"""What functions that make a weight of a parameter do with a 0 in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def replace_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """In the block `module` has `tensors`, by state-dict key, in place of its own.

    Parameters and buffers stay the objects that they are, where they are; nothing is copied that
    lies there already.
    """
    held = module.state_dict(keep_vars=True)
    own = {key: tensor for key, tensor in held.items() if key in tensors}
    before = {key: tensor.data for key, tensor in own.items()}
    try:
        for key, tensor in own.items():
            tensor.data = tensors[key].to(tensor.device)
        yield
    finally:
        for key, tensor in own.items():
            tensor.data = before[key]


def copy_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters and buffers of `module`, by state-dict key."""
    return {
        key: tensor.detach().clone()
        for key, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }


Wholes = Mapping[tuple[str, ...], Tensor]
"""Weights that are made of parameters, by the keys of these."""
SAME = 1e-5  # relative, of values that another one has no part in


@dataclass(frozen=True, kw_only=True)
class WeightFunctions:
    """The parameters that can be pruned though the weight is made of them."""

    elementwise: frozenset[str] = frozenset()
    """A 0 in them is a 0 in the weight, and touches no other."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Parameters that kernels are made with, such as positions, by key; the weight beside them.

    A 0 of that weight takes its part out of the kernel, and touches no other.
    """


def find_functions(
    module: nn.Module, wholes: Wholes, again: Callable[[], Wholes]
) -> WeightFunctions:
    """Find them by setting some values of each parameter to 0.

    `again` runs the network and gives the weights that are made then. The smaller half of the
    values is taken, since a quantizer may take its scale from the largest.
    """
    elementwise, kept = set[str](), dict[str, str]()
    for keys, whole in wholes.items():
        for key in keys:
            parameter = module.get_parameter(key)
            if parameter.shape == whole.shape:
                if _is_free(module, key, keys, whole, again, _mask_smaller_half(parameter)):
                    elementwise.add(key)
            elif _has_rows(parameter, whole):
                gone = _mask_smaller_half(parameter.flatten(2).abs().amax(2))
                if _is_free(module, key, keys, whole, again, gone):
                    kept |= dict.fromkeys((one for one in keys if one != key), key)
    return WeightFunctions(elementwise=frozenset(elementwise), kept=kept)


def _has_rows(parameter: Tensor, whole: Tensor) -> bool:
    """Whether it has a row of values for each kernel of the weight."""
    return parameter.dim() > 2 and whole.dim() > 2 and parameter.shape[:2] == whole.shape[:2]


def _mask_smaller_half(values: Tensor) -> Tensor:
    """Where the smaller half of them is."""
    sizes = values.detach().abs().flatten()
    gone = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    gone[sizes.argsort(stable=True)[: len(sizes) // 2]] = True
    return gone.view(values.shape)


def _is_free(
    module: nn.Module,
    key: str,
    keys: tuple[str, ...],
    whole: Tensor,
    again: Callable[[], Wholes],
    gone: Tensor,
) -> bool:
    """Whether a weight is 0 where `gone` is set to 0 in the parameter, and as it was elsewhere."""
    parameter = module.get_parameter(key).detach()
    spread = gone.reshape(*gone.shape, *[1] * (parameter.dim() - gone.dim()))
    with replace_tensors(module, {key: parameter.masked_fill(spread, 0.0)}):
        made = again().get(keys)
    if made is None or made.shape != whole.shape:
        return False
    scale = float(whole.abs().max())
    same = (made - whole)[~gone].abs() <= SAME * max(scale, 1e-12)
    return bool((made[gone] == 0).all()) and bool(same.all())
