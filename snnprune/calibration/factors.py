"""What normalisation does to a current on its way to a neuron: |gamma| / sqrt(var + eps)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.network import Gain, Layer, Link, Network, Norm, NormCall

TOLERANCE = 1e-3  # of a factor between two places, that is float32's rounding
UNEVEN = "it is scaled by what is not the same everywhere in a channel"
NOT_AFFINE = "what normalises it is not the same factor everywhere in a channel"


class NormFactors:
    """The factor of every normalisation that is met, per channel, float64.

    Those of `batch_norm` calls are read off the call. A normalisation that a module computes by
    hand, as many write their threshold-dependent BatchNorm, is probed: how much more comes out of
    the module where 1 more goes in.
    """

    def __init__(self, network: Network, factors: dict[str, Tensor]) -> None:
        """`factors` is where they go, by the key of their running variance."""
        self.module = network.module
        links = [link for layer in network.layers.values() for link in layer.links]
        norms = [norm for link in links for chain in link.norms for norm in chain]
        self.by_hand = {norm.variance for norm in norms if norm.eps is None}
        self.factors = factors
        self.inputs: dict[str, tuple[Any, ...]] = {}

    def on_norm(self, variance: str, call: NormCall) -> None:
        """Take the factor from a call."""
        if variance in self.factors or call.variance is None:
            return
        sigma = (call.variance.detach().double() + call.eps).sqrt()
        gamma = torch.ones_like(sigma) if call.scale is None else call.scale.detach().double()
        self.factors[variance] = (gamma.abs() / sigma).cpu()

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep the first input of each normalisation that is computed by hand, to probe with."""
        handles = [
            self.module.get_submodule(key.rpartition(".")[0]).register_forward_pre_hook(
                lambda _, args, key=key: self.inputs.setdefault(key, args) and None
            )
            for key in self.by_hand
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def probe(self) -> None:
        """Find the factors of what was kept, once nobody watches."""
        for key, args in self.inputs.items():
            gain = _gain(self.module.get_submodule(key.rpartition(".")[0]), *args)
            factor = _by_channel(gain, self.module.get_buffer(key).numel())
            if factor is not None:
                self.factors[key] = factor.cpu()
        self.inputs.clear()

    def of(self, layer: Layer, link: Link) -> Tensor:
        """The factor of a link, (C_out,) float64; the mean over chains where time steps differ."""
        chains = [self._product(layer.shape[0], chain) for chain in link.norms]
        factor = torch.stack(chains).mean(0)
        for gain in link.gains:
            value = _per_channel(gain, layer.shape[0])
            assert value is not None  # as `refused` has made sure
            factor = factor / value if gain.divides else factor * value
        return factor

    def refused(self, layer: Layer, link: Link) -> str | None:
        """Why a link has no factor."""
        unknown = [n for chain in link.norms for n in chain if n.variance not in self.factors]
        if unknown:
            return f"{unknown[0].variance}: {NOT_AFFINE}"
        odd = any(_per_channel(gain, layer.shape[0]) is None for gain in link.gains)
        return f"on the way to {link.neuron}: {UNEVEN}" if odd else None

    def _product(self, channels: int, chain: tuple[Norm, ...]) -> Tensor:
        product = torch.ones(channels, dtype=torch.float64)
        for norm in chain:
            product = product * self.factors[norm.variance]
        return product


def _per_channel(gain: Gain, channels: int) -> Tensor | None:
    """The absolute value of a constant factor, () or (C,) float64; None if it is another shape."""
    value = torch.as_tensor(gain.value).detach().double().abs().cpu()
    lengths = [length for length in value.shape if length > 1]
    if lengths not in ([], [channels]):
        return None
    return value.reshape(lengths)


def _gain(module: nn.Module, x: Any, *others: Any) -> Tensor:
    """How much more comes out of a normalisation where 1 more goes in; empty if nothing fits."""
    if others or not isinstance(x, Tensor):
        return torch.empty(0)
    here, elsewhere = (module(y + 1) - module(y) for y in (x, 2 * x))
    same = here.shape == x.shape and torch.allclose(here, elsewhere, rtol=TOLERANCE, atol=1e-5)
    return here.double().abs() if same else torch.empty(0)


def _by_channel(gain: Tensor, channels: int) -> Tensor | None:
    """(C,), along the one dimension after the first in whose places it is the same everywhere."""
    places = [axis for axis in range(1, gain.dim()) if gain.shape[axis] == channels]
    even: list[Tensor] = []
    for axis in places:
        rows = gain.movedim(axis, 0).flatten(1)
        mean = rows.mean(1)
        if bool((rows - mean[:, None]).abs().max() <= TOLERANCE * mean.max()):
            even.append(mean)
    # where it is one number for all channels, every dimension says so
    alike = all(torch.allclose(one, even[0], rtol=TOLERANCE) for one in even)
    return even[0] if even and alike else None
