"""Which samples of its data set a DataLoader takes, and which of them are the same one."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable
from typing import Any

from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from snnprune.errors import InputError
from snnprune.runtime import seed_draws

USUAL = 32
"""Samples in a batch, where a batch sampler of somebody's own does not say how many."""
TIMES, LEAST = 100, 1_000_000
"""A sampler that gives more, for each sample or at all, is taken for one that never ends."""
Identity = tuple[int, object]
"""The data set in which a sample lies in the end, and its index there."""


def has_plain_batches(loader: DataLoader[Any]) -> bool:
    """Whether its batches are what its sampler gives, one after another."""
    return type(loader.batch_sampler) is BatchSampler


def takes_all(loader: DataLoader[Any]) -> bool:
    """Whether a pass takes each sample of its data set once, in order or at random."""
    if not has_plain_batches(loader):
        return False
    sampler: Any = batch_sampler_of(loader).sampler
    if getattr(sampler, "data_source", None) is not loader.dataset:
        return False
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) is SequentialSampler


def batch_sampler_of(loader: DataLoader[Any]) -> BatchSampler:
    """What says which samples come and how many together, where batches are plain."""
    assert isinstance(loader.batch_sampler, BatchSampler)
    return loader.batch_sampler


def list_indices(loader: DataLoader[Any], *key: object) -> list[int] | None:
    """The indices that one pass takes, in its order; None where they are no whole numbers.

    What is drawn for it is seeded by `key`.

    Raises:
        InputError: a sampler does not come to an end.
    """
    if isinstance(loader.dataset, IterableDataset):
        return None
    if takes_all(loader):
        return list(range(len(loader.dataset)))  # type: ignore[arg-type]  # it has a length
    given: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    with seed_draws(*key, "sampler"):
        found = _list_samples(given, loader)
    if loader.batch_sampler is not None:
        if not all(isinstance(batch, list | tuple) for batch in found):
            return None
        found = list(itertools.chain.from_iterable(found))
    return found if all(type(index) is int for index in found) else None


def _list_samples(given: Iterable[Any], loader: DataLoader[Any]) -> list[Any]:
    """All that a sampler gives."""
    most = max(LEAST, TIMES * len(loader.dataset))  # type: ignore[arg-type]  # it has a length
    found, count = [], 0
    for each in given:  # an index, or a batch of them
        count += max(1, len(each)) if isinstance(each, list | tuple) else 1
        if count > most:
            raise InputError(
                f"its {type(loader.sampler).__name__} gives more than {most:,} indices for a data "
                f"set of {len(loader.dataset):,}",  # type: ignore[arg-type]  # likewise
                hint="a pass has to end: give the sampler an end, as RandomSampler has num_samples",
            )
        found.append(each)
    return found


def locate_sample(dataset: Dataset[Any], index: int) -> Identity:
    """Where a sample is in the end, behind subsets and data sets put together."""
    found: Any = dataset
    place = index
    while True:
        if isinstance(found, Subset):
            found, place = found.dataset, found.indices[place]
        elif isinstance(found, ConcatDataset):
            part = bisect.bisect_right(found.cumulative_sizes, place)
            place -= found.cumulative_sizes[part - 1] if part else 0
            found = found.datasets[part]
        else:
            return id(found), place


def is_in_memory(dataset: Dataset[Any]) -> bool:
    """Whether its samples cost nothing to read."""
    if isinstance(dataset, Subset):
        return is_in_memory(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return all(map(is_in_memory, dataset.datasets))
    return isinstance(dataset, TensorDataset)


def make_ordered_loader(loader: DataLoader[Any], indices: list[int]) -> DataLoader[Any]:
    """These samples, as `loader` makes batches of them."""
    return rebuild_loader(loader, Subset(loader.dataset, indices), SequentialSampler(indices))


def rebuild_loader(
    loader: DataLoader[Any], dataset: Dataset[Any], sampler: Any, *, drop_last: bool = False
) -> DataLoader[Any]:
    """A loader as it is, over other samples."""
    plain = has_plain_batches(loader)
    return DataLoader(
        dataset,
        batch_size=batch_sampler_of(loader).batch_size if plain else USUAL,
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
