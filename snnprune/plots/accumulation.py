"""How changes add up from layer to layer and from step to step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snnprune.escaping import printable
from snnprune.plots.canvas import drawn
from snnprune.plots.looks import BLACK, looks

NAMED = 10  # neurons that the legend has room for
LEAST = 1e-4  # of a bound, what is smaller lies on the edge


@dataclass(frozen=True, kw_only=True)
class Course:
    """Over the time steps, up to the neurons of one name."""

    flipped: Sequence[float]
    """Share of their spikes."""
    hit: Sequence[float]
    """Share of samples."""
    bound: Sequence[float] | None


def plot_accumulation(
    paths: Sequence[Path], courses: Mapping[str, Course], conditions: str
) -> None:
    """Draw the share of other spikes over time, and beside it that of samples with its bound.

    Raises:
        OutputError: a file cannot be written.
    """
    with drawn(paths, size=(8.4, 4.0), conditions=conditions) as figure:
        left, right = figure.subplots(1, 2)
        own = looks(list(courses))
        for number, (name, course) in enumerate(courses.items()):
            look = own[name]
            times = range(1, len(course.flipped) + 1)
            label = printable(name, 30) if number < NAMED else None
            how = {"color": look.color, "marker": look.marker, "markersize": 3.5}
            left.plot(times, [100 * share for share in course.flipped], label=label, **how)
            right.plot(times, [max(share, LEAST) for share in course.hit], **how)
            if course.bound is not None:
                bound = [max(value, LEAST) for value in course.bound]
                right.plot(times, bound, linestyle="--", **how)
        right.axhline(1, color=BLACK, linewidth=0.8)
        right.set_yscale("log")
        right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        left.set_ylim(bottom=0)
        left.set_ylabel("spikes that are others, %")
        right.set_ylabel("share of samples hit; dashed: its bound")
        for axes in (left, right):
            axes.set_xlabel("time step")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid()
        left.legend()
