"""Samples of the user's own: pictures in one folder per class, or the tensors of a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from snnprune.data import SPLITS, DataOptions, DataSet
from snnprune.data.images import ImageSplit, image_data_set
from snnprune.data.overlap import note_copies, note_overlap
from snnprune.errors import InputError
from snnprune.files.reading import open_for_reading

# ImageNet's, and not the folder's own: a network must see the same values in another folder.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Those of the endings that torchvision looks for: for others Pillow may start programs, as gs."""


def open_folder(folder: Path, options: DataOptions) -> DataSet:
    """The pictures under `folder`/train, /val and /test, or under `folder` itself.

    One of val and test may be left out, and where `folder` holds the classes themselves there is
    neither.

    Raises:
        InputError: there are no classes or pictures, the parts have other classes, a picture is
            damaged, or the pictures differ in size and `options.size` does not say what to make
            of them.
    """
    listings = {name: _list_folder(part) for name, part in _find_folders(folder).items()}
    train = listings["train"]
    for listing in listings.values():
        _require_same_classes(train, listing)
    images = _decode_pictures(
        [path for listing in listings.values() for path in _list_paths(listing)], options
    )
    sizes = [len(listing.samples) for listing in listings.values()]
    parts = zip(listings.items(), images.split(sizes), strict=True)
    splits = {name: _make_split(pictures, listing) for (name, listing), pictures in parts}
    opened = image_data_set(
        f"imagefolder:{folder}",
        classes=len(train.classes),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        options=options,
    )
    fields = {name: "--data" for name in SPLITS[1:] if name in splits}
    return note_copies(opened) if opened.held_out else note_overlap(opened, fields)


def _find_folders(folder: Path) -> dict[str, Path]:
    """The folders of pictures, by split."""
    if not folder.is_dir():
        raise InputError("no such folder", file=folder)
    train = folder / "train"
    others = (("validation", "val"), ("validation", "validation"), ("test", "test"))
    found = {use: folder / name for use, name in others if (folder / name).is_dir()}
    if not train.is_dir():
        return {"train": folder}
    if found or any(entry.is_dir() for entry in train.iterdir()):
        return {"train": train, **found}
    return {"train": folder}  # a class of pictures of trains


def _list_folder(folder: Path) -> Any:
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise InputError(
            f"no pictures: {str(error).rstrip('.')}",
            file=folder,
            hint="put pictures into a folder per class",
        ) from error


def _require_same_classes(train: Any, test: Any) -> None:
    if odd := sorted(set(train.classes) ^ set(test.classes)):
        raise InputError(
            f"has not the classes of {train.root}: {', '.join(odd[:5])}",
            file=test.root,
            hint="give both the same folders",
        )


def _list_paths(listing: Any) -> list[Path]:
    return [Path(path) for path, _ in listing.samples]


def _make_split(images: Tensor, listing: Any) -> ImageSplit:
    grey = images.shape[1] == 1
    return ImageSplit(
        images=images,
        labels=torch.tensor(listing.targets),
        mean=GREY_MEAN if grey else RGB_MEAN,
        std=GREY_STD if grey else RGB_STD,
    )


def _decode_pictures(paths: list[Path], options: DataOptions) -> Tensor:
    """Every picture, (N, C, H, W), uint8."""
    first = _decode_picture(paths[0], options)
    images = torch.empty((len(paths), *first.shape), dtype=torch.uint8)
    for index, path in enumerate(paths):
        picture = _decode_picture(path, options)
        if picture.shape != first.shape:
            raise InputError(
                f"is {_format_sides(picture)} and {paths[0]} is {_format_sides(first)} pixels",
                file=path,
                hint="scale the pictures to one size, or name a model that takes one size",
            )
        images[index] = picture
    return images


def _decode_picture(path: Path, options: DataOptions) -> Tensor:
    from torchvision.transforms import functional

    # not by its name: Pillow would map it, and a mapped file that is cut ends the process
    with open_for_reading(path) as file:
        picture = _decode_file(file, path, "L" if options.channels == 1 else "RGB")
    if options.size is not None:
        shorter_side = functional.resize(picture, options.size)
        picture = functional.center_crop(shorter_side, options.size)
    return functional.pil_to_tensor(picture)


