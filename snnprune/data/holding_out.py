"""Setting a part of the batches of somebody's own function aside."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from snnprune.batches import tensors
from snnprune.data.loader import LoaderSplit
from snnprune.randomness import generator

Held = tuple[LoaderSplit, LoaderSplit]
"""What stays, and what is set aside."""


def hold_out(split: LoaderSplit, part: float, seed: int) -> Held | str:
    """`part` of the samples, chosen by `seed`, set aside; or why nothing can be.

    A DataLoader over a data set that can be indexed is divided by samples, in its own batch size
    and with its own function for batches. Anything else is divided by whole batches, if two passes
    over it begin alike: else what was set aside might come again under another number.
    """
    loader = split.iterable
    if isinstance(loader, DataLoader):
        if isinstance(loader.dataset, IterableDataset):
            return "its data set cannot be indexed"
        if _is_usual(loader):
            return _by_samples(split, loader, part, seed)
    return _by_batches(split, part, seed)


def _is_usual(loader: DataLoader[Any]) -> bool:
    """Whether its batches are made in order or at random of all its samples."""
    usual = type(loader.batch_sampler) is BatchSampler
    return usual and type(loader.sampler) in (SequentialSampler, RandomSampler)


def _by_samples(split: LoaderSplit, loader: DataLoader[Any], part: float, seed: int) -> Held | str:
    order = _order(len(loader.dataset), seed)  # type: ignore[arg-type]
    count = round(part * len(order))
    if not 0 < count < len(order):
        return f"it has {len(order)} samples"
    kept, aside = sorted(order[count:]), sorted(order[:count])
    shuffled = isinstance(loader.sampler, RandomSampler)
    return (
        replace(split, iterable=_over(loader, kept, shuffle=shuffled)),
        replace(split, iterable=_over(loader, aside, shuffle=False)),
    )


def _over(loader: DataLoader[Any], indices: list[int], *, shuffle: bool) -> DataLoader[Any]:
    """A loader as it is, over a part of its samples."""
    return DataLoader(
        Subset(loader.dataset, indices),
        batch_size=loader.batch_size,
        shuffle=shuffle,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last and shuffle,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


def _by_batches(split: LoaderSplit, part: float, seed: int) -> Held | str:
    count = split.steps(0)
    if count < 2:
        return "it gives one batch" if count else "it gives no batch"
    if not _begins_alike(split.given):
        return "it gives other batches on every pass"
    aside = frozenset(_order(count, seed)[: max(1, round(part * count))])
    kept = frozenset(range(count)) - aside
    return replace(split, numbers=kept), replace(split, numbers=aside)


def _begins_alike(given: Callable[[], Iterator[Any]]) -> bool:
    """Whether two passes have the same first batch."""
    firsts = [list(itertools.islice(given(), 1)) for _ in range(2)]
    here, there = (list(tensors(tuple(first))) for first in firsts)
    return len(here) == len(there) and all(map(_same, here, there))


def _same(here: Tensor, there: Tensor) -> bool:
    return here.shape == there.shape and torch.equal(here, there)


def _order(count: int, seed: int) -> list[int]:
    drawn: list[int] = torch.randperm(count, generator=generator(seed, "validation")).tolist()
    return drawn
