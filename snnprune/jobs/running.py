"""How a batch is run and its output read: the network's own way, or the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from snnprune.jobs.options import SubjectOptions
from snnprune.network.readout import Reading, require_readout
from snnprune.user_code import calling_user_code, guarded, is_reference, load_function

Forward = Callable[[nn.Module, Tensor], Any]
"""From a module and a batch to the module's output."""


def called(module: nn.Module, x: Tensor) -> Any:
    """`module(x)`."""
    return module(x)


def forward_of(options: SubjectOptions) -> Forward:
    """The function of `--forward`, or `called`; a failure of the user's own code is told as theirs.

    Raises:
        InputError: the function cannot be had.
    """
    if options.forward is not None:
        function = load_function(options.forward, field="--forward")
        return _told(function, options.forward, field="--forward")
    if options.model is not None and is_reference(options.model):
        return _told(called, options.model, field="--model")
    return called


def reading_of(options: SubjectOptions) -> str | Reading:
    """The name that `--readout` gives, or its function.

    Raises:
        UsageError: it is neither.
        InputError: the function cannot be had.
    """
    if is_reference(options.readout):
        function = load_function(options.readout, field="--readout")
        return guarded(function, options.readout, field="--readout")
    require_readout(options.readout)
    return options.readout


def _told(function: Forward, reference: str, *, field: str) -> Forward:
    def run(module: nn.Module, x: Tensor) -> Any:
        what = f"{reference} on a batch of shape {tuple(x.shape)}"
        with calling_user_code(what, field=field):
            return function(module, x)

    return run