def _decode_file(file: BinaryIO, path: Path, mode: str) -> Any:
    """The picture of Pillow in an open file."""
    from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as opened:
            return opened.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"cannot be decoded: {error}", file=path, hint="replace or remove it"
        ) from error


def _format_sides(picture: Tensor) -> str:
    return f"{picture.shape[2]} x {picture.shape[1]}"


MOST_CLASSES = 2**20
"""More than any data set has: a network of as many outputs as a label says fills the memory."""


def open_tensors(file: Path, options: DataOptions) -> DataSet:
    """The samples `x` (N, ...) of `file`, with the labels `y` (N,) where it has them.

    So for `x_test`, `y_test` and `x_validation`, `y_validation`, where they are there. uint8 is
    divided by 255, anything else goes out as float32.

    Raises:
        InputError: the file cannot be read, has no `x`, or `x` and `y` are not as above.
    """
    from snnprune.checkpoint.containers import read_checkpoint

    # Its own refusal of NaN speaks of weights; `_check_samples` refuses it in words about data.
    tensors = read_checkpoint(file, allow_nonfinite=True).tensors
    train = _read_split(tensors, "", file)
    if train is None:
        named = ", ".join(list(tensors)[:5]) or "nothing"
        raise InputError(f"holds {named}", file=file, field="x", hint="name the samples x")
    validation, test = (_read_split(tensors, f"_{name}", file) for name in SPLITS[1:])
    for name, split in (("x_validation", validation), ("x_test", test)):
        if split is not None and split.images.shape[1:] != train.images.shape[1:]:
            raise InputError(
                f"has samples of shape {tuple(split.images.shape[1:])}, "
                f"those of x have {tuple(train.images.shape[1:])}",
                file=file,
                field=name,
            )
    labels = [split.labels for split in (train, validation, test) if split is not None]
    known = [int(y.max()) + 1 for y in labels if y is not None]
    opened = image_data_set(
        f"tensors:{file}",
        classes=max(known, default=None),
        train=train,
        validation=validation,
        test=test,
        options=options,
    )
    parts = {"validation": validation, "test": test}
    fields = {name: f"x_{name}" for name, split in parts.items() if split is not None}
    return note_copies(opened) if opened.held_out else note_overlap(opened, fields)


def _read_split(tensors: Mapping[str, Tensor], end: str, file: Path) -> ImageSplit | None:
    """The samples `x` and labels `y` whose names have that end, None without samples."""
    x_name, y_name = f"x{end}", f"y{end}"
    if x_name not in tensors:
        if y_name in tensors:
            raise InputError(f"has no {x_name}", file=file, field=y_name, hint="name both")
        return None
    x = _check_samples(tensors[x_name], x_name, file)
    y = _check_labels(tensors[y_name], y_name, len(x), file) if y_name in tensors else None
    return ImageSplit(images=x, labels=y)


def _check_samples(x: Tensor, name: str, file: Path) -> Tensor:
    if x.ndim < 2 or not x.numel() or x.is_complex():
        raise InputError(
            f"has shape {tuple(x.shape)} and type {x.dtype}, expected real values (N, ...)",
            file=file,
            field=name,
        )
    if x.dtype == torch.uint8:
        return x
    x = x.float()
    if not x.isfinite().all():
        raise InputError("has NaN or infinity in it", file=file, field=name)
    return x


def _check_labels(y: Tensor, name: str, samples: int, file: Path) -> Tensor:
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or y.shape != (samples,):
        raise InputError(
            f"has shape {tuple(y.shape)} and type {y.dtype}, expected {samples} whole numbers",
            file=file,
            field=name,
        )
    largest = max(y.unique().tolist())  # of all whole numbers: a uint64 may be none of int64
    if largest >= MOST_CLASSES:
        raise InputError(
            f"label {largest} is the number of no class",
            file=file,
            field=name,
            hint=f"count classes from 0, {MOST_CLASSES:,} at most",
        )
    return y.long()
