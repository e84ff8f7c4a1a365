"""Whether samples that a network is to be measured on are among those that it learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from snnprune.data import DataSet, Split
from snnprune.data.batches import Pair, iter_tensors
from snnprune.data.images import ImageSplit
from snnprune.data.loader import (
    Identity,
    LoaderSplit,
    is_in_memory,
    list_indices,
    locate_sample,
    make_ordered_loader,
)
from snnprune.errors import InputError, format_split
from snnprune.runtime import seed_draws


def hash_batch(batch: Any) -> bytes | None:
    """A name for all tensors of a batch and their shapes; None where it holds none."""
    held = list(iter_tensors(batch))
    return _hash_tensors(held) if held else None


def hash_samples(pair: Pair) -> Iterator[bytes]:
    """A name for each sample's tensor, without its label; of a batch of another kind, one for all.

    Samples lie along the first dimension, or along the first that is as long as the labels.
    """
    x, y = pair
    if not isinstance(x, Tensor):
        yield _hash_tensors(iter_tensors(x))
        return
    fits = (dim for dim, size in enumerate(x.shape) if y is None or size == len(y))
    samples = x.movedim(next(fits, 0), 0)
    kind = _encode_kind(samples[:1])
    for row in _view_bytes(samples).reshape(len(samples), -1).numpy():
        yield hashlib.blake2b(row, key=kind, digest_size=16).digest()


def _hash_tensors(held: Iterable[Tensor]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for tensor in held:
        found.update(_encode_kind(tensor))
        found.update(_view_bytes(tensor).numpy().data)
    return found.digest()


def _encode_kind(tensor: Tensor) -> bytes:
    text = f"{tensor.dtype}{tuple(tensor.shape)}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _view_bytes(tensor: Tensor) -> Tensor:
    """All that is in it, flat, uint8."""
    plain = tensor.detach().cpu()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.is_quantized:
        plain = plain.int_repr()
    plain = plain.resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8)


MOST = 2048
"""How many samples of a user's loader are looked at, from its first on."""
CHUNK = 128
"""How many of a set in memory at once: recordings are large."""
LEARNT_FROM = {"test": ("train", "validation"), "validation": ("train",)}
"""Of what the images of a split must be free."""


def note_overlap(data: DataSet, fields: Mapping[str, str]) -> DataSet:
    """`data` with a word on each pair of splits that have some samples in common.

    `fields` say where the images of a split were named. Samples of one data set are told by their
    indices, others by the bytes that the network gets; of what a user's loader has to read, as far
    as `MOST`.

    Raises:
        InputError: more than half of the test images are among those for training or validation,
            or of the validation images among those for training.
    """
    splits = {name: _SplitSamples(data.of(name)) for name in ("train", "validation", "test")}
    told = []
    for name, field in fields.items():
        for other in LEARNT_FROM[name]:
            shared, of = splits[name].count_shared(splits[other])
            others = format_split(other)
            what = f"{shared} of the {of} {name} {data.noun} looked at are {others} {data.noun}"
            if 2 * shared > of:
                raise InputError(
                    what,
                    field=field,
                    hint="name others; without any, a part is set aside where it can be",
                )
            if shared:
                told.append(f"{what} too")
    return replace(data, overlaps=(*data.overlaps, *told))


def note_copies(data: DataSet) -> DataSet:
    """`data`, of which a part was set aside, with a word on images that are on both sides.

    Only those that cost nothing to read are looked at.
    """
    train, validation = _SplitSamples(data.train), _SplitSamples(data.validation)
    if not (train.is_in_memory and validation.is_in_memory):
        return data
    shared, of = validation.count_shared(train)
    if not shared:
        return data
    told = f"{shared} of the {of} validation {data.noun} looked at are training {data.noun} too"
    return replace(data, overlaps=(*data.overlaps, told))


class _SplitSamples:
    """A split and what its samples are, each looked at once."""

    def __init__(self, split: Split | None) -> None:
        self.split = split
        self.loader = _find_loader(split)
        self._is_listed = False
        self._indices: list[int] | None = None
        self._places: set[Identity] | None = None
        self._names: list[bytes] | None = None

    def count_shared(self, other: _SplitSamples) -> tuple[int, int]:
        """How many of its samples are the other's too, of how many that were looked at."""
        if self.split is None or other.split is None:
            return 0, 0
        places = self.locate_samples()
        same = sum(one in other.locate_samples() for one in places)
        if same:
            return same, len(places)
        known = set(other.read_names())
        names = self.read_names()
        return sum(name in known for name in names), len(names)

    def list_indices(self) -> list[int] | None:
        """Which samples a pass takes, in the order of the data set; None where they have none."""
        if not self._is_listed and self.loader is not None:  # a sampler may draw as it is listed
            found = list_indices(self.loader, "overlap")
            self._indices = None if found is None else sorted(set(found))
            self._is_listed = True
        return self._indices

    def locate_samples(self) -> set[Identity]:
        """Where its samples are; none where they have no indices."""
        if self._places is None:
            indices = self.list_indices()
            self._places = (
                set()
                if self.loader is None or indices is None
                else {locate_sample(self.loader.dataset, index) for index in indices}
            )
        return self._places

    def read_names(self) -> list[bytes]:
        """Digests of its samples, of those that are looked at."""
        if self._names is None:
            self._names = self._read()
        return self._names

    def _read(self) -> list[bytes]:
        split, limit = self.split, None if self.is_in_memory else MOST
        assert split is not None
        indices = self.list_indices()
        if isinstance(split, LoaderSplit) and self.loader is not None and indices is not None:
            split = replace(split, iterable=make_ordered_loader(self.loader, indices[:limit]))
        with seed_draws(
            "overlap"
        ):  # a loader that shuffles draws, and the user's draws are not ours
            batches = split.batches(CHUNK, limit=limit)
            return [name for x, y in batches for name in hash_samples(Pair(x, y))]

    @property
    def is_in_memory(self) -> bool:
        """Whether its samples cost nothing to read."""
        if self.loader is not None:
            return is_in_memory(self.loader.dataset)
        iterable = getattr(self.split, "iterable", None)
        return isinstance(self.split, ImageSplit) or isinstance(iterable, list | tuple)


def _find_loader(split: Split | None) -> DataLoader[Any] | None:
    """The loader of a split, where its samples have indices."""
    if not isinstance(split, LoaderSplit) or split.numbers is not None:
        return None
    loader = split.iterable
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return None
    return loader
