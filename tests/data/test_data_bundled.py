"""The images that come with snnprune."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from snnprune.data import DataOptions, DataSet, open_data, public
from snnprune.data.images import ImageSplit
from snnprune.data.public import PER_CLASS, write_bundled
from snnprune.errors import InputError


def opened(**options: float) -> DataSet:
    return open_data("fashion-mnist-mini", options=DataOptions(**options))  # type: ignore[arg-type]


def images_of(split: object) -> ImageSplit:
    assert isinstance(split, ImageSplit)
    return split


def labels_of(split: object) -> Tensor:
    labels = images_of(split).labels
    assert labels is not None
    return labels


def distinct(split: object) -> set[bytes]:
    return {image.numpy().tobytes() for image in images_of(split).images}


def test_every_class_has_600_training_and_100_test_images() -> None:
    data = opened()
    assert (data.name, data.classes, data.channels, data.size) == ("fashion-mnist-mini", 10, 1, 28)
    assert labels_of(data.train).bincount().tolist() == [600] * 10
    assert labels_of(data.test).bincount().tolist() == [100] * 10
    assert images_of(data.train).images.shape == (6000, 1, 28, 28)
    assert images_of(data.train).images.dtype == torch.uint8
    assert data.validation is None


def test_training_and_test_images_are_different_pictures() -> None:
    data = opened()
    assert len(distinct(data.train)) == 6000
    assert not distinct(data.train) & distinct(data.test)


def test_the_normalised_images_have_mean_0_and_deviation_1() -> None:
    x, _ = next(iter(images_of(opened().train).batches(6000)))
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02


def test_trousers_are_recognised_by_their_gap_and_sneakers_by_their_flatness() -> None:
    train = images_of(opened().train)
    trousers, sneakers = (train.images[labels_of(train) == label].float() for label in (1, 7))
    assert trousers[:, 0, 20:, 13:15].mean() < trousers[:, 0, 20:, 9:12].mean()
    assert sneakers[:, 0, :7].mean() < 1 < 50 < sneakers[:, 0, 14:20].mean()


def test_validation_images_are_a_seeded_part_of_the_training_images() -> None:
    data, again, other = (
        opened(validation=0.1),
        opened(validation=0.1),
        opened(validation=0.1, seed=1),
    )
    assert len(images_of(data.validation)) == 600
    assert len(images_of(data.train)) == 5400
    assert not distinct(data.validation) & distinct(data.train)
    assert distinct(data.validation) | distinct(data.train) == distinct(opened().train)
    assert distinct(data.validation) == distinct(again.validation)
    assert distinct(data.validation) != distinct(other.validation)


def test_the_number_of_validation_images_is_rounded() -> None:
    assert len(images_of(opened(validation=0.00026).validation)) == 2  # of 1.56


@pytest.mark.parametrize("part", [-0.1, 1.0, 1.5, float("nan"), 0.99999, 0.00001])
def test_a_validation_part_that_leaves_a_side_empty_is_refused(part: float) -> None:
    with pytest.raises(InputError, match=r"validation: .* of 6000 training samples"):
        opened(validation=part)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "other"])
def test_a_damaged_installation_says_to_reinstall(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundled"
    shutil.copytree(public.BUNDLED, folder)
    file = folder / "train-images-idx3-ubyte.gz"
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:1000])
    elif damage == "flipped":
        data[100_000] ^= 1
        file.write_bytes(data)
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(gzip.compress(b"<html>not found</html>"))
    monkeypatch.setattr(public, "BUNDLED", folder)
    with pytest.raises(InputError, match="reinstall snnprune") as caught:
        opened()
    assert caught.value.file == str(file)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A set in the format of the original, with 3 more of each class than are taken."""
    folder = tmp_path / "source"
    folder.mkdir()
    for part, count in PER_CLASS.items():
        labels = torch.arange(10, dtype=torch.uint8).repeat(count + 3)
        numbers = torch.arange(len(labels))
        images = torch.stack([numbers // 256, numbers % 256], 1).to(torch.uint8).view(-1, 1, 2)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{part}-{name}-ubyte").write_bytes(public.encode_idx(values))
    return folder


def test_the_script_takes_a_fixed_balanced_choice_and_writes_the_same_bytes_again(
    source: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_bundled(source, first)
    write_bundled(source, second)
    assert sorted(path.name for path in first.iterdir()) == sorted(f"{n}.gz" for n in public.NAMES)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
        assert path.read_bytes()[3:8] == bytes(5)  # no file name, no time of writing
    images, labels = public.read_part(first, "train", hint="")
    assert labels.bincount().tolist() == [600] * 10
    numbers = images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1]
    assert torch.equal(numbers % 10, labels)  # each image still beside its label
    assert numbers.unique().tolist() == numbers.tolist()  # none twice, in the old order


def test_the_bundled_files_are_small() -> None:
    assert sum(path.stat().st_size for path in public.BUNDLED.glob("*.gz")) < 4_000_000
