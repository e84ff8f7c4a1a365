"""MNIST and Fashion-MNIST, whole and in the small bundled form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from snnprune.data import idx
from snnprune.data.assembly import image_data_set
from snnprune.data.dataset import DataSet
from snnprune.data.images import ImageSplit
from snnprune.data.options import DataOptions
from snnprune.data.presence import DELETE, download, missing

BUNDLED = Path(__file__).parent / "bundled"
CLASSES = 10
MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
FASHION_MEAN, FASHION_STD = (0.2860,), (0.3530,)


def fashion_mnist_mini(options: DataOptions) -> DataSet:
    """600 training and 100 test images of each class, which come with snnprune.

    Raises:
        InputError: the installed files are damaged.
    """
    train, test = (
        _part(BUNDLED, part, FASHION_MEAN, FASHION_STD, hint="reinstall snnprune")
        for part in idx.PARTS
    )
    return image_data_set(
        "fashion-mnist-mini", classes=CLASSES, train=train, test=test, options=options
    )


def fashion_mnist(options: DataOptions) -> DataSet:
    """Fashion-MNIST, 60,000 + 10,000 images; Xiao et al. 2017, arXiv 1708.07747.

    Raises:
        InputError: files are missing or damaged.
    """
    from torchvision.datasets import FashionMNIST

    folder = _folder("fashion-mnist", FashionMNIST, options)
    train, test = (_part(folder, part, FASHION_MEAN, FASHION_STD) for part in idx.PARTS)
    return image_data_set("fashion-mnist", classes=CLASSES, train=train, test=test, options=options)


def mnist(options: DataOptions) -> DataSet:
    """MNIST, 60,000 + 10,000 images; LeCun et al. 1998.

    Raises:
        InputError: files are missing or damaged.
    """
    from torchvision.datasets import MNIST

    folder = _folder("mnist", MNIST, options)
    train, test = (_part(folder, part, MNIST_MEAN, MNIST_STD) for part in idx.PARTS)
    return image_data_set("mnist", classes=CLASSES, train=train, test=test, options=options)


def _folder(name: str, kind: Callable[..., Any], options: DataOptions) -> Path:
    """The folder with the four files: torchvision's own, or one that bears the set's name."""
    root = options.find_folder()
    own = root / kind.__name__ / "raw"
    candidates = (own, root / name)
    found = next((folder for folder in candidates if _is_complete(folder)), None)
    if found is None and options.download:
        download(name, lambda: kind(root, download=True), root)
        return own
    if found is None:
        files = ", ".join(f"{file}.gz" for file in idx.NAMES)
        raise missing(name, own, f"{files} here and in {root / name}")
    return found


def _is_complete(folder: Path) -> bool:
    return all(idx.located(folder, name) for name in idx.NAMES)


def _part(
    folder: Path,
    part: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    hint: str = DELETE,
) -> ImageSplit:
    images, labels = idx.read_part(folder, part, hint=hint)
    return ImageSplit(images=images, labels=labels, mean=mean, std=std)
