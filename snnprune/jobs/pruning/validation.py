"""Images on which a sparsity is looked for: neither those of the calibration nor of the test."""

from __future__ import annotations

from dataclasses import dataclass

from snnprune.batches import Batches
from snnprune.calibration import Calibration
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError
from snnprune.evaluation import evaluate
from snnprune.jobs.subjects.subject import Subject
from snnprune.progress import Progress

MOST = 5000  # of training images that are held out
AT_LEAST = 16  # fewer measure nothing


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Images with labels, and where they are from."""

    split: str
    """`validation` or `training`."""
    batches: Batches
    apart: bool = False
    """Whether calibration does not use them, where they are of the training images."""

    @property
    def warnings(self) -> list[str]:
        """What an accuracy on these images cannot tell."""
        if self.split == "validation":
            return []
        those = "that calibration does not use" if self.apart else "that it was calibrated on too"
        return [
            f"there is no validation split: the sparsity was looked for on training images {those}"
        ]


def validation_of(
    subject: Subject, calibration: Calibration | None, limit: int | None
) -> Validation:
    """The validation split, else a seeded part of the training images, at most `limit` of them.

    Raises:
        InputError: network or data are missing, or all training images are calibrated on.
    """
    subject.require_runnable()
    assert subject.data is not None
    if subject.data.validation is not None:
        return Validation(split="validation", batches=subject.batches("validation", limit))
    if not isinstance(subject.data.train, ImageSplit):
        return Validation(split="training", batches=subject.batches("train", limit))
    held = _held_out(subject, calibration, limit or MOST)
    batches = held.batches(subject.options.batch_size, device=subject.device)
    return Validation(split="training", batches=batches, apart=True)


def _held_out(subject: Subject, calibration: Calibration | None, most: int) -> ImageSplit:
    """Training images of the same seeded order as those for calibration, after them."""
    images = subject.data.train if subject.data else None
    assert isinstance(images, ImageSplit)
    seed, used = _used(subject, calibration)
    # `sample` takes them in the order of the seed as long as one is left over
    count = min(used + most, len(images) - 1)
    if count - used < AT_LEAST:
        raise InputError(
            f"has no validation images, and {used} of {len(images)} for training are calibrated on",
            field="--data",
            hint="give fewer --samples",
        )
    return images.sample(count, seed).subset(slice(used, count))


def _used(subject: Subject, calibration: Calibration | None) -> tuple[int, int]:
    """The seed of the calibration images and how many of that order are used."""
    seed, samples = subject.options.seed, subject.options.samples
    if calibration is None:
        return seed, samples
    if calibration.source.get("seed", str(seed)) != str(seed):
        raise InputError(
            "was taken with another seed, so no image is known to be free for validation",
            field="--calibration",
            hint=f"give --seed {calibration.source['seed']}",
        )
    return seed, max(samples, calibration.samples)


def accuracy_on(subject: Subject, validation: Validation, progress: Progress) -> tuple[float, int]:
    """The accuracy of the network as it is now, in [0, 1], and the number of images.

    Raises:
        InputError: they have no labels.
    """
    batches = validation.batches.track(progress, "evaluating on validation images")
    found = evaluate(subject.require_runnable(), batches)
    if found.accuracy is None:
        raise InputError("has no labels to hold an accuracy on", field="--data")
    return found.accuracy, found.labelled
