"""The samples that a network is tuned on: in memory where they fit, else batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from snnprune.errors import InputError, UsageError
from snnprune.graph.forward import Batch
from snnprune.graph.network import Network
from snnprune.pruning.repair.batchnorm import find_batchnorms
from snnprune.runtime import make_generator

BATCH = 64  # samples of a step
MEMORY = 2**29  # bytes of all samples that are held; twice as many while they are gathered
SHIFT = 2  # pixels at most
FLIP, SHIFTS = "flip", "shift"
AUGMENTATIONS = (FLIP, SHIFTS)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Samples of one step."""

    x: Any
    y: Tensor | None
    samples: int
    places: Tensor | None = None
    """Of the samples among those held, and of their mirror images after all of them."""


@dataclass(frozen=True, kw_only=True)
class HeldSamples:
    """Samples in memory, (..., N, ...) with N at `axis`."""

    x: Tensor
    y: Tensor | None
    axis: int

    def __len__(self) -> int:
        return self.x.shape[self.axis]

    def take(self, places: Tensor) -> Tensor:
        """The samples at these places, mirrored where a place is beyond the last one."""
        mirrored, here = places >= len(self), (places % len(self)).to(self.x.device)
        x = self.x.index_select(self.axis, here)
        if not bool(mirrored.any()):
            return x
        shape = [-1 if at == self.axis else 1 for at in range(x.dim())]
        return torch.where(mirrored.to(x.device).view(shape), x.flip(-1), x)

    def iter_epoch(self, generator: Generator, augment: Iterable[str]) -> Iterator[Piece]:
        """All samples in an order of chance, each mirrored and shifted by chance if it may be."""
        order = torch.randperm(len(self), generator=generator)
        if FLIP in augment:
            order = order + len(self) * torch.randint(2, order.shape, generator=generator)
        for places in order.split(BATCH):
            x = self.take(places)
            if SHIFTS in augment:
                x = _shift(x, self.axis, generator)
            here = (places % len(self)).to(self.x.device)
            y = None if self.y is None else self.y[here]
            yield Piece(x=x, y=y, samples=len(places), places=places)


def require_augmentable(x: Any, augment: Iterable[str]) -> None:
    """Refuse to mirror or shift what is no picture.

    Raises:
        UsageError: it is none.
    """
    if tuple(augment) and not (isinstance(x, Tensor) and x.dim() >= 4):
        raise UsageError(
            "needs pictures (N, C, H, W) or (T, N, C, H, W)", field="--augment", hint="leave it out"
        )


def hold_samples(network: Network, batches: Iterable[Batch]) -> HeldSamples | None:
    """The samples of all batches in memory; None if they are too many, or no one tensor."""
    kept: list[Tensor] = []
    labels: list[Tensor] = []
    size, first = 0, None
    for x, y in network.feed(batches):
        samples = network.count_samples(x, y)
        axis = find_sample_axis(network, x, samples) if isinstance(x, Tensor) else None
        if axis is None:
            return None
        form = (axis, x.dtype, x.shape[:axis], x.shape[axis + 1 :])
        size += x.numel() * x.element_size()
        first = first or form
        if size > MEMORY or form != first:
            return None
        kept.append(x.clone())
        labels.extend([] if y is None else [y])
    if first is None:
        return None
    return HeldSamples(
        x=torch.cat(kept, first[0]),
        y=torch.cat(labels) if len(labels) == len(kept) else None,
        axis=first[0],
    )


def find_sample_axis(network: Network, x: Tensor, samples: int) -> int | None:
    """Where the samples of x lie; None where which dimension is time is not to be seen."""
    if network.sample_axis is not None:
        return network.sample_axis
    if x.dim() > 1 and len(x) == x.shape[1] == samples > 1:
        return None
    if samples not in x.shape[:2]:
        return None
    return 0 if len(x) == samples else 1  # events have time first


def iter_batches(
    network: Network, batches: Iterable[Batch], key: tuple[object, ...], *, size: int = BATCH
) -> Iterator[Piece]:
    """The batches in their order, the samples of each mixed and cut into pieces.

    Which parts of a batch of another kind than x have samples is not known: it stays whole.
    """
    for number, (x, y) in enumerate(network.feed(batches)):
        samples = network.count_samples(x, y)
        axis = find_sample_axis(network, x, samples) if isinstance(x, Tensor) else None
        if axis is None:
            yield Piece(x=x, y=y, samples=samples)
            continue
        order = torch.randperm(samples, generator=make_generator(*key, number))
        for places in order.split(size):
            labels = None if y is None else y[places.to(y.device)]
            taken = x.index_select(axis, places.to(x.device))
            yield Piece(x=taken, y=labels, samples=len(places))


def iter_endlessly(
    network: Network,
    batches: Iterable[Batch],
    held: HeldSamples | None,
    *,
    augment: tuple[str, ...],
    seed: int,
) -> Iterator[Piece]:
    """Pieces for one step after the other, epoch after epoch.

    Raises:
        InputError: there is none of two samples or more, where BatchNorm needs two.
    """
    least = 2 if find_batchnorms(network.module) else 1  # one sample may have no variance
    epoch = 0
    while True:
        key = (seed, "tune", epoch)
        pieces = (
            iter_batches(network, batches, key)
            if held is None
            else held.iter_epoch(make_generator(*key), augment)
        )
        found = False
        for piece in pieces:
            if piece.samples >= least:
                found = True
                yield piece
        if not found:
            raise InputError("no batch of two samples or more to tune on", field="--data")
        epoch += 1


def _shift(x: Tensor, axis: int, generator: Generator) -> Tensor:
    """Each sample of (..., H, W) moved by up to `SHIFT` pixels, its border repeated."""
    frames = x.movedim(axis, 0)
    height, width = x.shape[-2:]
    padded = functional.pad(frames.flatten(1, -3), (SHIFT,) * 4, mode="replicate")
    moves = torch.randint(2 * SHIFT + 1, (2, len(frames)), generator=generator).to(x.device)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    moved = windows[torch.arange(len(frames), device=x.device), :, moves[0], moves[1]]
    return moved.view(frames.shape).movedim(0, axis)
