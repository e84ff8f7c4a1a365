"""The data of a function of the user's own: one iterable of batches, or several by their use.

Where there is but one, a part of its batches can be set aside.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
)

from snnprune.data import SPLITS, DataOptions, DataSet
from snnprune.data.loader import (
    EXPECTED,
    Identity,
    LoaderSplit,
    batch_sampler_of,
    has_plain_batches,
    list_indices,
    locate_sample,
    make_ordered_loader,
    open_loader_split,
    rebuild_loader,
    takes_all,
    wrap_batches,
)
from snnprune.data.overlap import hash_batch, note_copies, note_overlap
from snnprune.errors import InputError, did_you_mean
from snnprune.plugins.user_code import guard_user_code, load_own
from snnprune.runtime import make_generator, seed_draws

Parts = dict[str, LoaderSplit | None]


def open_function(reference: str, options: DataOptions, *, field: str) -> DataSet:
    """The batches of the function that `reference` names: see `open_batches`.

    Raises:
        InputError: as `open_batches`; or the function cannot be found, or is not the user's own.
    """
    return open_batches(load_own(reference, field=field), reference, options, field=field)


def open_batches(
    function: Callable[..., Any], reference: str, options: DataOptions, *, field: str
) -> DataSet:
    """The batches of a function, which errors call `reference`.

    It returns batches, or a dict of them by `train`, `validation` and `test`; or it takes `split`
    and is called once for each of these. Where it names neither validation nor test images, a part
    of its batches is set aside by seed, as `options` say.

    Raises:
        InputError: the function cannot be called, or returns no iterable of batches.
    """
    parts = _collect_parts(function, reference, options, field)
    train, validation, test = (parts.get(name) for name in SPLITS)
    if train is None:
        raise InputError(f"{reference} gives no train samples", field=field, hint="name some")
    given = train if len(parts) == 1 else None
    fields = {name: field for name in SPLITS[1:] if parts.get(name) is not None}
    part = options.part(tested=test is not None)
    why: str | None = None
    if validation is None and part:
        with guard_user_code(f"setting aside a part of {reference}", field=field):
            held = hold_out(train, part, options.seed)
        if isinstance(held, str):
            why = held
        else:
            train, validation = held
    opened = DataSet(
        name=reference,
        classes=None,
        channels=None,
        size=None,
        train=train,
        validation=validation,
        test=test,
        given=given,
        held_out=part if given is not None and validation is not None else 0.0,
        undivided=why,
    )
    return note_copies(opened) if opened.held_out else note_overlap(opened, fields)


def _collect_parts(
    function: Callable[..., Any], reference: str, options: DataOptions, field: str
) -> Parts:
    """What the function gives, by split; `train` alone where it names none."""
    if _takes_split(function):
        return {
            name: open_loader_split(
                functools.partial(function, split=name),
                f"{reference}(split={name!r})",
                whole=options.whole,
                field=field,
            )
            for name in SPLITS
        }
    with guard_user_code(reference, field=field):
        returned = function()
    if not isinstance(returned, Mapping) or not set(SPLITS) & set(returned):
        made = wrap_batches(returned, function, reference, whole=options.whole, field=field)
        if made is None:
            raise InputError(f"{reference} returned None", field=field, hint=EXPECTED)
        return {"train": made}
    for name in returned:
        if name not in SPLITS:
            raise InputError(
                f"{reference} gives {name!r}", field=field, hint=did_you_mean(str(name), SPLITS)
            )
    return {
        name: wrap_batches(
            returned[name],
            functools.partial(_get_part, function, name),
            f"{reference}[{name!r}]",
            whole=options.whole,
            field=field,
        )
        for name in returned
    }


def _get_part(function: Callable[[], Mapping[str, Any]], name: str) -> Any:
    return function()[name]


def _takes_split(function: Callable[..., Any]) -> bool:
    try:
        return "split" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


SplitPair = tuple[LoaderSplit, LoaderSplit]
"""What stays, and what is set aside."""
SHIFTS = (0, 1, -1, 2, -2, 3, -3)
"""How far from the part that was asked for a number of samples may lie to make whole batches."""


def hold_out(split: LoaderSplit, part: float, seed: int) -> SplitPair | str:
    """`part` of the samples, chosen by `seed`, set aside; or why nothing can be.

    A DataLoader over a data set that can be indexed is divided by the samples that it takes, in its
    own batch size and with its own function for batches; a sampler of one's own goes on without
    those that are set aside, and so without what is the same sample under another index. Anything
    else is divided by whole batches, if two whole passes over it are the same and no batch comes
    twice: else what was set aside would come again under another number.
    """
    loader = split.iterable
    if not isinstance(loader, DataLoader):
        return _hold_out_batches(split, part, seed)
    if isinstance(loader.dataset, IterableDataset):
        return "its data set cannot be indexed"
    given = list_indices(loader, seed, "validation") if has_plain_batches(loader) else None
    if given is None:
        return _hold_out_batches(split, part, seed)
    return _hold_out_samples(split, loader, given, part, seed)


def _hold_out_samples(
    split: LoaderSplit, loader: DataLoader[Any], given: list[int], part: float, seed: int
) -> SplitPair | str:
    """Of the samples `given` in one pass."""
    known = sorted(set(given))
    order = [known[place] for place in _draw_order(len(known), seed)]
    count = _count_set_aside(part, len(order), loader)
    if not 0 < count < len(order):
        return f"it has {len(order)} samples"
    aside = sorted(order[:count])
    out = {locate_sample(loader.dataset, index) for index in aside}
    kept = [index for index in given if locate_sample(loader.dataset, index) not in out]
    if not kept:
        return "all of its samples are the same one"
    return (
        replace(split, iterable=_exclude_samples(loader, kept, out)),
        replace(split, iterable=make_ordered_loader(loader, aside)),
    )


def _exclude_samples(
    loader: DataLoader[Any], kept: list[int], out: set[Identity]
) -> DataLoader[Any]:
    """The loader without what is set aside."""
    batches = batch_sampler_of(loader)
    sampler, drops = batches.sampler, batches.drop_last
    if not takes_all(loader):
        left = _ExcludingSampler(sampler, loader.dataset, out, len(kept))
        return rebuild_loader(loader, loader.dataset, left, drop_last=drops)
    rest = Subset(loader.dataset, kept)
    if isinstance(sampler, RandomSampler):
        shuffled = RandomSampler(rest, generator=sampler.generator)
        return rebuild_loader(loader, rest, shuffled, drop_last=drops)
    return rebuild_loader(loader, rest, SequentialSampler(rest))


class _ExcludingSampler(Sampler[int]):
    """What a sampler gives without the samples that are set aside, as many in each pass."""

    def __init__(self, sampler: Any, dataset: Dataset[Any], out: set[Identity], count: int) -> None:
        self.sampler, self.dataset, self.out, self.count = sampler, dataset, out, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        left = self.count
        while left:  # one that draws with replacement may give too few in a pass
            given = list(self.sampler)
            found = [one for one in given if locate_sample(self.dataset, one) not in self.out][
                :left
            ]
            if not found:
                return
            yield from found
            left -= len(found)


def _count_set_aside(part: float, samples: int, loader: DataLoader[Any]) -> int:
    """How many samples are set aside, so that no part ends in a batch of one if that can be.

    One sample has no variance for a BatchNorm, and many a network squeezes its batch away.
    """
    count, size = round(part * samples), batch_sampler_of(loader).batch_size
    if size == 1:
        return count
    near = [count + shift for shift in SHIFTS if 0 < count + shift < samples]
    fits = (found for found in near if found % size != 1 and (samples - found) % size != 1)
    return next(fits, count)


def _hold_out_batches(split: LoaderSplit, part: float, seed: int) -> SplitPair | str:
    with seed_draws(seed, "validation", "batches"):  # the passes are ours, not the user's draws
        first = [hash_batch(given) for given in split.iter_given()]
        again = first
        if not isinstance(split.iterable, list | tuple):
            again = [hash_batch(given) for given in split.iter_given()]
    count = len(first)
    if count < 2:
        return "it gives one batch" if count else "it gives no batch"
    if first != again:
        return "it gives other batches on every pass"
    if None in first or len(set(first)) < count:
        return "it gives the same batch more than once"
    aside = frozenset(_draw_order(count, seed)[: max(1, round(part * count))])
    kept = frozenset(range(count)) - aside
    return replace(split, numbers=kept), replace(split, numbers=aside)


def _draw_order(count: int, seed: int) -> list[int]:
    drawn: list[int] = torch.randperm(count, generator=make_generator(seed, "validation")).tolist()
    return drawn
