"""What `theory construct` is given in files instead of drawing it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from snnprune.checkpoint import Checkpoint, prunable_weights, read_checkpoint
from snnprune.checkpoint.naming import first_few
from snnprune.errors import InputError
from snnprune.theory.widths import Setting

_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True, kw_only=True)
class Read:
    """Target and input, as far as they are not drawn."""

    setting: Setting
    """With the sizes that follow from them."""
    weights: Tensor | None
    """(L, N, N) float64."""
    spikes: Tensor | None
    """(T, samples, N) float64, zeros and ones."""
    files: tuple[Checkpoint, ...]


def read_given(target: Path | None, spikes: Path | None, setting: Setting) -> Read:
    """Of the files that are asked for.

    Raises:
        InputError: a file is no target, or holds no spikes for it.
    """
    weights = data = None
    files = []
    if target is not None:
        files.append(checkpoint := read_checkpoint(target))
        weights = _weights_in(checkpoint)
        setting = replace(
            setting,
            layers=len(weights),
            neurons=weights.shape[1],
            largest=float(weights.abs().max()),
        )
    if spikes is not None:
        files.append(checkpoint := read_checkpoint(spikes, allow_nonfinite=True))
        data = _spikes_in(checkpoint, None if weights is None else setting.neurons)
        setting = replace(setting, steps=len(data), neurons=data.shape[2])
    return Read(setting=setting, weights=weights, spikes=data, files=tuple(files))


def _weights_in(checkpoint: Checkpoint) -> Tensor:
    """The layers of a target, (L, N, N) float64, in the order of their names' numbers.

    Raises:
        InputError: there are none, they are not square and of one size, or there is more.
    """
    keys = sorted(prunable_weights(checkpoint.tensors), key=_natural)
    shapes = {tuple(checkpoint.tensors[key].shape) for key in keys}
    wrong = None
    if others := sorted(checkpoint.tensors.keys() - set(keys)):
        wrong = f"it has {first_few(others)} too"
    elif len(shapes) != 1 or len(shape := shapes.pop()) != 2 or shape[0] != shape[1]:
        wrong = "its weights are not all (N, N)"
    if wrong is not None:
        raise InputError(
            f"is no target: {wrong}",
            file=checkpoint.path,
            field="--target",
            hint="a target is layers of N neurons without biases",
        )
    return torch.stack([checkpoint.tensors[key].double() for key in keys])


def _natural(key: str) -> list[tuple[int, str]]:
    """For sorting, layers.2 before layers.10: a file may have them by the letter."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBERS.split(key)]


def _spikes_in(checkpoint: Checkpoint, neurons: int | None) -> Tensor:
    """(T, samples, N) float64.

    Raises:
        InputError: there is no `x` (samples, T, N) of zeros and ones, or N is not the target's.
    """
    x = checkpoint.tensors.get("x")
    wrong = None
    if x is None:
        wrong = "holds no x"
    elif x.ndim != 3 or not x.numel():
        wrong = f"has x of shape {tuple(x.shape)}"
    elif not ((x == 0) | (x == 1)).all():
        wrong = "has other values than 0 and 1 in x"
    elif neurons is not None and x.shape[2] != neurons:
        wrong = f"has spikes of {x.shape[2]} inputs for a target of {neurons}"
    if x is None or wrong is not None:
        raise InputError(
            f"is no input: it {wrong}",
            file=checkpoint.path,
            field="--spikes",
            hint="name zeros and ones (samples, T, N) x",
        )
    return x.double().transpose(0, 1).contiguous()
