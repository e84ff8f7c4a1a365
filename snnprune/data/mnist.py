"""MNIST and Fashion-MNIST, whole and in the small bundled form.

`python -m snnprune.data.mnist FOLDER` takes the bundled images out of Fashion-MNIST, whose four
original files are in FOLDER. Running it again gives the same bytes.
"""

import gzip
import math
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnprune.data.dataset import DataOptions, DataSet
from snnprune.data.downloads import DELETE, download, missing_error
from snnprune.data.images import ImageSplit, image_data_set
from snnprune.errors import InputError
from snnprune.files.reading import open_for_reading
from snnprune.files.writing import replace_file
from snnprune.runtime import derive_seed

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
