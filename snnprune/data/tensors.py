"""Samples that lie as tensors in a file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from snnprune.data.assembly import image_data_set
from snnprune.data.dataset import DataSet
from snnprune.data.images import ImageSplit
from snnprune.data.options import DataOptions
from snnprune.errors import InputError


def open_tensors(file: Path, options: DataOptions) -> DataSet:
    """The samples `x` (N, ...) of `file`, with the labels `y` (N,) where it has them.

    The same samples train and test. uint8 is divided by 255, anything else goes out as float32.

    Raises:
        InputError: the file cannot be read, has no `x`, or `x` and `y` are not as above.
    """
    from snnprune.checkpoint import read_checkpoint

    # Its own refusal of NaN speaks of weights; `_samples` refuses it in words about data.
    tensors = read_checkpoint(file, allow_nonfinite=True).tensors
    x = _samples(tensors, file)
    y = _labels(tensors["y"], len(x), file) if "y" in tensors else None
    split = ImageSplit(images=x, labels=y)
    classes = None if y is None else int(y.max()) + 1
    return image_data_set(
        f"tensors:{file}", classes=classes, train=split, test=split, options=options
    )


def _samples(tensors: Mapping[str, Tensor], file: Path) -> Tensor:
    if "x" not in tensors:
        named = ", ".join(list(tensors)[:5]) or "nothing"
        raise InputError(f"holds {named}", file=file, field="x", hint="name the samples x")
    x = tensors["x"]
    if x.ndim < 2 or not x.numel() or x.is_complex():
        raise InputError(
            f"has shape {tuple(x.shape)} and type {x.dtype}, expected real values (N, ...)",
            file=file,
            field="x",
        )
    if x.dtype == torch.uint8:
        return x
    x = x.float()
    if not x.isfinite().all():
        raise InputError("has NaN or infinity in it", file=file, field="x")
    return x


def _labels(y: Tensor, samples: int, file: Path) -> Tensor:
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or y.shape != (samples,):
        raise InputError(
            f"has shape {tuple(y.shape)} and type {y.dtype}, expected {samples} whole numbers",
            file=file,
            field="y",
        )
    return y.long()
