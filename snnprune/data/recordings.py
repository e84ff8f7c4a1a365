"""Public sets of event recordings, read by tonic: cut into frames once, and kept.

tonic is asked for nothing but to fetch and to read: it would fetch by itself whatever is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, from_numpy

from snnprune.data import DataOptions, DataSet
from snnprune.data.events import EventSplit, event_data_set, stack_recordings
from snnprune.data.public import DELETE, download, missing_error
from snnprune.data.settings import EVENTS, EventSettings, parse_settings
from snnprune.errors import InputError, OutputError
from snnprune.files.writing import replace_file

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set as tonic has it."""

    kind: str
    """Its class in `tonic.datasets`."""
    classes: int
    sensor: tuple[int, ...]
    """(height, width), or (inputs,) where there are no pictures."""
    polarities: int
    parts: Mapping[str, Mapping[str, Any]]
    """What tonic is told for each split."""
    files: str
    """What its recordings are called."""
    least: Mapping[str, int]
    """How many there are, as far as that is known for sure."""
    packages: tuple[str, ...] = ()
    """What else reads them."""


TRAIN_TEST: Mapping[str, Mapping[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
SPLITS = {name: {"split": name} for name in ("train", "valid", "test")}

SOURCES: Mapping[str, Source] = {
    "nmnist": Source(
        kind="NMNIST",
        classes=10,
        sensor=(34, 34),
        polarities=2,
        parts=TRAIN_TEST,
        files="*.bin",
        least={"train": 60000, "test": 10000},
    ),
    "dvs-gesture": Source(
        kind="DVSGesture",
        classes=11,
        sensor=(128, 128),
        polarities=2,
        parts=TRAIN_TEST,
        files="*.npy",
        least={"train": 100, "test": 100},
    ),
    "cifar10-dvs": Source(
        kind="CIFAR10DVS",
        classes=10,
        sensor=(128, 128),
        polarities=2,
        parts={"train": {}},
        files="*.aedat4",
        least={"train": 10000},
        packages=("aedat",),
    ),
    "shd": Source(
        kind="SHD",
        classes=20,
        sensor=(700,),
        polarities=1,
        parts=TRAIN_TEST,
        files="shd_*.h5",
        least={"train": 8156, "test": 2264},
    ),
    "ssc": Source(
        kind="SSC",
        classes=35,
        sensor=(700,),
        polarities=1,
        parts=SPLITS,
        files="ssc_*.h5",
        least={"train": 75466, "valid": 9981, "test": 20382},
    ),
}


def nmnist(options: DataOptions) -> DataSet:
    """N-MNIST, 60,000 + 10,000 recordings of digits; Orchard et al. 2015.

    Raises:
        InputError: files are missing or damaged, or tonic is not installed.
    """
    return _open_set("nmnist", options)


def dvs_gesture(options: DataOptions) -> DataSet:
    """DVS128 Gesture, eleven gestures; Amir et al. 2017. As tonic has it, cut by gesture.

    Raises:
        InputError: as `nmnist`.
    """
    return _open_set("dvs-gesture", options)


def cifar10_dvs(options: DataOptions) -> DataSet:
    """CIFAR10-DVS, 10,000 recordings; Li et al. 2017. It has no test recordings of its own.

    The last tenth of each class is the test part, as most papers have it.

    Raises:
        InputError: as `nmnist`.
    """
    return _open_set("cifar10-dvs", options)


def shd(options: DataOptions) -> DataSet:
    """Spiking Heidelberg Digits, 8,156 + 2,264 recordings; Cramer et al. 2020, arXiv 1910.07407.

    Raises:
        InputError: as `nmnist`.
    """
    return _open_set("shd", options)


def ssc(options: DataOptions) -> DataSet:
    """Spiking Speech Commands, 75,466 + 9,981 + 20,382 recordings; Cramer et al. 2020.

    Raises:
        InputError: as `nmnist`.
    """
    return _open_set("ssc", options)


def _open_set(name: str, options: DataOptions) -> DataSet:
    settings = parse_settings(name, options.settings)
    source = SOURCES[name]
    splits = {part: _open_part(name, part, settings, options) for part in source.parts}
    if "test" not in splits:
        splits |= _split_last_tenth(splits["train"])
    plain = settings == EVENTS[name].usual
    return event_data_set(
        name if plain else f"{name}:{settings.format()}",
        classes=source.classes,
        train=splits["train"],
        validation=splits.get("valid"),
        test=splits["test"],
        options=options,
    )


def _split_last_tenth(split: EventSplit) -> dict[str, EventSplit]:
    """The last tenth of each class, for tests, and the rest."""
    assert split.labels is not None
    is_last = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = (split.labels == label).nonzero().flatten()
        is_last[members[len(members) - max(1, len(members) // 10) :]] = True
    return {
        "train": split.subset((~is_last).nonzero().flatten()),
        "test": split.subset(is_last.nonzero().flatten()),
    }


def _open_part(name: str, part: str, settings: EventSettings, options: DataOptions) -> EventSplit:
    """The frames of a part: those that were kept, or cut now and kept."""
    root = options.find_folder()
    place = root / "frames" / name / f"{part}-{settings.format().replace(',', '-')}.safetensors"
    kept = _read_frames(place)
    if kept is not None:
        return kept
    recordings = _open_recordings(name, part, root, fetch=options.download)
    made = _cut_recordings(recordings, settings, SOURCES[name], root)
    _keep_frames(place, made)
    return made


def _read_frames(place: Path) -> EventSplit | None:
    """What was kept there; None where nothing was, or something else lies there."""
    try:
        with safe_open(place, "pt") as file:
            if (file.metadata() or {}).get("made") != RULES:
                return None
            tensors = {key: file.get_tensor(key) for key in [*file.keys()]}
        return EventSplit(images=tensors["x"], labels=tensors["y"], lengths=tensors.get("lengths"))
    except (OSError, SafetensorError, KeyError):
        return None


RULES = "1"
"""Another number where frames are cut in another way, so that none are taken that were kept."""


def _keep_frames(place: Path, split: EventSplit) -> None:
    assert split.labels is not None
    tensors = {"x": split.images, "y": split.labels}
    if split.lengths is not None:
        tensors["lengths"] = split.lengths
    with contextlib.suppress(OSError, OutputError):  # a folder that others own: cut anew each time
        place.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(place) as temporary:
            save_file(tensors, temporary, {"made": RULES})


class Recordings:
    """The recordings of one part, as tonic reads them one by one."""

    def __init__(self, inner: Any, root: Path) -> None:
        self.inner, self.root = inner, root

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[tuple[Array, int]]:
        for number in range(len(self.inner)):
            try:
                events, label = self.inner[number]
            except Exception as error:  # whatever a reader of three formats may raise
                raise InputError(
                    f"recording {number} is damaged: {error}", file=self.root, hint=DELETE
                ) from error
            yield events, int(label)


def _open_recordings(name: str, part: str, root: Path, *, fetch: bool) -> Recordings:
    """The recordings of tonic's folder under `root`; fetched where that was asked for."""
    source = SOURCES[name]
    base = _load_kind(name, source)
    folder = root / source.kind

    def refuse(_: object) -> None:
        raise missing_error(name, folder, source.files)

    def is_there(_: object) -> bool:
        return any(folder.rglob(_pattern(source, part)))

    # tonic looks for the archive too, and fetches whatever it does not find
    kind = type(source.kind, (base,), {"_check_exists": is_there})
    if not fetch:
        kind = type(source.kind, (kind,), {"download": refuse})
    opened: list[Any] = []

    def begin() -> None:
        opened.append(kind(str(root), **source.parts[part]))

    try:
        if is_there(None) or not fetch:
            begin()
        else:
            download(name, begin, root)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot be read: {error}", file=folder, hint=DELETE) from error
    _require_whole(name, part, len(opened[0]), folder)
    _sort_recordings(opened[0])
    return Recordings(opened[0], folder)


def _sort_recordings(inner: Any) -> None:
    """Put files into the order of their names, numbers by value: tonic has some as the disk does.

    What is set aside, by seed or as the last of a class, is the same on every machine then.
    """
    if not inner.data:  # of one file, which has an order
        return

    def key(pair: tuple[str, int]) -> list[Any]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", pair[0])]

    pairs = sorted(zip(map(str, inner.data), inner.targets, strict=True), key=key)
    inner.data, inner.targets = [path for path, _ in pairs], [label for _, label in pairs]


def _pattern(source: Source, part: str) -> str:
    """The files of a part in tonic's folder."""
    if source.files.endswith(".h5"):
        return source.files.replace("*", part)
    folders = {"NMNIST": ("Train", "Test"), "DVSGesture": ("ibmGestureTrain", "ibmGestureTest")}
    if source.kind not in folders:
        return source.files
    return f"{folders[source.kind][part == 'test']}/**/{source.files}"


def _require_whole(name: str, part: str, found: int, folder: Path) -> None:
    least = SOURCES[name].least[part]
    if found < least:
        raise InputError(
            f"has {found} {part} recordings of {least:,}", file=folder, hint="get it again"
        )


def _load_kind(name: str, source: Source) -> Any:
    """tonic's class.

    Raises:
        InputError: tonic, or what reads the files beside it, is not installed.
    """
    missing = [one for one in ("tonic", *source.packages) if not importlib.util.find_spec(one)]
    if missing:
        raise InputError(
            f"{name} is read with {' and '.join(missing)}", hint="pip install 'snnprune[events]'"
        )
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # of tonic's own imports, as that a package of its is old: nobody here can mend them
        warnings.simplefilter("ignore")
        try:
            return getattr(importlib.import_module("tonic.datasets"), source.kind)
        except ImportError as error:
            raise InputError(
                f"tonic cannot be imported: {error}", hint="pip install 'snnprune[events]'"
            ) from error


def _cut_recordings(
    recordings: Recordings, settings: EventSettings, source: Source, root: Path
) -> EventSplit:
    labels, store = [], _FrameStore(len(recordings), fixed=settings.cut != "window")
    for events, label in recordings:
        if not len(events):
            raise InputError("has a recording without events", file=root / source.kind)
        store.add(cut_recording(events, settings, source.sensor, source.polarities))
        labels.append(label)
    images, lengths = store.stack()
    return EventSplit(images=images, labels=torch.tensor(labels), lengths=lengths)


class _FrameStore:
    """Frames of recordings; where all have T steps they are there once and not twice."""

    def __init__(self, count: int, *, fixed: bool) -> None:
        self.count, self.fixed = count, fixed
        self.held: Array | None = None
        self.added: list[Array] = []
        self.number = 0

    def add(self, one: Array) -> None:
        if not self.fixed:
            self.added.append(one)
            return
        if self.held is None:
            self.held = np.zeros((self.count, *one.shape), one.dtype)
        if self.held.dtype != one.dtype and one.dtype == np.int32:
            self.held = self.held.astype(np.int32)
        self.held[self.number] = one
        self.number += 1

    def stack(self) -> tuple[Tensor, Tensor | None]:
        """(N, T, ...) and lengths where they differ."""
        return stack_recordings(self.added) if self.held is None else (from_numpy(self.held), None)


def cut_recording(
    events: Array, settings: EventSettings, sensor: tuple[int, ...], polarities: int
) -> Array:
    """Counts of events, (T, polarities, size, size) or (T, size) where there are no pictures.

    `events` has fields t in microseconds, x, and y and p where there are some. Places of the
    sensor go to the place of the same share of a smaller side, and their events are added.
    """
    times = events["t"].astype(np.int64)
    if bool((np.diff(times) < 0).any()):
        order = np.argsort(times, kind="stable")
        events, times = events[order], times[order]
    for field, side in zip(("y", "x")[-len(sensor) :], sensor, strict=True):
        if int(events[field].min()) < 0 or int(events[field].max()) >= side:
            raise InputError(f"has an event outside of {side} places in {field}", field="--data")
    step, steps = number_steps(times, settings)
    shape: tuple[int, ...] = (steps, settings.size)
    place = step * settings.size + _scale(events["x"], sensor[-1], settings.size)
    if len(sensor) == 2:
        shape = (steps, polarities, settings.size, settings.size)
        row = step * polarities + events["p"].astype(np.int64)
        row = row * settings.size + _scale(events["y"], sensor[0], settings.size)
        place = row * settings.size + _scale(events["x"], sensor[1], settings.size)
    counts = np.bincount(place, minlength=int(np.prod(shape))).reshape(shape)
    return counts.astype(np.uint8 if int(counts.max()) < 2**8 else np.int32)


def number_steps(times: Array, settings: EventSettings) -> tuple[Array, int]:
    """The frame of each event, and T. Times (E,) in microseconds, int64, in their order.

    `frames`: E // T events each, those left over in the last, as SpikingJelly's split by number.
    `bins`: the time from the first to the last event in T parts, what is left over in the last,
    as SpikingJelly's split by time.
    `window`: milliseconds from the first event on, as many as there are.
    """
    count = settings.count
    if settings.cut == "frames":
        each = max(1, len(times) // count)
        return np.minimum(np.arange(len(times)) // each, count - 1), count
    passed = times - times.min()
    if settings.cut == "bins":
        each = max(1, int(passed.max()) // count)
        return np.minimum(passed // each, count - 1), count
    step = passed // (1000 * count)
    return step, int(step.max()) + 1


def _scale(places: Array, sensor: int, size: int) -> Array:
    return places.astype(np.int64) * size // sensor
