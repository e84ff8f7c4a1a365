"""How a batch is run and its output read: the network's own way, or the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from snnprune.network.readout import Reading, require_readout
from snnprune.user_code import calling_user_code, guarded, is_reference, load_function

Forward = Callable[[nn.Module, Tensor], Any]
"""From a module and a batch to the module's output."""


def called(module: nn.Module, x: Tensor) -> Any:
    """`module(x)`."""
    return module(x)


def forward_of(
    function: str | None, model: str | None, *, fields: tuple[str, str] = ("--forward", "--model")
) -> Forward:
    """The user's `function`, or `called`; a failure of their own code is told as theirs.

    `model` is the name of the model, and `fields` what errors call the two.

    Raises:
        UsageError: `function` is no reference, and its field is a flag.
        InputError: the function cannot be had.
    """
    if function is not None:
        loaded = load_function(function, field=fields[0])
        return _told(loaded, function, field=fields[0])
    if model is not None and is_reference(model):
        return _told(called, model, field=fields[1])
    return called


def reading_of(readout: str, *, field: str = "--readout") -> str | Reading:
    """The readout of that name, or the user's function.

    Raises:
        UsageError: it is neither.
        InputError: the function cannot be had.
    """
    if is_reference(readout):
        return guarded(load_function(readout, field=field), readout, field=field)
    require_readout(readout, field=field)
    return readout


def _told(function: Forward, reference: str, *, field: str) -> Forward:
    def run(module: nn.Module, x: Tensor) -> Any:
        what = f"{reference} on a batch of shape {tuple(x.shape)}"
        with calling_user_code(what, field=field):
            return function(module, x)

    return run
