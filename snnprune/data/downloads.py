"""Public data sets as torchvision lays them out: CIFAR, SVHN, and whether their files are whole."""

import contextlib
import importlib.util
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from snnprune.data.dataset import DataOptions, DataSet
from snnprune.data.images import ImageSplit, image_data_set
from snnprune.errors import InputError

Channels = tuple[float, float, float]

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def cifar10(options: DataOptions) -> DataSet:
    """CIFAR-10, 50,000 + 10,000 images; Krizhevsky 2009.

    Raises:
        InputError: files are missing or damaged.
    """
    from torchvision.datasets import CIFAR10

    return _open_cifar(CIFAR10, "cifar10", 10, (CIFAR10_MEAN, CIFAR10_STD), options)


def cifar100(options: DataOptions) -> DataSet:
    """CIFAR-100, 50,000 + 10,000 images with their fine labels; Krizhevsky 2009.

    Raises:
        InputError: files are missing or damaged.
    """
    from torchvision.datasets import CIFAR100

    return _open_cifar(CIFAR100, "cifar100", 100, (CIFAR100_MEAN, CIFAR100_STD), options)


def _open_cifar(
    kind: Any,
    name: str,
    classes: int,
    channels: tuple[Channels, Channels],
    options: DataOptions,
) -> DataSet:
    """The set whose pictures torchvision's `kind` reads; `channels` are means and deviations."""
    _require_cifar(kind, name, options)
    train, test = _read_splits(kind, *channels, options)
    return image_data_set(
        name,
        classes=classes,
        train=train,
        test=test,
        augmentable=("flip",),
        options=options,
    )


def _require_cifar(kind: Any, name: str, options: DataOptions) -> None:
    root = options.find_folder()
    if options.download:
        download(name, lambda: _open_pictures(kind, root, download=True), root)
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    require_intact(name, root / kind.base_folder, dict(listed))


def _read_splits(
    kind: Any, mean: Channels, std: Channels, options: DataOptions
) -> tuple[ImageSplit, ImageSplit]:
    opened = [_open_pictures(kind, options.find_folder(), train=train) for train in (True, False)]
    train, test = (_make_cifar_split(pictures, mean, std) for pictures in opened)
    return train, test


def _open_pictures(kind: Any, root: Path, **arguments: bool) -> Any:
    with warnings.catch_warnings():
        # NumPy 2.4.0 to 2.4.4 dislike the pickles of 2009, and nobody can change those.
        warnings.filterwarnings("ignore", message=r"dtype\(\): align")
        return kind(root, **arguments)


def _make_cifar_split(pictures: Any, mean: Channels, std: Channels) -> ImageSplit:
    images = torch.from_numpy(pictures.data).permute(0, 3, 1, 2).contiguous()
    return ImageSplit(images=images, labels=torch.tensor(pictures.targets), mean=mean, std=std)


SVHN_MEAN, SVHN_STD = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
SVHN_SPLITS = ("train", "test")


def svhn(options: DataOptions) -> DataSet:
    """SVHN, 73,257 + 26,032 images; the further training images ("extra") are left out.

    The cropped street view house numbers; Netzer et al. 2011.

    Raises:
        InputError: files are missing or damaged, or scipy, which reads them, is not installed.
    """
    from torchvision.datasets import SVHN

    if importlib.util.find_spec("scipy") is None:
        raise InputError("svhn is read with scipy", hint="pip install scipy")
    root = options.find_folder()
    if options.download:
        download("svhn", lambda: [SVHN(root, split, download=True) for split in SVHN_SPLITS], root)
    listed = [SVHN.split_list[split] for split in SVHN_SPLITS]
    require_intact("svhn", root, {file: md5 for _, file, md5 in listed})
    train, test = (_make_svhn_split(SVHN(root, split=split)) for split in SVHN_SPLITS)
    return image_data_set("svhn", classes=10, train=train, test=test, options=options)


def _make_svhn_split(pictures: Any) -> ImageSplit:
    images = torch.from_numpy(pictures.data).contiguous()
    labels = torch.from_numpy(pictures.labels)
    return ImageSplit(images=images, labels=labels, mean=SVHN_MEAN, std=SVHN_STD)


DELETE = "delete it and get it again"


def missing_error(name: str, folder: Path, looked_for: str) -> InputError:
    """The error that says which files of the set `name` were looked for in `folder`."""
    return InputError(
        f"{name} is not there, looked for {looked_for}",
        file=folder,
        hint="give --data-root or --download",
    )


def require_intact(name: str, folder: Path, checksums: Mapping[str, str]) -> None:
    """Refuse files of `folder` that are missing or differ from the MD5 sums of their publisher.

    The sums also keep a pickle that somebody has exchanged from being read.

    Raises:
        InputError: which files are missing, or which one is damaged.
    """
    from torchvision.datasets.utils import check_integrity

    absent = [file for file in checksums if not (folder / file).is_file()]
    if absent:
        raise missing_error(name, folder, ", ".join(absent))
    for file, checksum in checksums.items():
        if not check_integrity(folder / file, checksum):
            raise InputError("damaged, its MD5 sum is wrong", file=folder / file, hint=DELETE)


def download(name: str, fetch: Callable[[], object], root: Path) -> None:
    """Let torchvision fetch the set `name` into `root`.

    Raises:
        InputError: there is no connection, the server refuses or sends something else, or `root`
            cannot be written.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), _restrict_unpacking():  # stdout: results
            fetch()
    except (OSError, RuntimeError, tarfile.TarError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name} cannot be downloaded: {reason}",
            file=root,
            hint="get its files by other means and give their folder as --data-root",
        ) from error


@contextlib.contextmanager
def _restrict_unpacking() -> Iterator[None]:
    """In the block no archive puts a file outside of its folder, nor a link or a device in it.

    That is what tarfile does by itself from Python 3.14 on, and torchvision does not ask for.
    """
    kind: Any = tarfile.TarFile
    before = getattr(kind, "extraction_filter", None)
    if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
        kind.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        kind.extraction_filter = before
