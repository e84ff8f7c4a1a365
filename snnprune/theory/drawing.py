"""The big random network, drawn block by block and never held."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.randomness import generator

CHUNK = 2**16  # virtual neurons at a time
MOST = 2**21  # outgoing weights at a time


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Of one layer: the virtual neuron kept for each weight (N, N), output by input."""

    place: Tensor
    """Its index within the block of the input, int64; -1 where none of the block fires."""
    incoming: Tensor
    """v, float64."""
    outgoing: Tensor
    """w~, float64; 0 where there is none."""

    def errors(self, target: Tensor) -> Tensor:
        """|w~ - w^|, (N, N); infinite where there is none."""
        return torch.where(self.place >= 0, (self.outgoing - target).abs(), torch.inf)


def choose(
    target: Tensor, block: int, threshold: float, *, span: float, key: tuple[object, ...]
) -> Chosen:
    """The masks of one layer: for each weight the nearest of the virtual neurons that fire.

    `target` is (N, N), output by input; `block` virtual neurons belong to each input. All weights
    are from U[-span, span], by generators that `key` seeds, a chunk at a time: memory does not grow
    with `block`. Outgoing weights are drawn where the virtual neuron fires; those of the others are
    never looked at.
    """
    columns = [
        _of_block(target[:, i], block, threshold, span=span, key=(*key, i))
        for i in range(target.shape[1])
    ]
    place, incoming, outgoing = (torch.stack(each, 1) for each in zip(*columns, strict=True))
    return Chosen(place=place, incoming=incoming, outgoing=outgoing)


def _of_block(
    wanted: Tensor, block: int, threshold: float, *, span: float, key: tuple[object, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """For the weights (N,) from one input: place, v and w~ of the nearest in its block."""
    outputs = len(wanted)
    place = torch.full((outputs,), -1)
    incoming, outgoing = torch.zeros(2, outputs, dtype=torch.float64)
    nearest = torch.full((outputs,), torch.inf, dtype=torch.float64)
    size = min(CHUNK, max(1, MOST // outputs))
    for number, start in enumerate(range(0, block, size)):
        draws = generator(*key, number)
        v = _uniform(draws, (min(size, block - start),), span)
        fires = (v >= threshold).nonzero().squeeze(1)
        if not len(fires):
            continue
        w = _uniform(draws, (len(fires), outputs), span)
        error, best = (w - wanted).abs().min(0)
        closer = error < nearest
        nearest = torch.where(closer, error, nearest)
        place = torch.where(closer, start + fires[best], place)
        incoming = torch.where(closer, v[fires[best]], incoming)
        outgoing = torch.where(closer, w.gather(0, best.unsqueeze(0)).squeeze(0), outgoing)
    return place, incoming, outgoing


def _uniform(draws: torch.Generator, shape: tuple[int, ...], span: float) -> Tensor:
    return (2 * torch.rand(*shape, generator=draws, dtype=torch.float64) - 1) * span
