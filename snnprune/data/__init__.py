"""Sample images for calibration, training and evaluation; nothing here imports torch.

Adding a data set is one function `(DataOptions) -> DataSet` and one row of `DATA`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snnprune.data.settings import parse_settings, split_name
from snnprune.errors import InputError, UsageError, did_you_mean, error_class_for
from snnprune.plugins.names import Registry, RegistryRow
from snnprune.plugins.user_code import load_object
from snnprune.runtime import find_cache_folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from snnprune.data.batches import Batches


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where data sets lie and how they are cut; every opener takes all of it."""

    root: Path | None = None
    """The folder of the downloaded sets; None: `$SNNPRUNE_DATA` or the user's cache."""
    download: bool = False
    """Whether a set that is not there may be fetched."""
    validation: float = 0.0
    """The part of the training images that is set aside, in [0, 1)."""
    hold_out: float = 0.0
    """The part that is set aside where nothing else is said and there are no test images."""
    seed: int = 0
    """Chooses the images that are set aside."""
    size: int | None = None
    """The side of the pictures that the model takes, in pixels; None: as they are."""
    channels: int | None = None
    """The channels that the model takes; None: as they are."""
    whole: bool = False
    """Whether a function of the user's runs them, which may take batches of any kind."""
    settings: str = ""
    """What stands behind the colon of a name in `EVENTS`, as `frames=8`."""

    def part(self, *, tested: bool) -> float:
        """The part that is set aside, where there are test images or not."""
        return self.validation or (0.0 if tested else self.hold_out)

    def find_folder(self) -> Path:
        """The folder of the downloaded sets, which need not exist."""
        return self.root or _find_default_root()


def _find_default_root() -> Path:
    if chosen := os.environ.get("SNNPRUNE_DATA"):
        return Path(chosen)
    return find_cache_folder() / "data"


