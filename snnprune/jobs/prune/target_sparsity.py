"""A sparsity that is looked for: the highest that holds an accuracy on validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from snnprune.data.batches import Batches
from snnprune.data.images import ImageSplit
from snnprune.errors import GateError, InputError, UsageError
from snnprune.jobs.prune.options import AccuracyTarget
from snnprune.jobs.prune.pruned_model import PrunedModel
from snnprune.jobs.targets.target import Target
from snnprune.measure import Natural, Share
from snnprune.measure.calibration import Calibration
from snnprune.measure.evaluation import evaluate
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class Try:
    """One sparsity that was measured."""

    sparsity: Share
    accuracy: Share
    """In [0, 1]."""
    held: bool


def bisect(
    accuracy_at: Callable[[float], float], *, target: float, resolution: float, most: float = 1.0
) -> tuple[Try, ...]:
    """Every try between 0 and 1, in order, until two neighbours in `resolution` differ.

    Below 1, `most` is a sparsity that may be tried, and none above it.

    The accuracy is taken to fall with the sparsity. Where it does not, what held still held when it
    was measured, but a higher sparsity may hold too.
    """
    tries: list[Try] = []
    holds, fails = 0, round(1 / resolution)  # in steps of the resolution; neither end is measured
    fails = min(fails, int(most / resolution + 1e-9) + 1)
    while fails - holds > 1:
        middle = (holds + fails) // 2
        sparsity = round(middle / round(1 / resolution), 10)
        accuracy = accuracy_at(sparsity)
        held = accuracy >= target - 1e-12  # a target below the dense accuracy is a difference
        tries.append(Try(sparsity=sparsity, accuracy=accuracy, held=held))
        holds, fails = (middle, fails) if held else (holds, middle)
    return tuple(tries)


def choose_best(tries: tuple[Try, ...]) -> Try | None:
    """The highest sparsity that held; None where none did."""
    return max((one for one in tries if one.held), key=lambda one: one.sparsity, default=None)


MOST = 5000  # of training images that are held out
AT_LEAST = 16  # fewer measure nothing


@dataclass(frozen=True, kw_only=True)
class ValidationImages:
    """Images with labels, and where they are from."""

    split: str
    """`validation` or `training`."""
    batches: Batches
    apart: bool = False
    """Whether calibration does not use them, where they are of the training images."""

    def list_warnings(self, noun: str) -> list[str]:
        """What an accuracy on these images cannot tell."""
        if self.split == "validation":
            return []
        those = "that calibration does not use" if self.apart else "that it was calibrated on too"
        return [
            f"there is no validation split: the sparsity was looked for on training {noun} {those}"
        ]


def choose_validation(
    target: Target, calibration: Calibration | None, limit: int | None
) -> ValidationImages:
    """The validation split, else a seeded part of the training images, at most `limit` of them.

    Raises:
        InputError: network or data are missing, or all training images are calibrated on.
    """
    target.require_runnable()
    assert target.data is not None
    if target.data.validation is not None:
        return ValidationImages(split="validation", batches=target.batches("validation", limit))
    if not isinstance(target.data.train, ImageSplit):
        return ValidationImages(split="training", batches=target.batches("train", limit))
    held = _hold_out_images(target, calibration, limit or MOST)
    batches = held.batches(target.options.batch_size, device=target.device)
    return ValidationImages(split="training", batches=batches, apart=True)


def _hold_out_images(target: Target, calibration: Calibration | None, most: int) -> ImageSplit:
    """Training images of the same seeded order as those for calibration, after them."""
    images = target.data.train if target.data else None
    assert isinstance(images, ImageSplit)
    seed, used = _read_used_images(target, calibration)
    # `sample` takes them in the order of the seed as long as one is left over
    count = min(used + most, len(images) - 1)
    if count - used < AT_LEAST:
        raise InputError(
            f"has no validation {target.noun}, and {used} of {len(images)} for training are "
            "calibrated on",
            field="--data",
            hint="give fewer --samples",
        )
    return images.sample(count, seed).subset(slice(used, count))


def _read_used_images(target: Target, calibration: Calibration | None) -> tuple[int, int]:
    """The seed of the calibration images and how many of that order are used."""
    seed, samples = target.options.seed, target.options.samples
    if calibration is None:
        return seed, samples
    if calibration.source.get("seed", str(seed)) != str(seed):
        raise InputError(
            "was taken with another seed, so no sample is known to be free for validation",
            field="--calibration",
            hint=f"give --seed {calibration.source['seed']}",
        )
    return seed, max(samples, calibration.samples)


def measure_accuracy(
    target: Target, validation: ValidationImages, progress: Progress
) -> tuple[float, int]:
    """The accuracy of the network as it is now, in [0, 1], and the number of images.

    Raises:
        InputError: they have no labels.
    """
    batches = validation.batches.track(progress, f"evaluating on validation {target.noun}")
    found = evaluate(target.require_runnable(), batches)
    if found.accuracy is None:
        raise InputError("has no labels to hold an accuracy on", field="--data")
    return found.accuracy, found.labelled


@dataclass(frozen=True, kw_only=True)
class Search:
    """What was tried, and on what."""

    split: str
    images: Natural
    dense: Share
    """Accuracy before pruning, in [0, 1], on the same images."""
    target: float
    resolution: Share
    tries: tuple[Try, ...]

    def report(self) -> dict[str, Any]:
        """For a report."""
        return {**asdict(self), "tries": [asdict(one) for one in self.tries]}


def search_target(
    goal: AccuracyTarget,
    *,
    make: Callable[[float], PrunedModel],
    accuracy: Callable[[], tuple[float, int]],
    split: str,
    noun: str,
    most: float = 1.0,
) -> tuple[Search, float, PrunedModel]:
    """Measure the dense network, then bisect; the search, the sparsity found and its network.

    `accuracy` is that of what the network holds, with the number of images, which errors call
    `noun`; `make` fills it.

    Raises:
        UsageError: every network holds the target.
        GateError: no sparsity that was tried holds it.
    """
    dense, images = accuracy()
    wanted, kept = goal.below(dense), dict[float, PrunedModel]()
    if wanted <= 0:
        raise UsageError(
            f"leaves nothing to hold: the dense network has {dense:.2%} on {images:,} {noun}",
            field=goal.flag,
            hint="ask for more",
        )

    def accuracy_at(sparsity: float) -> float:
        made = make(sparsity)
        found, _ = accuracy()
        if found >= wanted - 1e-12:
            kept.clear()  # only the last that held is written
            kept[sparsity] = made
        return found

    tries = bisect(accuracy_at, target=wanted, resolution=goal.resolution, most=most)
    if not tries:
        raise GateError(
            f"nothing is to be tried: limits let {most:.2%} of the weights go", field=goal.flag
        )
    found = choose_best(tries)
    if found is None:
        lowest = min(tries, key=lambda one: one.sparsity)
        raise GateError(
            f"{wanted:.2%} is not held at {lowest.sparsity:g}, the lowest sparsity tried "
            f"({lowest.accuracy:.2%}); the dense network has {dense:.2%} on {images:,} {noun}",
            field=goal.flag,
        )
    search = Search(
        split=split,
        images=images,
        dense=dense,
        target=wanted,
        resolution=goal.resolution,
        tries=tries,
    )
    return search, found.sparsity, kept[found.sparsity]
