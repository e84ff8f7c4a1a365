"""Public data sets: CIFAR and SVHN as torchvision lays them out, MNIST and Fashion-MNIST.

`python -m snnprune.data.public FOLDER` takes the bundled images out of Fashion-MNIST, whose four
original files are in FOLDER. Running it again gives the same bytes.
"""

import contextlib
import gzip
import importlib.util
import math
import struct
import sys
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.data import DataOptions, DataSet
from snnprune.data.images import ImageSplit, image_data_set
from snnprune.errors import InputError
from snnprune.files.reading import open_for_reading
from snnprune.files.writing import replace_file
from snnprune.runtime import derive_seed

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


PARTS = ("train", "t10k")
NAMES = tuple(f"{part}-{what}-ubyte" for part in PARTS for what in ("images-idx3", "labels-idx1"))
"""The four files of a set, each also accepted with `.gz` behind it."""

UNSIGNED_BYTES = 0x08


def find_idx_file(folder: Path, name: str) -> Path | None:
    """The file `name` or `name.gz` in `folder`, if there is one."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_part(folder: Path, part: str, *, hint: str) -> tuple[Tensor, Tensor]:
    """The images (N, 1, H, W), uint8, and labels (N,), int64, of `part`.

    Raises:
        InputError: a file is missing or damaged, or they do not belong together; ends in `hint`.
    """
    images, labels = (
        _read_idx(folder, f"{part}-{what}-ubyte", dimensions, hint)
        for what, dimensions in (("images-idx3", 3), ("labels-idx1", 1))
    )
    if len(images) != len(labels):
        raise InputError(
            f"{part} has {len(images)} images and {len(labels)} labels", file=folder, hint=hint
        )
    return images.unsqueeze(1), labels.long()


def encode_idx(values: Tensor) -> bytes:
    """The IDX file of a uint8 tensor."""
    header = struct.pack(f">HBB{values.ndim}I", 0, UNSIGNED_BYTES, values.ndim, *values.shape)
    return header + values.numpy().tobytes()


def _read_idx(folder: Path, name: str, dimensions: int, hint: str) -> Tensor:
    path = find_idx_file(folder, name)
    if path is None:
        raise InputError("no such file", file=folder / f"{name}.gz", hint=hint)
    try:
        return _parse_idx(_read_bytes(path), dimensions)
    except (OSError, EOFError, zlib.error, ValueError, struct.error) as error:
        raise InputError(f"damaged: {error}", file=path, hint=hint) from error


def _read_bytes(path: Path) -> bytes:
    with open_for_reading(path) as file:
        data = file.read()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _parse_idx(data: bytes, dimensions: int) -> Tensor:
    zero, kind, found = struct.unpack_from(">HBB", data)
    if (zero, kind, found) != (0, UNSIGNED_BYTES, dimensions):
        raise ValueError(f"not an IDX file of bytes in {dimensions} dimensions")
    start = 4 + 4 * dimensions
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    if len(data) - start != math.prod(shape) or not math.prod(shape):
        raise ValueError(f"holds {len(data) - start} values where {shape} are announced")
    # A bytearray, because torch warns of tensors over memory that cannot be written.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(shape)


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
        _read_split(BUNDLED, part, FASHION_MEAN, FASHION_STD, hint="reinstall snnprune")
        for part in PARTS
    )
    return image_data_set(
        "fashion-mnist-mini",
        classes=CLASSES,
        train=train,
        test=test,
        augmentable=("flip",),
        options=options,
    )


def fashion_mnist(options: DataOptions) -> DataSet:
    """Fashion-MNIST, 60,000 + 10,000 images; Xiao et al. 2017, arXiv 1708.07747.

    Raises:
        InputError: files are missing or damaged.
    """
    from torchvision.datasets import FashionMNIST

    folder = _find_folder("fashion-mnist", FashionMNIST, options)
    train, test = (_read_split(folder, part, FASHION_MEAN, FASHION_STD) for part in PARTS)
    return image_data_set(
        "fashion-mnist",
        classes=CLASSES,
        train=train,
        test=test,
        augmentable=("flip",),
        options=options,
    )


def mnist(options: DataOptions) -> DataSet:
    """MNIST, 60,000 + 10,000 images; LeCun et al. 1998.

    Raises:
        InputError: files are missing or damaged.
    """
    from torchvision.datasets import MNIST

    folder = _find_folder("mnist", MNIST, options)
    train, test = (_read_split(folder, part, MNIST_MEAN, MNIST_STD) for part in PARTS)
    return image_data_set("mnist", classes=CLASSES, train=train, test=test, options=options)


def _find_folder(name: str, kind: Callable[..., Any], options: DataOptions) -> Path:
    """The folder with the four files: torchvision's own, or one that bears the set's name."""
    root = options.find_folder()
    own = root / kind.__name__ / "raw"
    candidates = (own, root / name)
    found = next((folder for folder in candidates if _is_complete(folder)), None)
    if found is None and options.download:
        download(name, lambda: kind(root, download=True), root)
        return own
    if found is None:
        files = ", ".join(f"{file}.gz" for file in NAMES)
        raise missing_error(name, own, f"{files} here and in {root / name}")
    return found


def _is_complete(folder: Path) -> bool:
    return all(find_idx_file(folder, name) for name in NAMES)


def _read_split(
    folder: Path,
    part: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    hint: str = DELETE,
) -> ImageSplit:
    images, labels = read_part(folder, part, hint=hint)
    return ImageSplit(images=images, labels=labels, mean=mean, std=std)


PER_CLASS = {"train": 600, "t10k": 100}


def write_bundled(source: Path, target: Path) -> None:
    """Write the chosen images and labels of `source` as four IDX files into `target`."""
    for part, count in PER_CLASS.items():
        images, labels = read_part(source, part, hint="get the original files")
        chosen = _choose_bundled(labels, part, count)
        _write_idx(target / f"{part}-images-idx3-ubyte.gz", images[chosen].squeeze(1))
        _write_idx(target / f"{part}-labels-idx1-ubyte.gz", labels[chosen].to(torch.uint8))


def _choose_bundled(labels: Tensor, part: str, count: int) -> list[int]:
    """The indices of `count` images per class, in order."""
    chosen: list[int] = []
    for label in range(CLASSES):
        members = (labels == label).nonzero().flatten().tolist()
        # By hash and not by torch's generator, so that no release of torch changes the choice.
        members.sort(key=lambda index: derive_seed("fashion-mnist", part, index))
        chosen += members[:count]
    return sorted(chosen)


def _write_idx(path: Path, values: Tensor) -> None:
    with (
        replace_file(path) as temporary,
        temporary.open("wb") as file,
        # No name and no time of writing in the header.
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed,
    ):
        packed.write(encode_idx(values))


if __name__ == "__main__":
    write_bundled(Path(sys.argv[1]), BUNDLED)
