"""Pictures of `theory crisis`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snnprune.notation import layer_name
from snnprune.plots import Course, plot_accumulation, plot_predictions
from snnprune.theory.accumulation import Accumulated
from snnprune.theory.crisis import Crisis

PICTURES = ("crisis", "accumulation")
SUFFIXES = (".svg", ".png")


def crisis_pictures(folder: Path | None) -> list[Path]:
    """All that are drawn into a folder, if any."""
    names = [f"{name}{suffix}" for name in PICTURES for suffix in SUFFIXES]
    return [] if folder is None else [folder / name for name in names]


def draw_crisis(
    folder: Path, crises: Sequence[Crisis], accumulated: Sequence[Accumulated], conditions: str
) -> None:
    """Predicted and measured flips of each channel; and all layers together, over time.

    Raises:
        OutputError: a file cannot be written.
    """
    points = {
        layer_name(one.layer): (
            one.compute_counted().tolist(),
            one.compute_flipped().tolist(),
        )
        for one in crises
    }
    courses = {
        one.neuron: Course(
            flipped=one.flipped.tolist(),
            hit=one.hit.tolist(),
            bound=None if one.bound is None else one.bound.tolist(),
        )
        for one in accumulated
    }
    first, second = ([folder / f"{name}{suffix}" for suffix in SUFFIXES] for name in PICTURES)
    alone = "one layer at a time; a point for each channel"
    plot_predictions(first, points, f"{conditions}, {alone}")
    plot_accumulation(second, courses, f"{conditions}, all layers at once")
