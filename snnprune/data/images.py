"""Images in memory: how training varies them, and from two splits to a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from snnprune.data import Augmentation, DataOptions, DataSet
from snnprune.data.batches import Batches
from snnprune.errors import InputError
from snnprune.runtime import make_generator


def vary_images(images: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """`images` (N, C, H, W), each shifted, mirrored and holed by draws of its own.

    The draws are made where `generator` is: one on the CPU gives every device the same pictures.

    Raises:
        InputError: something is to be done and `images` has another number of dimensions.
    """
    if augmentation != Augmentation() and images.ndim != 4:
        raise InputError(
            f"crop, flip and cutout need pictures (N, C, H, W), not {tuple(images.shape)}",
            hint="switch augmentation off",
        )
    if augmentation.crop:
        images = _crop(images, augmentation.crop, generator)
    if augmentation.flip:
        images = _flip(images, generator)
    # last, so that the draws of the others are the same without it
    return _cut_holes(images, augmentation.cutout, generator) if augmentation.cutout else images


def _crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2p+1, 2p+1, H, W), a view
    down, right = _draw_below(2 * padding + 1, (2, count), generator).to(images.device)
    return windows[torch.arange(count, device=images.device), :, down, right]


def _flip(images: Tensor, generator: Generator) -> Tensor:
    mirrored = _draw_below(2, (len(images), 1, 1, 1), generator).to(images.device, torch.bool)
    return torch.where(mirrored, images.flip(-1), images)


def _cut_holes(images: Tensor, side: int, generator: Generator) -> Tensor:
    """Black squares whose centre is anywhere; what lies beyond an edge is lost.

    DeVries and Taylor 2017, arXiv 1708.04552.
    """
    count, _, height, width = images.shape
    rows = _mark_hidden(height, side, count, generator)
    columns = _mark_hidden(width, side, count, generator)
    holes = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)  # (N, 1, H, W)
    return images.masked_fill(holes.to(images.device), 0)


def _mark_hidden(length: int, side: int, count: int, generator: Generator) -> Tensor:
    """(count, length): whether a place is within `side` places around a centre drawn for each."""
    first = _draw_below(length, (count, 1), generator) - side // 2
    places = torch.arange(length, device=first.device)
    return (places >= first) & (places < first + side)


def _draw_below(below: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.randint(below, shape, generator=generator, device=generator.device)


Device = str | torch.device
Batch = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSplit:
    """N samples; uint8 pictures become `(v / 255 - mean) / std`, floats go out as they are."""

    images: Tensor  # (N, C, H, W) or (N, ...), uint8 or float
    labels: Tensor | None  # (N,), int64
    mean: tuple[float, ...] = (0.0,)  # per channel, of v / 255
    std: tuple[float, ...] = (1.0,)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sample_shape(self) -> torch.Size:
        """(C, H, W) of one picture, or of what is seen at once."""
        return self.images.shape[1:]

    def on(self, device: Device) -> Self:
        """The same samples with their tensors on `device`; nothing is copied if they are there."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, images=self.images.to(device), labels=labels)

    def subset(self, indices: Tensor | slice) -> Self:
        """The samples at `indices`, in that order."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, images=self.images[indices], labels=labels)

    def sample(self, count: int, seed: int) -> Self:
        """`count` samples chosen by `seed` without replacement; all of them if there are fewer."""
        if count >= len(self):
            return self
        return self.subset(draw_permutation(self, seed, "sample")[:count])

    def batches(
        self, batch_size: int, *, limit: int | None = None, device: Device = "cpu"
    ) -> Batches:
        """Batches in order, up to `limit` samples; the last may be smaller."""
        end = len(self) if limit is None else min(limit, len(self))
        chunks = self.cut_in_order(end, batch_size)

        def begin() -> Iterator[Batch]:
            for chunk in chunks:
                yield self.subset(chunk).on(device).normalise()

        return Batches(begin=begin, count=len(chunks))

    def cut_in_order(self, end: int, batch_size: int) -> Sequence[Tensor | slice]:
        """The indices of each batch of the first `end` samples."""
        starts = range(0, end, batch_size)
        return [slice(start, min(start + batch_size, end)) for start in starts]

    def steps(self, batch_size: int) -> int:
        """How many batches `shuffle` gives."""
        full, rest = divmod(len(self), batch_size)
        return full + (rest > 1)  # BatchNorm has no variance over a single image

    def shuffle(
        self,
        batch_size: int,
        *,
        key: tuple[object, ...],
        device: Device,
        augment: Augmentation,
        start: int = 0,
    ) -> Iterator[Batch]:
        """Augmented batches in an order that, like the augmentation, depends on `key` alone.

        The first `start` batches are left out; the others are the same without them.
        """
        here, chunks = self.deal(draw_permutation(self, *key, "order"), batch_size, device)
        for step, chunk in list(enumerate(chunks))[start:]:
            batch, draws = here.subset(chunk).on(device), make_generator(*key, "augment", step)
            yield replace(batch, images=batch.vary(augment, draws)).normalise()

    def deal(self, order: Tensor, batch_size: int, device: Device) -> tuple[Self, Sequence[Tensor]]:
        """What `shuffle` takes batches from, and the indices (n,) of each, for an `order` (N,)."""
        here = self.on(device)
        chunks = order.to(here.images.device).split(batch_size)
        return here, chunks[: self.steps(batch_size)]

    def vary(self, augment: Augmentation, draws: Generator) -> Tensor:
        """The samples, each changed by draws of its own; see `vary_images`."""
        return vary_images(self.images, augment, draws)

    def normalise(self) -> Batch:
        """The samples as they are fed, and their labels."""
        if self.images.dtype != torch.uint8:
            return self.images, self.labels
        mean, std = self._shape_per_channel(self.mean), self._shape_per_channel(self.std)
        return self.images.float().div_(255).sub_(mean).div_(std), self.labels

    def _shape_per_channel(self, values: tuple[float, ...]) -> Tensor:
        per_channel = torch.tensor(values, device=self.images.device)
        return per_channel.view(-1, *[1] * (self.images.ndim - 2))


def draw_permutation(split: ImageSplit, *key: object) -> Tensor:
    """The indices of a split in an order that depends on `key` alone."""
    return torch.randperm(len(split), generator=make_generator(*key))


def image_data_set(
    name: str,
    *,
    classes: int | None,
    train: ImageSplit,
    test: ImageSplit | None,
    validation: ImageSplit | None = None,
    augmentable: tuple[str, ...] = (),
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
    shape = train.sample_shape
    pictures = len(shape) == 3
    return DataSet(
        name=name,
        classes=classes,
        channels=shape[0] if pictures else None,
        size=shape[1] if pictures and shape[1] == shape[2] else None,
        train=kept,
        validation=validation,
        test=test,
        given=given,
        held_out=part if given is not None and validation is not None else 0.0,
        undivided=undivided,
        augmentable=augmentable,
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
            f"{part} of {len(train)} training samples cannot be set aside",
            field="validation",
            hint="give a part in [0, 1) that leaves samples on both sides",
        )
    order = torch.randperm(len(train), generator=make_generator(seed, "validation"))
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
