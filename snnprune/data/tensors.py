"""Samples that lie as tensors in a file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from snnprune.data.dataset import SPLITS, DataOptions, DataSet
from snnprune.data.images import ImageSplit, image_data_set
from snnprune.data.overlap import note_copies, note_overlap
from snnprune.errors import InputError

MOST_CLASSES = 2**20
"""More than any data set has: a network of as many outputs as a label says fills the memory."""


def open_tensors(file: Path, options: DataOptions) -> DataSet:
    """The samples `x` (N, ...) of `file`, with the labels `y` (N,) where it has them.

    So for `x_test`, `y_test` and `x_validation`, `y_validation`, where they are there. uint8 is
    divided by 255, anything else goes out as float32.

    Raises:
        InputError: the file cannot be read, has no `x`, or `x` and `y` are not as above.
    """
    from snnprune.checkpoint.read import read_checkpoint

    # Its own refusal of NaN speaks of weights; `_check_samples` refuses it in words about data.
    tensors = read_checkpoint(file, allow_nonfinite=True).tensors
    train = _read_split(tensors, "", file)
    if train is None:
        named = ", ".join(list(tensors)[:5]) or "nothing"
        raise InputError(f"holds {named}", file=file, field="x", hint="name the samples x")
    validation, test = (_read_split(tensors, f"_{name}", file) for name in SPLITS[1:])
    for name, split in (("x_validation", validation), ("x_test", test)):
        if split is not None and split.images.shape[1:] != train.images.shape[1:]:
            raise InputError(
                f"has samples of shape {tuple(split.images.shape[1:])}, "
                f"those of x have {tuple(train.images.shape[1:])}",
                file=file,
                field=name,
            )
    labels = [split.labels for split in (train, validation, test) if split is not None]
    known = [int(y.max()) + 1 for y in labels if y is not None]
    opened = image_data_set(
        f"tensors:{file}",
        classes=max(known, default=None),
        train=train,
        validation=validation,
        test=test,
        options=options,
    )
    parts = {"validation": validation, "test": test}
    fields = {name: f"x_{name}" for name, split in parts.items() if split is not None}
    return note_copies(opened) if opened.held_out else note_overlap(opened, fields)


def _read_split(tensors: Mapping[str, Tensor], end: str, file: Path) -> ImageSplit | None:
    """The samples `x` and labels `y` whose names have that end, None without samples."""
    x_name, y_name = f"x{end}", f"y{end}"
    if x_name not in tensors:
        if y_name in tensors:
            raise InputError(f"has no {x_name}", file=file, field=y_name, hint="name both")
        return None
    x = _check_samples(tensors[x_name], x_name, file)
    y = _check_labels(tensors[y_name], y_name, len(x), file) if y_name in tensors else None
    return ImageSplit(images=x, labels=y)


def _check_samples(x: Tensor, name: str, file: Path) -> Tensor:
    if x.ndim < 2 or not x.numel() or x.is_complex():
        raise InputError(
            f"has shape {tuple(x.shape)} and type {x.dtype}, expected real values (N, ...)",
            file=file,
            field=name,
        )
    if x.dtype == torch.uint8:
        return x
    x = x.float()
    if not x.isfinite().all():
        raise InputError("has NaN or infinity in it", file=file, field=name)
    return x


def _check_labels(y: Tensor, name: str, samples: int, file: Path) -> Tensor:
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or y.shape != (samples,):
        raise InputError(
            f"has shape {tuple(y.shape)} and type {y.dtype}, expected {samples} whole numbers",
            file=file,
            field=name,
        )
    largest = max(y.unique().tolist())  # of all whole numbers: a uint64 may be none of int64
    if largest >= MOST_CLASSES:
        raise InputError(
            f"label {largest} is the number of no class",
            file=file,
            field=name,
            hint=f"count classes from 0, {MOST_CLASSES:,} at most",
        )
    return y.long()
