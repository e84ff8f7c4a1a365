"""The data of a function of the user's own: one iterable of batches, or several by their use."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from snnprune.data.dataset import SPLITS, DataOptions, DataSet
from snnprune.data.holding_out import hold_out
from snnprune.data.loader import EXPECTED, LoaderSplit, open_loader_split, wrap_batches
from snnprune.data.overlap import note_copies, note_overlap
from snnprune.errors import InputError
from snnprune.plugins.user_code import guard_user_code, load_own
from snnprune.text import did_you_mean

Parts = dict[str, LoaderSplit | None]


def open_function(reference: str, options: DataOptions, *, field: str) -> DataSet:
    """The batches of the function that `reference` names.

    It returns batches, or a dict of them by `train`, `validation` and `test`; or it takes `split`
    and is called once for each of these. Where it names neither validation nor test images, a part
    of its batches is set aside by seed, as `options` say.

    Raises:
        InputError: the function cannot be found or called, is not the user's own, or returns no
            iterable of batches.
    """
    function = load_own(reference, field=field)
    parts = _collect_parts(function, reference, options, field)
    train, validation, test = (parts.get(name) for name in SPLITS)
    if train is None:
        raise InputError(f"{reference} gives no train images", field=field, hint="name some")
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
