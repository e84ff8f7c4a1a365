"""Folders of pictures."""

from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
from PIL import Image
from torch import Tensor

from snnprune.data import DataOptions, DataSet, open_data
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError

COLOURS = {"cat": (200, 100, 50), "dog": (10, 20, 30)}


def write_classes(folder: Path, count: int = 2, size: tuple[int, int] = (8, 8)) -> Path:
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = Image.new("RGB", size, colour)
            differs = crc32(f"{folder.name}{number}".encode())
            picture.putpixel(
                (size[0] - 1, size[1] - 1), (differs >> 16 & 255, differs >> 8 & 255, differs & 255)
            )
            picture.save(folder / name / f"{number}.png")
    return folder


def opened(folder: Path, **options: Any) -> DataSet:
    return open_data(f"imagefolder:{folder}", options=DataOptions(**options))


def parts(data: DataSet) -> tuple[ImageSplit, ImageSplit]:
    other = data.test or data.validation or data.given
    assert isinstance(data.train, ImageSplit)
    assert isinstance(other, ImageSplit)
    return data.train, other


def labels(split: ImageSplit) -> list[int]:
    assert split.labels is not None
    return split.labels.tolist()


@pytest.mark.parametrize("name", ["test", "val"])
def test_the_pictures_of_train_and_test_get_their_folders_number(name: str, tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 3)
    write_classes(tmp_path / name, 1)
    data = opened(tmp_path)
    train, test = parts(data)
    assert (data.classes, data.channels, data.size) == (2, 3, 8)
    assert (labels(train), labels(test)) == ([0, 0, 0, 1, 1, 1], [0, 1])
    assert test.images[:, :, 0, 0].tolist() == [list(COLOURS["cat"]), list(COLOURS["dog"])]


def test_classes_that_lie_in_the_folder_itself_are_given_without_a_use(tmp_path: Path) -> None:
    data = opened(write_classes(tmp_path))
    train, given = parts(data)
    assert data.test is data.validation is None
    assert given is data.given
    assert labels(train) == [0, 0, 1, 1]


def test_pictures_of_val_are_for_validation(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        write_classes(tmp_path / name, count)
    data = opened(tmp_path, validation=0.2)  # which is for sets without any
    found = [data.train, data.validation, data.test]
    assert [len(split) for split in found if isinstance(split, ImageSplit)] == [6, 4, 2]


def test_validation_images_are_taken_from_train(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 5)
    write_classes(tmp_path / "test", 1)
    data = opened(tmp_path, validation=0.2)
    assert isinstance(data.validation, ImageSplit)
    assert [len(split) for split in (*parts(data), data.validation)] == [8, 2, 2]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    assert labels(parts(opened(tmp_path))[0]) == [0, 1]


def test_pictures_of_train_alone_are_given(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 5)
    data = opened(tmp_path, hold_out=0.2)
    assert (data.classes, data.test, data.held_out) == (2, None, 0.2)
    assert isinstance(data.validation, ImageSplit)
    assert [len(split) for split in (*parts(data), data.validation)] == [8, 2, 2]


def test_train_and_test_must_have_the_same_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test")
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(InputError, match=r"has not the classes of .*train: dog, wolf"):
        opened(tmp_path)


def test_a_model_of_one_channel_gets_grey_pictures(tmp_path: Path) -> None:
    data = opened(write_classes(tmp_path), channels=1)
    train, _ = parts(data)
    assert data.channels == 1
    cat = (299 * 200 + 587 * 100 + 114 * 50) / 1000  # ITU-R 601 luma
    assert abs(int(train.images[0, 0, 0, 0]) - cat) <= 1
    assert len(train.mean) == len(train.std) == 1


def stripes() -> Tensor:
    """A picture 40 wide and 20 high: red in the middle 20 columns, blue on both sides."""
    picture = torch.zeros(20, 40, 3, dtype=torch.uint8)
    picture[..., 2] = 255
    picture[:, 10:30] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    return picture


def test_a_wide_picture_is_scaled_to_its_height_and_cut_in_the_centre(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(stripes().numpy()).save(tmp_path / "a" / "wide.png")
    data = opened(tmp_path, size=10)
    image = parts(data)[0].images[0]
    assert data.size == 10
    assert image.shape == (3, 10, 10)
    assert image[0, :, 1:-1].min() > 250
    assert image[2, :, 1:-1].max() < 5


def test_pictures_of_the_right_size_are_not_resampled(tmp_path: Path) -> None:
    picture = torch.randint(256, (16, 16, 3), dtype=torch.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(picture.numpy()).save(tmp_path / "a" / "noise.png")
    image = parts(opened(tmp_path, size=16))[0].images[0]
    assert torch.equal(image, picture.permute(2, 0, 1))


def test_pictures_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    write_classes(tmp_path)
    odd = tmp_path / "dog" / "1.png"
    Image.new("RGB", (9, 7)).save(odd)
    with pytest.raises(InputError, match=r"is 9 x 7 and .*cat/0\.png is 8 x 8 pixels") as caught:
        opened(tmp_path)
    assert caught.value.file == str(odd)
    assert len(parts(opened(tmp_path, size=8))[0]) == 4


def test_pictures_that_are_not_square_have_no_size(tmp_path: Path) -> None:
    data = opened(write_classes(tmp_path, size=(12, 8)))
    assert data.size is None
    assert parts(data)[0].images.shape == (4, 3, 8, 12)


@pytest.mark.parametrize("keep", [0, 20, 0.5])
def test_a_damaged_picture_is_named(keep: float, tmp_path: Path) -> None:
    write_classes(tmp_path)
    file = tmp_path / "dog" / "0.png"
    noise = torch.randint(256, (8, 8, 3), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(InputError, match=r"cannot be decoded: .*replace or remove it") as caught:
        opened(tmp_path)
    assert caught.value.file == str(file)


def test_a_missing_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        opened(tmp_path / "none")


@pytest.mark.parametrize("folders", [[], ["cat"]])
def test_a_folder_without_pictures_is_refused(folders: list[str], tmp_path: Path) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"no pictures: .*a folder per class"):
        opened(tmp_path)
