"""Samples that lie in time: frames of events in memory, and SpikingJelly's folders of them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from snnprune.data import SPLITS, Augmentation, DataOptions, DataSet
from snnprune.data.images import (
    Batch,
    Device,
    ImageSplit,
    image_data_set,
    vary_images,
)
from snnprune.data.overlap import note_overlap
from snnprune.errors import InputError
from snnprune.files.reading import open_for_reading


@dataclass(frozen=True, kw_only=True, eq=False)
class EventSplit(ImageSplit):
    """N recordings as frames (N, T, C, H, W) or (N, T, C); batches go out as float (T, N, ...).

    Where recordings are of several lengths, all samples of a batch have the same: nothing is
    padded, so that no step that is not data is counted, averaged or learnt from.
    """

    lengths: Tensor | None = None  # (N,), int64, the steps of each; None: all have T

    @property
    def sample_shape(self) -> torch.Size:
        """(C, H, W) of one frame, or (C,)."""
        return self.images.shape[2:]

    @property
    def time_steps(self) -> int | None:
        """T; None where recordings differ."""
        return self.images.shape[1] if self.lengths is None else None

    def subset(self, indices: Tensor | slice) -> Self:
        """The samples at `indices`, in that order."""
        chosen = super().subset(indices)
        if self.lengths is None:
            return chosen
        return replace(chosen, lengths=self.lengths[_on_cpu(indices)])

    def cut_in_order(self, end: int, batch_size: int) -> Sequence[Tensor | slice]:
        """As that of images; of several lengths the shortest come first."""
        if self.lengths is None:
            return super().cut_in_order(end, batch_size)
        return self._cut_alike(torch.arange(end), batch_size)

    def steps(self, batch_size: int) -> int:
        """How many batches `shuffle` gives."""
        if self.lengths is None:
            return super().steps(batch_size)
        return len(self._cut_alike(torch.arange(len(self)), batch_size))

    def deal(self, order: Tensor, batch_size: int, device: Device) -> tuple[Self, Sequence[Tensor]]:
        """As that of images; of several lengths each batch has one, and batches are mixed."""
        if self.lengths is None:
            return super().deal(order, batch_size, device)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        chunks = self._cut_alike(order, batch_size)
        chunks.sort(key=lambda chunk: int(place[chunk[0]]))  # where chance put their first sample
        return self, chunks

    def vary(self, augment: Augmentation, draws: torch.Generator) -> Tensor:
        """The frames, all of a recording changed in the same way."""
        if self.images.ndim != 5 or augment == Augmentation():
            return vary_images(self.images, augment, draws)
        together = vary_images(self.images.flatten(1, 2), augment, draws)
        return together.view(self.images.shape)

    def normalise(self) -> Batch:
        """The samples, all of one length, as they are fed: counts of events, time first."""
        steps = self.images.shape[1] if self.lengths is None else int(self.lengths[0])
        return self.images[:, :steps].transpose(0, 1).float().contiguous(), self.labels

    def _cut_alike(self, order: Tensor, batch_size: int) -> list[Tensor]:
        """The samples of `order` in batches of one length, within a length in that order."""
        assert self.lengths is not None
        lengths = self.lengths[order]
        chunks: list[Tensor] = []
        for length in lengths.unique(sorted=True):
            chunks += order[lengths == length].split(batch_size)
        return chunks


def _on_cpu(indices: Tensor | slice) -> Tensor | slice:
    return indices.cpu() if isinstance(indices, Tensor) else indices


def event_data_set(
    name: str,
    *,
    classes: int | None,
    train: EventSplit,
    test: EventSplit | None,
    validation: EventSplit | None = None,
    options: DataOptions,
) -> DataSet:
    """The set `name`, see `image_data_set`; its batches have time first.

    Raises:
        InputError: as `image_data_set`.
    """
    opened = image_data_set(
        name, classes=classes, train=train, test=test, validation=validation, options=options
    )
    splits = [split for split in (train, validation, test) if split is not None]
    steps = {split.time_steps for split in splits}
    return replace(
        opened,
        channels=train.sample_shape[0],
        time_first=True,
        time_steps=steps.pop() if len(steps) == 1 else None,
    )


def stack_recordings(recordings: Sequence[np.ndarray[Any, Any]]) -> tuple[Tensor, Tensor | None]:
    """Frames (N, T, ...), zeros behind shorter ones, and lengths (N,) where they differ.

    The narrowest type that holds every count: uint8, int16, int32, or float32 for other values.
    """
    lengths = torch.tensor([len(one) for one in recordings])
    longest, places = int(lengths.max()), recordings[0].shape[1:]
    held = np.zeros((len(recordings), longest, *places), find_type(recordings))
    for row, one in zip(held, recordings, strict=True):
        row[: len(one)] = one
    alike = bool((lengths == longest).all())
    return torch.from_numpy(held), None if alike else lengths


def find_type(recordings: Sequence[np.ndarray[Any, Any]]) -> type[np.generic]:
    """The narrowest type of `stack_recordings` that keeps all values as they are."""
    highest = 0
    for one in recordings:
        if one.dtype.kind == "f" and not bool((one == np.floor(one)).all()):
            return np.float32
        lowest = one.min(initial=0)
        highest = max(highest, int(one.max(initial=0)))
        if lowest < 0:
            return np.float32
    limits = ((2**8, np.uint8), (2**15, np.int16), (2**31, np.int32))
    return next((kind for limit, kind in limits if highest < limit), np.float32)


FRAMES = "frames"
"""The array of SpikingJelly's files: (T, C, H, W)."""