SPLITS = ("train", "validation", "test")
GIVEN = "given"
"""All that somebody gave without saying what it is for."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A data set by name and how its training images were split."""

    name: str
    validation: float = 0.0
    seed: int = 0
    evaluation: str | None = None
    """Another set that choices were made on; none of the training images was set aside then."""

    def as_dict(self) -> dict[str, Any]:
        """For metadata and reports."""
        known = {"name": self.name, "validation": self.validation, "seed": self.seed}
        return known if self.evaluation is None else {**known, "evaluation": self.evaluation}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which changes a training picture may undergo."""

    crop: int = 0
    """Pixels of black added on every side before a crop of the old size is cut out."""
    flip: bool = False
    """Whether every other picture, by chance, is mirrored left to right."""
    cutout: int = 0
    """Side in pixels of the black square that is put into every picture; 0: none."""


class Split(Protocol):
    """Samples that can be gone through any number of times, always in the same order."""

    def batches(
        self, batch_size: int, *, limit: int | None = None, device: str | torch.device = "cpu"
    ) -> Batches:
        """Pairs (x, y) on `device`, ready for the model; y is None where no labels are known.

        `limit` is the number of samples after which it ends.
        """
        ...


class TrainingSplit(Split, Protocol):
    """Samples that can be trained on."""

    def steps(self, batch_size: int) -> int:
        """How many batches `shuffle` gives."""
        ...

    def shuffle(
        self,
        batch_size: int,
        *,
        key: tuple[object, ...],
        device: str | torch.device,
        augment: Augmentation,
        start: int = 0,
    ) -> Iterator[tuple[Any, Tensor | None]]:
        """Batches in an order that, like what is done to them, depends on `key` alone.

        The first `start` batches are left out; the others are the same without them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set, opened; what is not known of it is None."""

    name: str
    """As the user wrote it."""
    classes: int | None
    channels: int | None
    size: int | None
    """The side of its square pictures, in pixels."""
    time_first: bool = False
    """Whether its batches are (T, N, ...), as those of events are."""
    time_steps: int | None = None
    """T of all its samples; None where they have none, or of several lengths."""
    train: Split | None
    validation: Split | None
    test: Split | None
    given: Split | None = None
    """All images together, where nobody says what they are for."""
    held_out: float = 0.0
    """The part of `given` that was set aside for validation."""
    undivided: str | None = None
    """Why nothing could be set aside, where it should have been."""
    augmentable: tuple[str, ...] = ()
    """What may be done to its pictures without changing their class: `flip`."""
    overlaps: tuple[str, ...] = ()
    """What samples of two splits are the same, in words."""

    @property
    def noun(self) -> str:
        """What messages call its samples: `images` or `samples`."""
        return name_samples(self.name)

    @property
    def measured(self) -> str:
        """The split that says most of a network: `test`, else `validation`, else `train`."""
        return next((name for name in ("test", "validation") if getattr(self, name)), "train")

    @property
    def doubts(self) -> list[str]:
        """What numbers on these images do not tell."""
        return [*self.overlaps, *self._iter_untested()]

    def _iter_untested(self) -> Iterator[str]:
        if self.test is not None:
            return
        how = "; test data are named by --test-data, data.test or the data function"
        if self.validation is not None:
            yield f"no test {self.noun}: numbers are of validation {self.noun}{how}"
            return
        why = f" ({self.undivided})" if self.undivided else ""
        of = f"numbers are of training {self.noun}"
        yield f"neither test nor validation {self.noun}{why}: {of}{how}"

    def of(self, name: str) -> Split | None:
        """The images of `train`, `validation`, `test` or `given`."""
        found: Split | None = getattr(self, name)
        return found


__all__ = [
    "DATA",
    "FORMS",
    "GIVEN",
    "SPLITS",
    "DataOptions",
    "DataSet",
    "Split",
    "TrainingSplit",
    "open_data",
    "require_data",
]


SAMPLES, IMAGES = "samples", "images"
OF_IMAGES, OF_VIDEO, OF_AUDIO = (f"{kind}-classification" for kind in ("image", "video", "audio"))


@dataclass(frozen=True, kw_only=True)
class DataRow(RegistryRow):
    """A data set by name, or a form of one."""

    noun: str = SAMPLES
    """What messages call its samples, in the plural."""
    task: str | None = None
    """What a network for it does, as the Hugging Face Hub names tasks; None: not known."""


DATA = Registry(
    kind="data set",
    group="snnprune.data",
    rows={
        "fashion-mnist-mini": DataRow(
            target="snnprune.data.public:fashion_mnist_mini",
            summary="7,000 grey pictures of clothes, 28 x 28, 10 classes; comes with snnprune",
            noun=IMAGES,
            task=OF_IMAGES,
        ),
        "fashion-mnist": DataRow(
            target="snnprune.data.public:fashion_mnist",
            summary="70,000 grey pictures of clothes, 28 x 28, 10 classes",
            noun=IMAGES,
            task=OF_IMAGES,
        ),
        "mnist": DataRow(
            target="snnprune.data.public:mnist",
            summary="70,000 grey handwritten digits, 28 x 28, 10 classes",
            noun=IMAGES,
            task=OF_IMAGES,
        ),
        "cifar10": DataRow(
            target="snnprune.data.public:cifar10",
            summary="60,000 colour pictures, 32 x 32, 10 classes",
            noun=IMAGES,
            task=OF_IMAGES,
        ),
        "cifar100": DataRow(
            target="snnprune.data.public:cifar100",
            summary="60,000 colour pictures, 32 x 32, 100 classes",
            noun=IMAGES,
            task=OF_IMAGES,
        ),
        "svhn": DataRow(
            target="snnprune.data.public:svhn",
            summary="99,289 colour house numbers, 32 x 32, 10 classes; needs scipy",
            noun=IMAGES,
            task=OF_IMAGES,
        ),
        "nmnist": DataRow(
            target="snnprune.data.recordings:nmnist",
            summary="70,000 event recordings of digits, 2 x 34 x 34, 10 classes; needs tonic",
            task=OF_VIDEO,
        ),
        "dvs-gesture": DataRow(
            target="snnprune.data.recordings:dvs_gesture",
            summary="event recordings of gestures, 2 x 128 x 128, 11 classes; needs tonic",
            task=OF_VIDEO,
        ),
        "cifar10-dvs": DataRow(
            target="snnprune.data.recordings:cifar10_dvs",
            summary="10,000 event recordings of CIFAR-10 on a screen, 2 x 128 x 128, 10 classes; "
            "needs tonic and aedat",
            task=OF_VIDEO,
        ),
        "shd": DataRow(
            target="snnprune.data.recordings:shd",
            summary="10,420 spoken digits as spikes of 700 inputs, 20 classes; needs tonic",
            task=OF_AUDIO,
        ),
        "ssc": DataRow(
            target="snnprune.data.recordings:ssc",
            summary="105,829 spoken words as spikes of 700 inputs, 35 classes; needs tonic",
            task=OF_AUDIO,
        ),
        "moving-mini": DataRow(
            target="snnprune.data.moving:moving_mini",
            summary="2,500 event recordings of moving clothes, 8 x 2 x 32 x 32, 10 classes; "
            "made of the pictures that come with snnprune",
            task=OF_VIDEO,
        ),
    },
)

FORMS = {
    "imagefolder": DataRow(
        target="snnprune.data.user_files:open_folder",
        summary="imagefolder:DIR, pictures in a folder per class, or in DIR/train and DIR/test",
        noun=IMAGES,
        task=OF_IMAGES,
    ),
    "tensors": DataRow(
        target="snnprune.data.user_files:open_tensors",
        summary="tensors:FILE, the tensors x and, optionally, y of a .safetensors or .pt file",
    ),
    "frames": DataRow(
        target="snnprune.data.events:open_frames",
        summary="frames:DIR, SpikingJelly's .npz frames of events, a folder per class in DIR/train "
        "and DIR/test",
        task=OF_VIDEO,
    ),
}
"""Sets of the user's own: the word before the colon, and what opens the place after it."""


