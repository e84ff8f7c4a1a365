"""Whether the native path gives the bits of the plain one, tried on this machine."""

from collections.abc import Iterator

import torch
from torch import Tensor

from snnprune.models.lif import plain
from snnprune.models.lif.dynamics import Dynamics
from snnprune.models.lif.native import NativePath

SHAPES = ((1, 67), (2, 8), (4, 3, 5, 7), (5, 301))  # T first; ends of all kinds after whole vectors
ODD = (0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 3e38, -3e38)


def gives_the_same_bits(path: NativePath, dynamics: Dynamics) -> bool:
    """Whether spikes, membranes and gradients are those of `plain`; a few ms."""
    return all(
        _are_same(one, other)
        for current, grad_spikes in _draw(dynamics)
        for one, other in _compute_both(path, current, grad_spikes, dynamics)
    )


def _draw(dynamics: Dynamics) -> Iterator[tuple[Tensor, Tensor]]:
    """Currents that make some neurons fire, and gradients, contiguous and not."""
    generator = torch.Generator().manual_seed(0)
    scale = (1 + abs(dynamics.threshold)) / (dynamics.gain or 1.0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    for shape in SHAPES:
        current, grad_spikes = scale * draw(shape), draw(shape)
        yield current, grad_spikes
        yield current[:1].expand(shape), grad_spikes
        if len(shape) > 2:
            yield current.transpose(1, -1), grad_spikes.transpose(1, -1)
        current.view(-1)[: len(ODD)] = torch.tensor(ODD)
        current[0].view(-1)[-1] = dynamics.threshold
        yield current, grad_spikes


def _compute_both(
    path: NativePath, current: Tensor, grad_spikes: Tensor, dynamics: Dynamics
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs that should be the same, of the native and of the plain path."""
    spikes, membrane = plain.fire_and_keep_membrane(current, dynamics)
    native_spikes, native_membrane = path.fire_and_keep_membrane(current, dynamics)
    yield native_spikes, spikes
    yield native_membrane, membrane
    yield (
        path.compute_gradient(grad_spikes, current, dynamics),
        plain.compute_gradient(grad_spikes, membrane, dynamics),
    )


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Bit by bit, but that one NaN is as good as another."""
    same = (one.view(torch.int32) == other.view(torch.int32)) | (one.isnan() & other.isnan())
    return bool(same.all())
