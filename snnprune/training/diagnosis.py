"""Where what is not finite came from, once a loss is NaN or infinite."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.checkpoint.weights import is_finite
from snnprune.data.batches import iter_tensors
from snnprune.errors import InputError

SAID_BY_TORCH = "backward through the graph a second time"
SINGLE = ("Expected more than 1 value per channel", "a batch of one value per channel")


@contextlib.contextmanager
def refuse_state_leak() -> Iterator[None]:
    """In the block `backward` must not reach into the batch before.

    Raises:
        InputError: it does: the network's own neurons were not at rest when the batch began.
    """
    try:
        yield
    except RuntimeError as error:
        if SAID_BY_TORCH not in str(error):
            raise
        raise InputError(
            "its neurons keep their state from one batch to the next",
            field="model.name",
            hint="begin its forward by resetting them, or name a function that does: model.forward",
        ) from error


@contextlib.contextmanager
def refuse_single_samples() -> Iterator[None]:
    """In the block a BatchNorm must have more than one value to normalise.

    Raises:
        InputError: it has one, as of the only sample of a last batch.
    """
    try:
        yield
    except (ValueError, InputError) as error:
        if not any(said in str(error) for said in SINGLE):
            raise
        raise InputError(
            "a batch of one sample has no variance, by which its BatchNorm normalises",
            field="data.name",
            hint="leave a last batch of one out, as a DataLoader does with drop_last=True, or "
            "choose another training.batch_size",
        ) from error


def find_first_nonfinite(module: nn.Module, run: Callable[[], object], x: Any) -> str | None:
    """What is not finite first: the batch `x`, a weight, or the output of a layer in `run`.

    None where all of them are, and the loss alone overflowed.
    """
    if not all(map(_is_finite, iter_tensors(x))):
        return "the batch itself is not finite"
    for key, parameter in module.named_parameters():
        if not _is_finite(parameter):
            return f"{key} is not finite"
    with _record_nonfinite(module) as found, torch.no_grad(), contextlib.suppress(Exception):
        run()  # that a loss is not finite is told whatever happens here
    return f"the output of {found[0]} is not finite" if found else None


@contextlib.contextmanager
def _record_nonfinite(module: nn.Module) -> Iterator[list[str]]:
    """The names of layers whose output was not finite in the block, in the order of their calls."""
    found: list[str] = []
    with contextlib.ExitStack() as stack, _use_eval_mode(module):
        for name, layer in module.named_modules():
            if not list(layer.children()):
                handle = layer.register_forward_hook(
                    _make_nonfinite_hook(name or "the network", found)
                )
                stack.callback(handle.remove)
        yield found


def _make_nonfinite_hook(name: str, found: list[str]) -> Callable[..., None]:
    def look(_: nn.Module, __: object, output: object) -> None:
        if not all(map(_is_finite, iter_tensors(output))):
            found.append(name)

    return look


@contextlib.contextmanager
def _use_eval_mode(module: nn.Module) -> Iterator[None]:
    """In the block nothing is drawn, and no statistic of a batch is taken."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def _is_finite(tensor: Tensor) -> bool:
    return bool(is_finite(tensor.detach()).all())
