"""What was measured over what was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnprune.errors import make_printable
from snnprune.report.plots.canvas import BLACK, BLUE, choose_line_styles, write_figure

NAMED_NEURONS = 10  # neurons that the legend has room for
LEAST_SHARE = 1e-4  # of a bound, what is smaller lies on the edge


@dataclass(frozen=True, kw_only=True)
class FlipCourse:
    """Over the time steps, up to the neurons of one name."""

    flipped: Sequence[float]
    """Share of their spikes."""
    hit: Sequence[float]
    """Share of samples."""
    bound: Sequence[float] | None


def plot_accumulation(
    paths: Sequence[Path], courses: Mapping[str, FlipCourse], conditions: str
) -> None:
    """Draw the share of other spikes over time, and beside it that of samples with its bound.

    Raises:
        OutputError: a file cannot be written.
    """
    with write_figure(paths, size=(8.4, 4.0), conditions=conditions) as figure:
        left, right = figure.subplots(1, 2)
        own = choose_line_styles(list(courses))
        for number, (name, course) in enumerate(courses.items()):
            look = own[name]
            times = range(1, len(course.flipped) + 1)
            label = make_printable(name, 30) if number < NAMED_NEURONS else None
            how = {"color": look.color, "marker": look.marker, "markersize": 3.5}
            left.plot(times, [100 * share for share in course.flipped], label=label, **how)
            right.plot(times, [max(share, LEAST_SHARE) for share in course.hit], **how)
            if course.bound is not None:
                bound = [max(value, LEAST_SHARE) for value in course.bound]
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


def plot_failures(
    paths: Sequence[Path], counts: Mapping[str, Mapping[str, Any]], allowed: float, conditions: str
) -> None:
    """Draw for each name its `share` of failures with the interval from `low` to `high`.

    Raises:
        OutputError: a file cannot be written.
    """
    height = 0.9 + 0.32 * len(counts)
    with write_figure(paths, size=(6.0, height), conditions=conditions) as figure:
        axes = figure.subplots()
        for row, found in enumerate(counts.values()):
            axes.plot([found["low"], found["high"]], [row, row], color=BLUE, linewidth=2)
            axes.plot(found["share"], row, color=BLUE, marker="o", markersize=5)
        axes.axvline(allowed, color=BLACK, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(counts)), [make_printable(name, 40) for name in counts])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("share of trials that failed")
        axes.grid(axis="x")


def plot_growth(
    paths: Sequence[Path], curves: Mapping[str, Sequence[tuple[int, int]]], conditions: str
) -> None:
    """Draw k over N into each of `paths`, both logarithmic, a line for each of `curves`.

    Raises:
        OutputError: a file cannot be written.
    """
    with write_figure(paths, size=(6.4, 4.2), conditions=conditions) as figure:
        axes = figure.subplots()
        for name, look in choose_line_styles(list(curves)).items():
            points = curves.get(name, [])
            if points:
                axes.plot(
                    [n for n, _ in points],
                    [k for _, k in points],
                    label=name,
                    color=look.color,
                    linestyle=look.dashes,
                    marker=look.marker,
                    markersize=4,
                )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e+0", "e"))
        axes.set_xlabel("N, width of the target")
        axes.set_ylabel("k, virtual neurons for each layer")
        axes.grid()
        axes.legend()


NAMED_LAYERS = 12  # layers that the legend has room for
LEAST_CHANCE = 1e-5  # what is smaller lies on the edge


def plot_predictions(
    paths: Sequence[Path],
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    conditions: str,
) -> None:
    """Draw the measured chance of a flip over the predicted one, both logarithmic, by layer.

    Raises:
        OutputError: a file cannot be written.
    """
    with write_figure(paths, size=(6.0, 4.6), conditions=conditions) as figure:
        axes = figure.subplots()
        known = [v for both in points.values() for each in both for v in each if v > LEAST_CHANCE]
        low = max(LEAST_CHANCE, min(known, default=LEAST_CHANCE) / 2)
        axes.plot([low, 1], [low, 1], color=BLACK, linewidth=0.8, linestyle="--")
        for number, (name, look) in enumerate(choose_line_styles(list(points)).items()):
            if name not in points:
                continue
            both = ([max(value, low) for value in each] for each in points[name])
            axes.plot(
                *both,
                label=make_printable(name, 40) if number < NAMED_LAYERS else None,
                color=look.color,
                marker=look.marker,
                markersize=3.5,
                linestyle="none",
                alpha=0.75,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("predicted: density at the threshold x mean change of the membrane")
        axes.set_ylabel("measured: share of spikes that flip")
        axes.grid()
        axes.legend()
