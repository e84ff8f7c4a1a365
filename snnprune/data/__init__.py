"""Sample images for calibration, training and evaluation; nothing here imports torch.

Adding a data set is one function `(DataOptions) -> DataSet` and one row of `DATA`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from snnprune.data.dataset import (
    GIVEN,
    SPLITS,
    DataOptions,
    DataSet,
    Split,
    TrainingSplit,
)
from snnprune.errors import InputError, did_you_mean, error_class_for
from snnprune.plugins.names import Registry, RegistryRow
from snnprune.plugins.user_code import load_object

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


DATA = Registry(
    kind="data set",
    group="snnprune.data",
    rows={
        "fashion-mnist-mini": RegistryRow(
            target="snnprune.data.public:fashion_mnist_mini",
            summary="7,000 grey pictures of clothes, 28 x 28, 10 classes; comes with snnprune",
        ),
        "fashion-mnist": RegistryRow(
            target="snnprune.data.public:fashion_mnist",
            summary="70,000 grey pictures of clothes, 28 x 28, 10 classes",
        ),
        "mnist": RegistryRow(
            target="snnprune.data.public:mnist",
            summary="70,000 grey handwritten digits, 28 x 28, 10 classes",
        ),
        "cifar10": RegistryRow(
            target="snnprune.data.public:cifar10",
            summary="60,000 colour pictures, 32 x 32, 10 classes",
        ),
        "cifar100": RegistryRow(
            target="snnprune.data.public:cifar100",
            summary="60,000 colour pictures, 32 x 32, 100 classes",
        ),
        "svhn": RegistryRow(
            target="snnprune.data.public:svhn",
            summary="99,289 colour house numbers, 32 x 32, 10 classes; needs scipy",
        ),
    },
)

FORMS = {
    "imagefolder": RegistryRow(
        target="snnprune.data.user_files:open_folder",
        summary="imagefolder:DIR, pictures in a folder per class, or in DIR/train and DIR/test",
    ),
    "tensors": RegistryRow(
        target="snnprune.data.user_files:open_tensors",
        summary="tensors:FILE, the tensors x and, optionally, y of a .safetensors or .pt file",
    ),
}
"""Sets of the user's own: the word before the colon, and what opens the place after it."""


def require_data(name: str, *, field: str = "--data") -> None:
    """Check the form of a data set's name, opening and importing nothing.

    Raises:
        UsageError: it is no known name, `imagefolder:DIR`, `tensors:FILE` or reference to a
            function, and `field` is a flag.
        InputError: likewise, in a file.
    """
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
) -> DataSet:
    """The set `name`, its `test` and `validation` images those of `others` where these are named.

    Of a set that is named for one use all images are taken, unless it says itself which are for
    it. `learnt_from` are sets that the network was trained on before.

    Raises:
        UsageError: see `open_data`.
        InputError: likewise; or the images that are named are learnt from.
    """
    from snnprune.data.overlap import note_overlap

    named = {use: other for use, other in others.items() if other.name is not None}
    if named:
        options = replace(options, hold_out=0.0)
    data = open_data(name, options=options, field=field)
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
