"""Whether samples that a network is to be measured on are among those that it learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from snnprune.batches import Pair
from snnprune.data.dataset import DataSet, Split, worded
from snnprune.data.digests import of_samples
from snnprune.data.holding_out import in_order
from snnprune.data.images import ImageSplit
from snnprune.data.loader import LoaderSplit
from snnprune.errors import InputError
from snnprune.randomness import drawing

MOST = 2048
"""How many samples of a user's loader are looked at, from its first on."""
LEARNT_FROM = {"test": ("train", "validation"), "validation": ("train",)}
"""Of what the images of a split must be free."""


def without_overlap(data: DataSet, fields: Mapping[str, str]) -> DataSet:
    """`data` with a word on each pair of splits that have some samples in common.

    `fields` say where the images of a split were named. Samples are compared by the bytes that the
    network gets; those of a user's loader as far as `MOST`, in the order of its data set.

    Raises:
        InputError: more than half of the test images are among those for training or validation,
            or of the validation images among those for training.
    """
    if not fields:
        return data
    named = {split: [*_names(data.of(split))] for split in LEARNT_FROM}
    named["train"] = [*_names(data.train)]
    told = []
    for split, field in fields.items():
        for other in LEARNT_FROM[split]:
            known = set(named[other])
            shared, of = sum(name in known for name in named[split]), len(named[split])
            what = f"{shared} of the {of} {worded(split)} images looked at are {worded(other)}"
            if 2 * shared > of:
                raise InputError(
                    f"{what} images",
                    field=field,
                    hint="name other images; without any, a part is set aside where it can be",
                )
            if shared:
                told.append(f"{what} images too")
    return replace(data, overlaps=(*data.overlaps, *told))


def _names(split: Split | None) -> Iterator[bytes]:
    if split is None:
        return
    if isinstance(split, ImageSplit):
        for images, _ in split.batches(MOST):
            yield from of_samples(Pair(images, None))
        return
    with drawing("overlap"):  # a loader that shuffles draws, and the user's draws are not ours
        for x, y in _plain(split).batches(MOST, limit=MOST):
            yield from of_samples(Pair(x, y))


def _plain(split: Split) -> Split:
    """In the order of the data set where that is known: the same one twice begins alike then."""
    loader: Any = getattr(split, "iterable", None)
    indexed = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if not isinstance(split, LoaderSplit) or not indexed or loader.batch_size is None:
        return split
    return replace(split, iterable=in_order(loader, MOST))
