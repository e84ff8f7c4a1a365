"""Crops, flips and holes against a loop over the images."""

import pytest
import torch
from torch import Tensor

from snnprune.data import Augmentation
from snnprune.data.images import vary_images
from snnprune.errors import InputError
from snnprune.runtime import make_generator


def pictures(count: int = 40, channels: int = 3, height: int = 6, width: int = 9) -> Tensor:
    values = torch.arange(count * channels * height * width)
    return (values % 255 + 1).to(torch.uint8).view(count, channels, height, width)


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """`image` (C, H, W) moved pixel by pixel, black where nothing came from."""
    moved = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                moved[:, row, column] = image[:, row + down, column + right]
    return moved


def variants(image: Tensor, crop: int, flip: bool) -> dict[tuple[int, int, bool], Tensor]:
    """Every picture that `image` may become, by its shift and whether it is mirrored."""
    steps = range(-crop, crop + 1)
    found = {(down, right, False): shifted(image, down, right) for down in steps for right in steps}
    if flip:
        found |= {(d, r, True): moved.flip(-1) for (d, r, _), moved in found.items()}
    return found


@pytest.mark.many(1)
@pytest.mark.parametrize(("crop", "flip"), [(2, False), (0, True), (2, True)])
def test_every_picture_is_one_of_its_own_shifts_and_all_kinds_occur(crop: int, flip: bool) -> None:
    images = pictures(200, 2, 5, 7)
    changed = vary_images(images, Augmentation(crop=crop, flip=flip), make_generator(0))
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    seen = set()
    for before, after in zip(images, changed, strict=True):
        matches = [k for k, v in variants(before, crop, flip).items() if torch.equal(v, after)]
        assert len(matches) == 1
        seen.update(matches)
    assert {down for down, _, _ in seen} == set(range(-crop, crop + 1))
    assert {right for _, right, _ in seen} == set(range(-crop, crop + 1))
    assert {mirrored for _, _, mirrored in seen} == ({False, True} if flip else {False})


def holed(image: Tensor, side: int, row: int, column: int) -> Tensor:
    """`image` (C, H, W) with a black square around a place, pixel by pixel."""
    changed, half = image.clone(), side // 2
    for down in range(row - half, row - half + side):
        for right in range(column - half, column - half + side):
            if 0 <= down < image.shape[1] and 0 <= right < image.shape[2]:
                changed[:, down, right] = 0
    return changed


@pytest.mark.many(2)
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_every_picture_has_one_hole_around_a_place_of_its_own_and_all_places_occur(
    side: int,
) -> None:
    images = pictures(400, 2, 5, 7)
    changed = vary_images(images, Augmentation(cutout=side), make_generator(0))
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    places = [(row, column) for row in range(5) for column in range(7)]
    seen = set()
    for before, after in zip(images, changed, strict=True):
        found = [place for place in places if torch.equal(holed(before, side, *place), after)]
        assert found
        seen.update(found)
    assert seen == set(places)


def test_a_hole_larger_than_the_picture_may_leave_nothing() -> None:
    changed = vary_images(pictures(height=4, width=4), Augmentation(cutout=8), make_generator(0))
    assert not changed.any()


def test_crops_and_flips_are_the_same_with_a_hole_on_top() -> None:
    images = pictures(height=8)
    plain = vary_images(images, Augmentation(crop=2, flip=True), make_generator(3))
    changed = vary_images(images, Augmentation(crop=2, flip=True, cutout=3), make_generator(3))
    assert not torch.equal(changed, plain)
    assert torch.equal(torch.where(changed == 0, changed, plain), changed)


def test_images_of_one_batch_are_changed_independently() -> None:
    same = pictures(1, 1, 9, 9).repeat(100, 1, 1, 1)
    changed = vary_images(same, Augmentation(crop=3, flip=True), make_generator(0))
    assert len({image.numpy().tobytes() for image in changed}) > 50  # of 98 possible


def test_nothing_to_do_gives_the_images_back_untouched() -> None:
    images = pictures()
    assert vary_images(images, Augmentation(), make_generator(0)) is images


def test_the_given_images_are_not_changed() -> None:
    images = pictures()
    before = images.clone()
    vary_images(images, Augmentation(crop=2, flip=True), make_generator(0))
    assert torch.equal(images, before)


def test_about_half_of_the_pictures_are_mirrored() -> None:
    images = pictures(1000, 1, 1, 2)
    changed = vary_images(images, Augmentation(flip=True), make_generator(0))
    mirrored = int((changed != images).flatten(1).any(1).sum())
    assert 420 < mirrored < 580  # 5 standard deviations around 500


def test_float_images_are_cropped_too() -> None:
    images = pictures().float()
    augmentation = Augmentation(crop=1, flip=True)
    expected = vary_images(pictures(), augmentation, make_generator(3)).float()
    assert torch.equal(vary_images(images, augmentation, make_generator(3)), expected)


def test_samples_that_are_no_pictures_cannot_be_cropped() -> None:
    with pytest.raises(InputError, match=r"pictures \(N, C, H, W\), not \(4, 10\)"):
        vary_images(torch.zeros(4, 10), Augmentation(crop=1), make_generator(0))
