"""A data set with test and validation images of other sets, none of which it learns from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from snnprune.data.catalogue import open_data
from snnprune.data.dataset import DataOptions, DataSet, Split
from snnprune.data.overlap import note_overlap
from snnprune.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OtherData:
    """Another set, as somebody named it for the images of one split."""

    name: str | None
    field: str
    """Where it was named, for errors."""


def open_data_with(
    name: str,
    others: Mapping[str, OtherData],
    *,
    options: DataOptions,
    field: str,
    learnt_from: Collection[str] = (),
) -> DataSet:
    """The set `name`, its `test` and `validation` images those of `others` where these are named.

    Of a set that is named for one use all images are taken, unless it says itself which are for
    it. `learnt_from` are sets that the network was trained on before.

    Raises:
        UsageError: see `open_data`.
        InputError: likewise; or the images that are named are learnt from.
    """
    named = {use: other for use, other in others.items() if other.name is not None}
    if named:
        options = replace(options, hold_out=0.0)
    data = open_data(name, options=options, field=field)
    plain = replace(options, validation=0.0, hold_out=0.0)
    images = {
        use: _open_images(other, use, plain, {name, *learnt_from}) for use, other in named.items()
    }
    data = replace(
        data,
        test=images.get("test", data.test),
        validation=images.get("validation", data.validation),
    )
    return note_overlap(data, {use: other.field for use, other in named.items()})


def _open_images(
    other: OtherData, use: str, options: DataOptions, learnt: Collection[str]
) -> Split | None:
    assert other.name is not None
    opened = open_data(other.name, options=options, field=other.field)
    for_it = opened.of(use) or opened.test
    if for_it is None and other.name in learnt:
        raise InputError(
            f"{other.name} is what the network learns from", field=other.field, hint="name others"
        )
    return for_it or opened.given or opened.train
