"""From a target to a network that can be scored and pruned, and what is said of its scores."""

from __future__ import annotations

from snnprune.jobs.targets.target import Target
from snnprune.measure.calibration import Calibration
from snnprune.pruning.oneshot import OneShot
from snnprune.pruning.score import Scores
from snnprune.runtime import SILENT, Progress


def make_one_shot(
    target: Target,
    calibration: Calibration | None,
    progress: Progress = SILENT,
    *,
    tuning_images: int | None = None,
) -> OneShot:
    """The target's network, ready to be scored and pruned.

    `tuning_images` is how many training images a repair may tune on, where it tunes.
    """
    tunes = target.runnable is not None and tuning_images is not None
    return OneShot(
        target.network,
        target.find_weights(),
        batches=target.calibration_batches if target.runnable is not None else None,
        tuning_batches=target.batches("train", tuning_images) if tunes else None,
        calibration=calibration,
        seed=target.options.seed,
        progress=progress,
    )


def warn_of_unused_criterion(scores: Scores) -> list[str]:
    """A warning where the criterion scored nothing."""
    if scores.by_criterion:
        return []
    return [f"no layer could be scored by {scores.criterion}: all went by magnitude"]
