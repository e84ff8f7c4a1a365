"""CIFAR-10 and CIFAR-100 in torchvision's layout; Krizhevsky 2009."""

import warnings
from pathlib import Path
from typing import Any

import torch

from snnprune.data.dataset import DataOptions, DataSet
from snnprune.data.images import ImageSplit, image_data_set
from snnprune.data.presence import download, require_intact

Channels = tuple[float, float, float]

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def cifar10(options: DataOptions) -> DataSet:
    """CIFAR-10, 50,000 + 10,000 images.

    Raises:
        InputError: files are missing or damaged.
    """
    from torchvision.datasets import CIFAR10

    _require(CIFAR10, "cifar10", options)
    train, test = _read_splits(CIFAR10, CIFAR10_MEAN, CIFAR10_STD, options)
    return image_data_set(
        "cifar10",
        classes=10,
        train=train,
        test=test,
        augmentable=("flip",),
        options=options,
    )


def cifar100(options: DataOptions) -> DataSet:
    """CIFAR-100, 50,000 + 10,000 images with their fine labels.

    Raises:
        InputError: files are missing or damaged.
    """
    from torchvision.datasets import CIFAR100

    _require(CIFAR100, "cifar100", options)
    train, test = _read_splits(CIFAR100, CIFAR100_MEAN, CIFAR100_STD, options)
    return image_data_set(
        "cifar100",
        classes=100,
        train=train,
        test=test,
        augmentable=("flip",),
        options=options,
    )


def _require(kind: Any, name: str, options: DataOptions) -> None:
    root = options.find_folder()
    if options.download:
        download(name, lambda: _open_pictures(kind, root, download=True), root)
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    require_intact(name, root / kind.base_folder, dict(listed))


def _read_splits(
    kind: Any, mean: Channels, std: Channels, options: DataOptions
) -> tuple[ImageSplit, ImageSplit]:
    opened = [_open_pictures(kind, options.find_folder(), train=train) for train in (True, False)]
    train, test = (_make_split(pictures, mean, std) for pictures in opened)
    return train, test


def _open_pictures(kind: Any, root: Path, **arguments: bool) -> Any:
    with warnings.catch_warnings():
        # NumPy 2.4.0 to 2.4.4 dislike the pickles of 2009, and nobody can change those.
        warnings.filterwarnings("ignore", message=r"dtype\(\): align")
        return kind(root, **arguments)


def _make_split(pictures: Any, mean: Channels, std: Channels) -> ImageSplit:
    images = torch.from_numpy(pictures.data).permute(0, 3, 1, 2).contiguous()
    return ImageSplit(images=images, labels=torch.tensor(pictures.targets), mean=mean, std=std)