def is_built_in(name: str) -> bool:
    """Whether a name stands for a set of `DATA`, with settings or without."""
    named = split_name(name)
    try:
        return name in DATA.rows or (named is not None and bool(parse_settings(*named)))
    except UsageError:
        return False


def name_samples(data: str | None) -> str:
    """What messages call the samples of the set `data`, as the user named it, in the plural.

    `images` where it is known that they are pictures; without a name nothing is known of them.
    """
    row = _find_row(data)
    return row.noun if row else SAMPLES


def find_task(data: str | None) -> str | None:
    """What a network for the set `data` does, as the Hugging Face Hub names tasks.

    A recording of events is a video there, and one of a cochlea audio; None: it is not known, as of
    tensors and of a function.
    """
    row = _find_row(data)
    return row.task if row else None


def _find_row(data: str | None) -> DataRow | None:
    """The row of a set, or of a form of one, by the name that a user gave, with settings or not."""
    base = (data or "").partition(":")[0]
    events = DATA.rows.get(base) if split_name(data or "") else None
    row = DATA.rows.get(data or "") or events or FORMS.get(base)
    return row if isinstance(row, DataRow) else None


def require_data(name: str, *, field: str = "--data") -> None:
    """Check the form of a data set's name, opening and importing nothing.

    Raises:
        UsageError: it is no known name, `imagefolder:DIR`, `tensors:FILE`, `frames:DIR` or
            reference to a function, or has other settings than its set, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if (named := split_name(name)) is not None:
        parse_settings(*named, field=field)
        return
    form, _, place = name.partition(":")
    if form in FORMS and not place:
        raise error_class_for(field)(
            f"{name!r} names no place", field=field, hint=FORMS[form].summary
        )
    function = name.rpartition(":")[2]
    if form not in FORMS and place and not function.replace(".", "_").isidentifier():
        raise error_class_for(field)(
            f"unknown data set {name!r}",
            field=field,
            hint=did_you_mean(form, FORMS),
        )
    DATA.require(name, field=field)


def open_data(spec: str, *, options: DataOptions, field: str = "--data") -> DataSet:
    """Open the data set that `spec` names; this runs the user's file where it names one.

    Raises:
        UsageError: as `require_data`.
        InputError: as `require_data`, or the data is missing, damaged, empty or of another form
            than expected.
    """
    require_data(spec, field=field)
    form, _, place = spec.partition(":")
    if (named := split_name(spec)) is not None:
        spec, settings = named
        return DATA.load(spec, field=field)(replace(options, settings=settings))
    if form in FORMS:
        return load_object(FORMS[form].target, field=field)(Path(place), options)
    if spec in DATA.names():
        return DATA.load(spec, field=field)(options)
    opened: DataSet = load_object("snnprune.data.functions:open_function", field=field)(
        spec, options, field=field
    )
    return opened


@dataclass(frozen=True, kw_only=True)
class OtherData:
    """Another set, as somebody named it for the images of one split."""

    name: str | None
    field: str
    """Where it was named, for errors."""


def open_data_with(
    name: str,
    others: Mapping[str, OtherData],
    *,
    options: DataOptions,
    field: str,
    learnt_from: Collection[str] = (),
    batches: Callable[..., Any] | None = None,
) -> DataSet:
    """The set `name`, its `test` and `validation` images those of `others` where these are named.

    It may be what a function `batches` gives that is called so (see `functions.open_batches`). Of a
    set that is named for one use all images are taken, unless it says itself which are for it.
    `learnt_from` are sets that the network was trained on before.

    Raises:
        UsageError: see `open_data`.
        InputError: likewise; or the images that are named are learnt from.
    """
    from snnprune.data.overlap import note_overlap

    named = {use: other for use, other in others.items() if other.name is not None}
    if named:
        options = replace(options, hold_out=0.0)
    if batches is None:
        data = open_data(name, options=options, field=field)
    else:
        data = load_object("snnprune.data.functions:open_batches", field=field)(
            batches, name, options, field=field
        )
    plain = replace(options, validation=0.0, hold_out=0.0)
    images = {
        use: _open_images(other, use, plain, {name, *learnt_from}) for use, other in named.items()
    }
    data = replace(
        data,
        test=images.get("test", data.test),
        validation=images.get("validation", data.validation),
    )
    return note_overlap(data, {use: other.field for use, other in named.items()})


def _open_images(
    other: OtherData, use: str, options: DataOptions, learnt: Collection[str]
) -> Split | None:
    assert other.name is not None
    opened = open_data(other.name, options=options, field=other.field)
    for_it = opened.of(use) or opened.test
    if for_it is None and other.name in learnt:
        raise InputError(
            f"{other.name} is what the network learns from", field=other.field, hint="name others"
        )
    return for_it or opened.given or opened.train
