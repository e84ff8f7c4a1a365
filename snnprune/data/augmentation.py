"""Random crops, flips and holes of a whole batch, where the batch lies."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from snnprune.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which changes a training picture may undergo."""

    crop: int = 0
    """Pixels of black added on every side before a crop of the old size is cut out."""
    flip: bool = False
    """Whether every other picture, by chance, is mirrored left to right."""
    cutout: int = 0
    """Side in pixels of the black square that is put into every picture; 0: none."""


def augment(images: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
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
