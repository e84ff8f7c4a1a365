"""What a network does in eval mode as if it were trained: its output is no function of a sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.nn import functional

from snnprune.graph.calls import read_norm_call

BY_BATCH, DROPPING = "by batch", "dropping"

_DROPOUTS = {
    getattr(functional, name): inspect.signature(getattr(functional, name))
    for name in (
        *("dropout", "dropout1d", "dropout2d", "dropout3d"),
        *("alpha_dropout", "feature_alpha_dropout"),
    )
}


def find_restless_reason(function: Callable[..., Any], args: Any, kwargs: Any) -> str | None:
    """`BY_BATCH` or `DROPPING` where a call mixes samples or draws, else None."""
    normed = read_norm_call(function, args, kwargs)
    if normed is not None:
        return BY_BATCH if normed.training or normed.variance is None else None
    signature = _DROPOUTS.get(function)
    if signature is None:
        return None
    given = signature.bind(*args, **kwargs)
    given.apply_defaults()
    return DROPPING if given.arguments["training"] and given.arguments["p"] > 0 else None


def describe_restless(found: Mapping[str, str], *, draws: bool) -> Iterator[str]:
    """A line for each kind of what was `found`, by module."""
    by_batch = [place for place, what in found.items() if what == BY_BATCH]
    dropping = [place for place, what in found.items() if what == DROPPING]
    if by_batch:
        yield (
            "BatchNorm by the batch's own mean and variance in eval mode: "
            f"{_format_places(by_batch)}; "
            "accuracy depends on what is in a batch, layers before it go by magnitude, and no "
            "repair reaches it"
        )
    if dropping:
        yield (
            f"dropout stays active in eval mode: {_format_places(dropping)}; "
            "left as the network has it, and drawn by --seed"
        )
    elif draws:
        yield "the network draws at random in eval mode; its draws are those of --seed"


def _format_places(places: list[str]) -> str:
    names = [place or "the network itself" for place in places]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
