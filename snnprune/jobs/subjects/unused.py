"""Weights of a network that no layer which can be pruned uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from snnprune.checkpoint import whole_name
from snnprune.checkpoint.naming import counted, first_few
from snnprune.network import Network
from snnprune.network.aliases import aliases
from snnprune.network.libraries import library_of


def unused_weights(network: Network, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The keys of `tensors` that look like weights, and met no convolution or linear layer.

    Such are an Embedding, an LSTM, a transposed convolution and layers that the pass left out, but
    not what other weights are made of, and no parameter of a neuron.
    """
    same = aliases(network.module)
    met = {name for key in (*network.layers, *network.made) for name in same.get(key, (key,))}
    wholes = set(map(whole_name, met))
    parts = dict(network.module.named_modules(remove_duplicate=False))
    parameters = dict(network.module.named_parameters(remove_duplicate=False))
    return tuple(
        key
        for key, tensor in tensors.items()
        if key in parameters
        and key == next(name for name in same.get(key, (key,)) if name in tensors)
        and whole_name(key) not in wholes
        and _looks_like_a_weight(whole_name(key), tensor)
        and library_of(parts[key.rpartition(".")[0]]) is None
    )


def warnings_on(unused: Iterable[str]) -> tuple[str, ...]:
    """One line that names the `unused`, where there are some."""
    keys = list(unused)
    weights = counted(len(keys), "weight")
    line = f"not pruned: {weights} that no convolution or linear layer uses: {first_few(keys)}"
    return (line,) if keys else ()


def _looks_like_a_weight(name: str, tensor: Tensor) -> bool:
    """By its name, such as `weight_ih_l0`, and by the shape of a layer's weight."""
    named = "weight" in name.rpartition(".")[2]
    return named and tensor.is_floating_point() and 2 <= tensor.dim() <= 5
