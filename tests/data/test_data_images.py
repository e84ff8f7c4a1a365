"""Batches of a split that lies in memory."""

import pytest
import torch

from snnprune.data import Augmentation
from snnprune.data.images import ImageSplit

PLAIN = Augmentation()


def numbered(count: int) -> ImageSplit:
    """Images whose values and labels are their number."""
    numbers = torch.arange(count)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return ImageSplit(images=images, labels=numbers)


def order(split: ImageSplit, batch_size: int, *key: object) -> list[list[int]]:
    batches = split.shuffle(batch_size, key=key, device="cpu", augment=PLAIN)
    return [y.tolist() for _, y in batches if y is not None]


def test_uint8_is_normalised_channel_by_channel() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    split = ImageSplit(images=images, labels=None, mean=(0.5, 0.25), std=(0.5, 0.125))
    ((x, y),) = split.batches(8)
    assert x.dtype == torch.float32
    assert x.flatten().tolist() == [-1.0, 6.0]
    assert y is None


def test_floats_go_out_as_they_are() -> None:
    images = torch.tensor([[[1.5, -2.0]], [[3.0, 0.0]]])
    split = ImageSplit(images=images, labels=None, mean=(9.0,), std=(9.0,))
    ((x, _),) = split.batches(2)
    assert torch.equal(x, images)


def test_reading_batches_leaves_the_images_unchanged() -> None:
    split = numbered(5)
    before = split.images.clone()
    list(split.batches(2))
    order(split, 2, 0)
    assert torch.equal(split.images, before)


def test_batches_come_in_order_and_the_last_is_smaller() -> None:
    labels = [y.tolist() for _, y in numbered(5).batches(2) if y is not None]
    assert labels == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("limit", "expected"), [(3, [2, 1]), (4, [2, 2]), (9, [2, 2, 1])])
def test_limit_counts_images_exactly(limit: int, expected: list[int]) -> None:
    assert [len(x) for x, _ in numbered(5).batches(2, limit=limit)] == expected


def test_shuffled_batches_hold_every_image_once_beside_its_label() -> None:
    split = numbered(10)
    seen = []
    for x, y in split.shuffle(4, key=(0, 0), device="cpu", augment=PLAIN):
        assert y is not None
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)
        seen += y.tolist()
    assert sorted(seen) == list(range(10))


def test_the_order_depends_on_the_key_alone() -> None:
    split = numbered(50)
    assert order(split, 8, 0, 1) == order(split, 8, 0, 1)
    assert order(split, 8, 0, 1) != order(split, 8, 0, 2)
    assert order(split, 8, 0, 1) != order(split, 8, 1, 1)


def test_the_augmentation_depends_on_the_key_and_the_step() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    split = ImageSplit(images=image.repeat(8, 1, 1, 1), labels=None)

    def epoch(number: int) -> torch.Tensor:
        augment = Augmentation(crop=3, flip=True)
        batches = split.shuffle(4, key=(0, number), device="cpu", augment=augment)
        return torch.stack([x for x, _ in batches])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    assert not torch.equal(epoch(0)[0], epoch(0)[1])


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, []), (3, 1, [1] * 3)],
)
def test_a_last_batch_of_one_image_is_left_out(
    count: int, batch_size: int, expected: list[int]
) -> None:
    split = numbered(count)
    assert [len(batch) for batch in order(split, batch_size, 0)] == expected
    assert split.steps(batch_size) == len(expected)


def test_a_sample_has_no_image_twice_and_depends_on_its_seed() -> None:
    split = numbered(100)

    def labels(seed: int) -> list[int]:
        chosen = split.sample(30, seed).labels
        assert chosen is not None
        return chosen.tolist()

    assert len(set(labels(0))) == 30
    assert labels(0) == labels(0)
    assert set(labels(0)) != set(labels(1))


@pytest.mark.parametrize("count", [5, 6])
def test_a_sample_as_large_as_the_split_is_the_split(count: int) -> None:
    split = numbered(5)
    assert split.sample(count, 0) is split


def test_moving_a_split_to_where_it_is_copies_nothing() -> None:
    split = numbered(5)
    assert split.on("cpu").images is split.images


def test_moved_images_and_labels_lie_on_the_device() -> None:
    moved = numbered(5).on("meta")
    assert moved.labels is not None
    assert (moved.images.device.type, moved.labels.device.type) == ("meta", "meta")


@pytest.mark.gpu
def test_a_gpu_gives_the_same_augmented_batches_as_the_cpu() -> None:
    images = torch.randint(256, (50, 3, 32, 32), dtype=torch.uint8)
    split = ImageSplit(images=images, labels=torch.arange(50), mean=(0.5,) * 3, std=(0.2,) * 3)
    augment = Augmentation(crop=4, flip=True, cutout=5)
    cpu, gpu = (
        list(split.shuffle(16, key=(0, 3), device=device, augment=augment))
        for device in ("cpu", "cuda")
    )
    for (x, y), (x_gpu, y_gpu) in zip(cpu, gpu, strict=True):
        assert x_gpu.device.type == "cuda"
        torch.testing.assert_close(x_gpu.cpu(), x)
        assert y is not None
        assert y_gpu is not None
        assert torch.equal(y_gpu.cpu(), y)