def open_frames(folder: Path, options: DataOptions) -> DataSet:
    """The `.npz` or `.npy` files of `folder`/train and /test, or of `folder`, a folder per class.

    As SpikingJelly writes them, (T, C, H, W): `frames_number_8_split_by_number` and the like.

    Raises:
        InputError: there are none, a file is damaged or holds no frames, they differ in shape but
            for T, or the parts have other classes.
    """
    parts = _find_parts(folder)
    classes = _list_classes(parts["train"])
    splits = {name: _read_part(place, classes) for name, place in parts.items()}
    shapes = {split.sample_shape for split in splits.values()}
    if len(shapes) > 1:
        raise InputError(f"has frames of {' and '.join(map(str, map(tuple, shapes)))}", file=folder)
    opened = event_data_set(
        f"frames:{folder}",
        classes=len(classes),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        options=options,
    )
    return note_overlap(opened, {name: "--data" for name in SPLITS[1:] if name in splits})


def _find_parts(folder: Path) -> dict[str, Path]:
    """The folders of classes, by split."""
    if not folder.is_dir():
        raise InputError("no such folder", file=folder)
    names = (
        ("train", "train"),
        ("validation", "val"),
        ("validation", "validation"),
        ("test", "test"),
    )
    found = {use: folder / name for use, name in names if (folder / name).is_dir()}
    return found if "train" in found else {"train": folder}


def _list_classes(folder: Path) -> list[str]:
    """The classes, numbers by number, else by name: the label is the place in this order."""
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    if not names:
        raise InputError(
            "holds no folder per class",
            file=folder,
            hint="name the folder of train and test, as frames_number_8_split_by_number",
        )
    if all(name.isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _read_part(folder: Path, classes: list[str]) -> EventSplit:
    here = _list_classes(folder)
    if odd := sorted(set(here) ^ set(classes)):
        raise InputError(
            f"has not the classes of train: {', '.join(odd[:5])}",
            file=folder,
            hint="give both the same folders",
        )
    found = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix in (".npz", ".npy")
    ]
    if not found:
        raise InputError("holds no .npz file", file=folder)
    recordings = [read_recording(path) for path, _ in found]
    for (path, _), one in zip(found, recordings, strict=True):
        if one.shape[1:] != recordings[0].shape[1:]:
            raise InputError(
                f"has frames of {one.shape[1:]}, {found[0][0].name} of {recordings[0].shape[1:]}",
                file=path,
            )
    images, lengths = stack_recordings(recordings)
    return EventSplit(
        images=images, labels=torch.tensor([label for _, label in found]), lengths=lengths
    )


def read_recording(path: Path) -> np.ndarray[Any, Any]:
    """The frames (T, C, H, W) of a file, whole numbers in the narrowest type; no pickle is read.

    Raises:
        InputError: it is damaged, or holds no such frames.
    """
    try:
        with open_for_reading(path) as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                frames = loaded
            elif FRAMES in loaded:
                frames = loaded[FRAMES]
            else:
                named = ", ".join(list(loaded)[:5]) or "nothing"
                raise InputError(f"holds {named}, expected {FRAMES}", file=path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot be read: {error}", file=path, hint="make it again") from error
    real = frames.dtype.kind in "buif"
    if frames.ndim != 4 or not frames.size or not real or not bool(np.isfinite(frames).all()):
        raise InputError(
            f"holds {frames.shape} of {frames.dtype}, expected finite frames (T, C, H, W)",
            file=path,
        )
    return frames.astype(find_type([frames]))
