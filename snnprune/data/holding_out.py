"""Setting a part of the batches of somebody's own function aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
)

from snnprune.data.digests import of_batch
from snnprune.data.loader import LoaderSplit
from snnprune.randomness import drawing, generator

Held = tuple[LoaderSplit, LoaderSplit]
"""What stays, and what is set aside."""
SHIFTS = (0, 1, -1, 2, -2, 3, -3)
"""How far from the part that was asked for a number of samples may lie to make whole batches."""


def hold_out(split: LoaderSplit, part: float, seed: int) -> Held | str:
    """`part` of the samples, chosen by `seed`, set aside; or why nothing can be.

    A DataLoader over a data set that can be indexed is divided by samples, in its own batch size
    and with its own function for batches; a sampler of one's own goes on without those that are
    set aside. Anything else is divided by whole batches, if two whole passes over it are the same
    and no batch comes twice: else what was set aside would come again under another number.
    """
    loader = split.iterable
    if not isinstance(loader, DataLoader):
        return _by_batches(split, part, seed)
    if isinstance(loader.dataset, IterableDataset):
        return "its data set cannot be indexed"
    if type(loader.batch_sampler) is not BatchSampler:
        return _by_batches(split, part, seed)
    if _takes_all(loader.sampler):
        return _by_samples(split, loader, part, seed)
    return _by_sampler(split, loader, part, seed)


def in_order(loader: DataLoader[Any], count: int) -> DataLoader[Any]:
    """The first samples of a data set that can be indexed, as `loader` makes batches of them."""
    indices = range(min(count, len(loader.dataset)))  # type: ignore[arg-type]  # it has a length
    return _over(loader, Subset(loader.dataset, indices), SequentialSampler(indices))


def _takes_all(sampler: Any) -> bool:
    """Whether it takes each sample once, in order or at random."""
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def _by_samples(split: LoaderSplit, loader: DataLoader[Any], part: float, seed: int) -> Held | str:
    order = _order(len(loader.dataset), seed)  # type: ignore[arg-type]  # it has a length
    count = _whole(part, len(order), loader)
    if not 0 < count < len(order):
        return f"it has {len(order)} samples"
    kept = Subset(loader.dataset, sorted(order[count:]))
    shuffled = isinstance(loader.sampler, RandomSampler)
    draws = getattr(loader.sampler, "generator", None)
    sampler = RandomSampler(kept, generator=draws) if shuffled else SequentialSampler(kept)
    aside = _aside(loader, sorted(order[:count]))
    drops = loader.drop_last and shuffled
    return (
        replace(split, iterable=_over(loader, kept, sampler, drop_last=drops)),
        replace(split, iterable=aside),
    )


def _by_sampler(split: LoaderSplit, loader: DataLoader[Any], part: float, seed: int) -> Held | str:
    """Where a sampler of one's own says which samples come: of those that come in one pass."""
    with drawing(seed, "validation", "sampler"):
        given = list(loader.sampler)
    known = sorted({index for index in given if isinstance(index, int)})
    if len(known) < len(set(given)):
        return _by_batches(split, part, seed)
    order = [known[place] for place in _order(len(known), seed)]
    count = _whole(part, len(order), loader)
    if not 0 < count < len(order):
        return f"it has {len(order)} samples"
    aside = frozenset(order[:count])
    left = _Without(loader.sampler, aside, sum(index not in aside for index in given))
    kept = _over(loader, loader.dataset, left, drop_last=loader.drop_last)
    return (
        replace(split, iterable=kept),
        replace(split, iterable=_aside(loader, sorted(aside))),
    )


class _Without(Sampler[int]):
    """What a sampler gives without the samples that are set aside, as many in each pass."""

    def __init__(self, sampler: Any, aside: frozenset[int], count: int) -> None:
        self.sampler, self.aside, self.count = sampler, aside, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        left = self.count
        while left:  # one that draws with replacement may give too few in a pass
            found = [index for index in self.sampler if index not in self.aside][:left]
            if not found:
                return
            yield from found
            left -= len(found)


def _whole(part: float, samples: int, loader: DataLoader[Any]) -> int:
    """How many samples are set aside, so that no part ends in a batch of one if that can be.

    One sample has no variance for a BatchNorm, and many a network squeezes its batch away.
    """
    count, size = round(part * samples), loader.batch_size or 1
    if size == 1:
        return count
    near = [count + shift for shift in SHIFTS if 0 < count + shift < samples]
    fits = (found for found in near if found % size != 1 and (samples - found) % size != 1)
    return next(fits, count)


def _aside(loader: DataLoader[Any], indices: list[int]) -> DataLoader[Any]:
    return _over(loader, Subset(loader.dataset, indices), SequentialSampler(indices))


def _over(
    loader: DataLoader[Any], dataset: Dataset[Any], sampler: Any, *, drop_last: bool = False
) -> DataLoader[Any]:
    """A loader as it is, over other samples."""
    return DataLoader(
        dataset,
        batch_size=loader.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


def _by_batches(split: LoaderSplit, part: float, seed: int) -> Held | str:
    with drawing(seed, "validation", "batches"):  # the passes are ours, not the user's draws
        first = [of_batch(given) for given in split.given()]
        again = first
        if not isinstance(split.iterable, list | tuple):
            again = [of_batch(given) for given in split.given()]
    count = len(first)
    if count < 2:
        return "it gives one batch" if count else "it gives no batch"
    if first != again:
        return "it gives other batches on every pass"
    if None in first or len(set(first)) < count:
        return "it gives the same batch more than once"
    aside = frozenset(_order(count, seed)[: max(1, round(part * count))])
    kept = frozenset(range(count)) - aside
    return replace(split, numbers=kept), replace(split, numbers=aside)


def _order(count: int, seed: int) -> list[int]:
    drawn: list[int] = torch.randperm(count, generator=generator(seed, "validation")).tolist()
    return drawn
