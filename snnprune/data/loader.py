"""A loader of the user's own: its batches, and which samples of its data set it takes."""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
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

from snnprune.data import Augmentation
from snnprune.data.batches import Batches, Pair, copy_batch, count_samples, read_pair
from snnprune.errors import InputError
from snnprune.plugins.user_code import guard_user_code
from snnprune.runtime import seed_draws

EXPECTED = "give an iterable of batches x or (x, y), each a tensor, such as a DataLoader"
ANY = "a function that runs them may take other ones: {} file.py:function"
END = object()


@dataclass(frozen=True, kw_only=True, eq=False)
class LoaderSplit:
    """The batches of `iterable`, fed to the model as they are."""

    function: Callable[[], Any]
    iterable: Iterable[Any]
    reference: str
    """The function as the user wrote it, for errors."""
    field: str
    whole: bool = False
    """Whether they may be of any kind."""
    numbers: frozenset[int] | None = None
    """Which batches of each pass are its own, counted from 0; None: all."""

    def batches(
        self,
        batch_size: int,  # noqa: ARG002  # the user's own loader sets it
        *,
        limit: int | None = None,
        device: str | torch.device = "cpu",
    ) -> Batches:
        """The user's batches on `device`, none of them cut, until `limit` samples are reached.

        Going through them raises InputError where the user's code fails, gives no batch, or one
        that is no tensor or pair.
        """
        return Batches(begin=lambda: self._limit_samples(limit, device))

    def _limit_samples(self, limit: int | None, device: str | torch.device) -> Iterator[Pair]:
        number = samples = 0
        for number, given in enumerate(self.iter_given(), start=1):
            pair = self._make_pair(given, number)
            yield _move_pair(device, pair)
            samples += 0 if limit is None else count_samples(*pair)
            if limit is not None and samples >= limit:
                return
        if not number:
            raise self._make_error("gave no batches")

    def steps(self, batch_size: int) -> int:  # noqa: ARG002  # the user's own loader sets it
        """How many batches there are; one without a length is gone through to see."""
        if self.numbers is not None:
            return len(self.numbers)
        # outside of it a batch is one call, and all together may never end
        with guard_user_code(f"counting the batches of {self.reference}", field=self.field):
            if isinstance(self.iterable, Sized):
                return len(self.iterable)
            return sum(1 for _ in self.iter_given())

    def shuffle(
        self,
        batch_size: int,  # noqa: ARG002  # likewise
        *,
        key: tuple[object, ...],
        device: str | torch.device,
        augment: Augmentation,
        start: int = 0,
    ) -> Iterator[Pair]:
        """The user's batches from number `start` on, with all that torch draws seeded by `key`.

        Raises:
            InputError: as `batches`; or `augment` is to change pictures, which is the loader's own.
        """
        if augment != Augmentation():
            raise InputError(
                "crop, flip and cutout are for built-in data",
                field="data",
                hint="let the loader do it",
            )
        given = self.iter_given()
        for number in itertools.count():
            with seed_draws(*key, "loader", number):
                batch = next(given, END)
            if batch is END:
                return
            if number >= start:
                yield _move_pair(device, self._make_pair(batch, number + 1))

    def iter_given(self) -> Iterator[Any]:
        """One pass over what the user's function gave, as it is.

        Raises:
            InputError: the user's code fails.
        """
        iterable = self.iterable
        if isinstance(iterable, Iterator):  # it can be used up only once
            iterable = _call_function(self.function, self.reference, self.field)
        with guard_user_code(self.reference, field=self.field):
            iterator = iter(iterable)
        for number in itertools.count():
            if (batch := self._read_next(iterator)) is END:
                return
            if self.numbers is None or number in self.numbers:
                yield batch

    def _read_next(self, iterator: Iterator[Any]) -> Any:
        with guard_user_code(self.reference, field=self.field):
            return next(iterator, END)

    def _make_pair(self, given: Any, number: int) -> Pair:
        pair = read_pair(given)
        if pair is None or not (self.whole or isinstance(pair.x, Tensor)):
            hint = EXPECTED if pair is None else f"{EXPECTED}; {ANY.format(self._forward)}"
            raise self._make_error(f"gave {_describe_value(given)} as batch {number}", hint)
        if any(not one.ndim or not one.numel() for one in pair if isinstance(one, Tensor)):
            raise self._make_error(f"gave an empty batch or a single number as batch {number}")
        return pair

    @property
    def _forward(self) -> str:
        """What names the function that runs a batch, where the data are named by `field`."""
        return "--forward" if self.field.startswith("-") else "model.forward:"

    def _make_error(self, message: str, hint: str = EXPECTED) -> InputError:
        return InputError(f"{self.reference} {message}", field=self.field, hint=hint)


def open_loader_split(
    function: Callable[[], Any], reference: str, *, whole: bool, field: str
) -> LoaderSplit | None:
    """The batches of `function`, which errors call `reference`; None where it gives None.

    With `whole` they may be of any kind.

    Raises:
        InputError: it fails, or returns no iterable of batches.
    """
    with guard_user_code(reference, field=field):
        returned = function()
    return wrap_batches(returned, function, reference, whole=whole, field=field)


def wrap_batches(
    returned: Any, function: Callable[[], Any], reference: str, *, whole: bool, field: str
) -> LoaderSplit | None:
    """What `function` returned as batches; see `open_loader_split`."""
    if returned is None:
        return None
    _require_iterable(returned, reference, field)
    return LoaderSplit(
        function=function, iterable=returned, reference=reference, field=field, whole=whole
    )


def _move_pair(device: str | torch.device, pair: Pair) -> Pair:
    x, y = pair
    here = x.to(device) if isinstance(x, Tensor) else copy_batch(x, torch.device(device))
    return Pair(here, None if y is None else y.to(device))


def _call_function(function: Callable[[], Any], reference: str, field: str) -> Any:
    with guard_user_code(reference, field=field):
        returned = function()
    _require_iterable(returned, reference, field)
    return returned


def _require_iterable(returned: Any, reference: str, field: str) -> None:
    if not _is_iterable(returned) or _is_one_batch(returned):
        raise InputError(
            f"{reference} returned {_describe_value(returned)}", field=field, hint=EXPECTED
        )


def _is_iterable(value: Any) -> bool:
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def _is_one_batch(value: Any) -> bool:
    """Whether going through `value` would take a batch apart: x as (x, x, ...), (x, y) as x, x."""
    tensors_in_tuple = isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value)
    return isinstance(value, Tensor | str | dict) or tensors_in_tuple


def _describe_value(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list) and value:
        return f"a {type(value).__name__} of {', '.join(type(v).__name__ for v in value[:5])}"
    return f"{value!r}" if isinstance(value, int | float | None) else f"a {type(value).__name__}"


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
