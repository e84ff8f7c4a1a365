"""From two splits in memory to a data set with validation images."""

import torch

from snnprune.data.dataset import DataSet
from snnprune.data.images import ImageSplit
from snnprune.data.options import DataOptions
from snnprune.errors import InputError
from snnprune.randomness import generator


def image_data_set(
    name: str,
    *,
    classes: int | None,
    train: ImageSplit,
    test: ImageSplit | None,
    validation: ImageSplit | None = None,
    options: DataOptions,
) -> DataSet:
    """The set `name`; without `validation`, a part of its training images is set aside for it.

    Without `test` either, `train` is all that is given.

    Raises:
        InputError: a split is empty or has a label outside 0 .. classes - 1, or the validation
            part that was asked for leaves one side without images.
    """
    for split in filter(None, (train, validation, test)):
        _require_samples(name, split, classes)
    given = train if test is None and validation is None else None
    part = options.part(tested=test is not None)
    kept, undivided = train, None
    if validation is None and options.validation == 0 and not _divides(train, part):
        undivided = f"it has {len(train)} samples" if part else None
    elif validation is None:
        kept, validation = split_validation(train, part, options.seed)
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
        given=given,
        held_out=part if given is not None and validation is not None else 0.0,
        undivided=undivided,
    )


def _divides(train: ImageSplit, part: float) -> bool:
    return 0 < round(part * len(train)) < len(train)


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
