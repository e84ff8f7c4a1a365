"""From two splits in memory to a data set with validation images."""

import torch

from snnprune.data.dataset import DataSet
from snnprune.data.images import ImageSplit
from snnprune.data.options import DataOptions
from snnprune.errors import InputError
from snnprune.randomness import generator


def image_data_set(
    name: str, *, classes: int | None, train: ImageSplit, test: ImageSplit, options: DataOptions
) -> DataSet:
    """The set `name` with `options.validation` of its training images set aside.

    Raises:
        InputError: a split is empty or has a label outside 0 .. classes - 1, or the validation
            part leaves one side without images.
    """
    for split in (train, test):
        _require_samples(name, split, classes)
    kept, validation = split_validation(train, options.validation, options.seed)
    shape = train.images.shape
    pictures = len(shape) == 4
    return DataSet(
        name=name,
        classes=classes,
        channels=shape[1] if pictures else None,
        size=shape[2] if pictures and shape[2] == shape[3] else None,
        train=kept,
        validation=validation,
        test=test,
    )


def split_validation(
    train: ImageSplit, part: float, seed: int
) -> tuple[ImageSplit, ImageSplit | None]:
    """What stays of `train`, and `round(part * N)` of its images chosen by `seed`.

    Raises:
        InputError: `part` is no number in [0, 1), or leaves one side without images.
    """
    if part == 0:
        return train, None
    count = round(part * len(train)) if 0 < part < 1 else 0
    if not 0 < count < len(train):
        raise InputError(
            f"{part} of {len(train)} training images cannot be set aside",
            field="validation",
            hint="give a part in [0, 1) that leaves images on both sides",
        )
    order = torch.randperm(len(train), generator=generator(seed, "validation"))
    return train.subset(order[count:]), train.subset(order[:count])


def _require_samples(name: str, split: ImageSplit, classes: int | None) -> None:
    if not len(split):
        raise InputError("holds no samples", file=name)
    if classes is None or split.labels is None:
        return
    lowest, highest = int(split.labels.min()), int(split.labels.max())
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise InputError(f"label {wrong} is outside 0 .. {classes - 1}", file=name)
