"""Weights that a file holds in parts: pruning masks beside them, norms, parametrizations."""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.naming import counted, first_few

ORIGINAL, MASK = "_orig", "_mask"
"""What torch.nn.utils.prune puts behind the name of a parameter."""


def folded(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with `X.weight` = `X.weight_orig` * `X.weight_mask`, in the first's place.

    So for every parameter that torch.nn.utils.prune has split; without any, the same checkpoint.
    """
    split = _split_parameters(checkpoint.tensors)
    if not split:
        return checkpoint
    part_of = {part: name for name in split for part in (name + ORIGINAL, name + MASK)}
    tensors: dict[str, Tensor] = {}
    for key, tensor in checkpoint.tensors.items():
        name = part_of.get(key)
        if name is None:
            tensors[key] = tensor
        elif name not in tensors:
            tensors[name] = _product(checkpoint.tensors[name + ORIGINAL],
                                     checkpoint.tensors[name + MASK])  # fmt: skip
    stored = {part: checkpoint.names.get(part, part) for part in part_of}
    whole = {name: stored[name + ORIGINAL].removesuffix(ORIGINAL) for name in split}
    return replace(
        checkpoint,
        tensors=tensors,
        names={key: whole.get(key) or checkpoint.names.get(key, key) for key in tensors},
        folded={stored[part]: whole[name] for part, name in part_of.items()},
        notes=(
            *checkpoint.notes,
            f"folded {counted(len(split), 'mask')} of torch.nn.utils.prune into the weights: "
            + first_few(split),
        ),
    )


def effective(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """The values that a weight has in its network, where a mask of torch.nn.utils.prune is on."""
    mask = tensors.get(key.removesuffix(ORIGINAL) + MASK) if key.endswith(ORIGINAL) else None
    return tensors[key] if mask is None else _product(tensors[key], mask)


def parametrized(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Weights that are there only as what they are computed from: name -> by what."""
    found: dict[str, str] = {}
    for key in tensors:
        module, dot, name = key.rpartition(".")
        owner, _, inner = module.rpartition("parametrizations.")
        if name.startswith("original") and module.endswith(f"parametrizations.{inner}"):
            found[owner + inner] = "a parametrization"
        elif name.endswith("_g") and f"{key[:-2]}_v" in tensors:
            found[module + dot + name.removesuffix("_g")] = "weight norm"
        elif name.endswith(ORIGINAL) and f"{key.removesuffix(ORIGINAL)}_u" in tensors:
            found[module + dot + name.removesuffix(ORIGINAL)] = "spectral norm"
    return {name: what for name, what in found.items() if name not in tensors}


def whole_name(key: str) -> str:
    """`X.weight` for the parts that such a weight is stored in; other keys as they are."""
    key = re.sub(r"(?<![^.])parametrizations\.(\w+)\.original\d*$", r"\1", key)
    return re.sub(r"(?<=weight)(_orig|_g|_v)$", "", key)


def _split_parameters(tensors: Mapping[str, Tensor]) -> list[str]:
    names = [key.removesuffix(ORIGINAL) for key in tensors if key.endswith(ORIGINAL)]
    return [
        name
        for name in names
        if name + MASK in tensors
        and name not in tensors
        and tensors[name + MASK].shape == tensors[name + ORIGINAL].shape
    ]


def _product(original: Tensor, mask: Tensor) -> Tensor:
    # not a bare product, which gives -0.0, and NaN for an infinite weight
    product = original * mask.to(original.dtype)
    return torch.where(mask != 0, product, torch.zeros_like(original))
