"""Eval mode for a while, without wrappers, and what a network does in it as if it were trained."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DataParallel, DistributedDataParallel

from snnprune.graph.calls import read_norm_call
from snnprune.graph.libraries import use_plain_operations


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


@contextlib.contextmanager
def run_eagerly() -> Iterator[None]:
    """Run compiled functions as they were written: nothing can be seen in compiled ones."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextlib.contextmanager
def use_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for the block; afterwards each part is in its own mode again.

    A BatchNorm that somebody froze inside a training network stays frozen. Compiled parts and
    kernels of neuron libraries do not run: nothing can be seen in them, or they are not here.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with run_eagerly(), use_plain_operations(module):
            yield
    finally:
        for child, training in modes:
            child.training = training


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
