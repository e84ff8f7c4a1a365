"""What every opener returns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
            yield f"no test images: numbers are of validation images{how}"
            return
        why = f" ({self.undivided})" if self.undivided else ""
        yield f"neither test nor validation images{why}: numbers are of training images{how}"

    def of(self, name: str) -> Split | None:
        """The images of `train`, `validation`, `test` or `given`."""
        found: Split | None = getattr(self, name)
        return found
