"""Whether a file holds the weights of a network, zeros and all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.checkpoint import prunable_weights
from snnprune.errors import InputError
from snnprune.network import Network


@dataclass(frozen=True, kw_only=True)
class LayerValues:
    """Of one layer, as it was before anything was exported."""

    weight: Tensor
    bias: Tensor | None


def layer_values(network: Network) -> dict[str, LayerValues]:
    """A copy of what each layer holds, by weight key."""
    own = dict(network.module.named_parameters(remove_duplicate=False))
    biases = {key: own.get(f"{key.removesuffix('weight')}bias") for key in network.layers}
    return {
        key: LayerValues(
            weight=network.weight(key).cpu().clone(),
            bias=None if bias is None else bias.detach().cpu().clone(),
        )
        for key, bias in biases.items()
    }


def require_weights(
    found: Mapping[str, Tensor], layers: Mapping[str, LayerValues], *, what: str = "graph"
) -> None:
    """Every layer's weight is in `found` once, value for value, and with it its bias.

    Raises:
        InputError: one is missing, another, or there more often.
    """
    places = prunable_weights(found)
    for key, layer in layers.items():
        same = [place for place in places if _equal(layer.weight, found[place])]
        alike = sum(_equal(layer.weight, other.weight) for other in layers.values())
        if len(same) < alike:
            raise InputError(
                f"is not in the {what} as it is", field=key, hint="its library changed or lost it"
            )
        if len(same) > alike:
            raise InputError(
                f"is {len(same)} times in the {what}",
                field=key,
                hint="a loop over time was unrolled: export a network for one step, or let "
                "--forward loop",
            )
        beside = (found.get(f"{place.removesuffix('weight')}bias") for place in same)
        if not any(_same_bias(layer, bias) for bias in beside):
            raise InputError(f"has another bias in the {what}", field=key)


def _same_bias(layer: LayerValues, given: Tensor | None) -> bool:
    """Zeros are no bias."""
    if layer.bias is None or given is None:
        return all(bias is None or not bias.any() for bias in (layer.bias, given))
    return _equal(layer.bias, given)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.double(), other.double())
