"""Small pictures of one layer or neuron each, which a page puts side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from snnprune.errors.text import make_printable
from snnprune.report.plots.canvas import BLACK, BLUE, GREY, ORANGE, STYLE, VERMILLION, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SIZE = (2.6, 1.75)  # inches
BOTTOM, HEIGHT = 0.2, 0.66  # of the axes, in heights of the picture
LONGEST = 34  # characters of a title


@contextmanager
def _draw_panel(path: Path, title: str, left: float = 0.04) -> Iterator[Axes]:
    """Axes of a small picture; `path` has it after the block."""
    from matplotlib import style
    from matplotlib.figure import Figure

    small = {"font.size": 8, "axes.titlesize": 8, "svg.fonttype": "none"}
    with style.context(["default", STYLE, small]):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((left, BOTTOM, 0.97 - left, HEIGHT))
        yield axes
        axes.set_title(_shorten_title(make_printable(title)))
        save_figure(figure, path)


def plot_membrane(
    path: Path,
    title: str,
    edges: Sequence[float],
    before: Sequence[int],
    after: Sequence[int],
    radius: float | None,
) -> None:
    """Draw how often a membrane is how far from its threshold, before and after, as shares.

    The counts of (bins + 2) are of u - u_th; the crisis neighbourhood of half-width `radius` about
    the threshold is shaded.

    Raises:
        OutputError: `path` cannot be written.
    """
    low, high = _find_span(edges, before, after)
    inner = slice(low + 1, high + 1)
    bounds = edges[low : high + 1]
    with _draw_panel(path, title) as axes:
        if radius is not None:
            reach = min(radius, bounds[-1]), max(-radius, bounds[0])
            axes.axvspan(reach[1], reach[0], color=ORANGE, alpha=0.25, linewidth=0)
        axes.stairs(_compute_shares(before)[inner], bounds, fill=True, color=GREY, alpha=0.45)
        axes.stairs(_compute_shares(after)[inner], bounds, color=BLUE, linewidth=1.1)
        axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--")
        axes.set_xlim(bounds[0], bounds[-1])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("u - threshold", labelpad=1)


def plot_scores(
    path: Path, title: str, edges: Sequence[float], kept: Sequence[int], pruned: Sequence[int]
) -> None:
    """Draw how many weights of a layer have which score, those that are kept on the others.

    `edges` (bins + 1,) are logarithms of scores to base 10.

    Raises:
        OutputError: `path` cannot be written.
    """
    with _draw_panel(path, title) as axes:
        axes.stairs(pruned, edges, fill=True, color=VERMILLION, alpha=0.55)
        both = [one + other for one, other in zip(kept, pruned, strict=True)]
        axes.stairs(both, edges, baseline=list(pruned), fill=True, color=BLUE, alpha=0.75)
        axes.set_xlim(_find_lower_end(edges, both), edges[-1])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("log10 score", labelpad=1)


def plot_flips(path: Path, predicted: Sequence[float], measured: Sequence[float]) -> None:
    """Draw the measured share of flipped spikes of each neuron over what was predicted.

    Raises:
        OutputError: `path` cannot be written.
    """
    with _draw_panel(path, "", left=0.26) as axes:
        seen = [value for value in (*predicted, *measured) if value > 0]
        low, high = min(seen, default=1e-3) / 2, min(1.2, 2 * max(seen, default=1.0))
        axes.plot([low, high], [low, high], color=BLACK, linewidth=0.8, linestyle="--")
        # what is 0 lies on the edge
        points = ([max(value, low) for value in each] for each in (predicted, measured))
        axes.plot(*points, color=BLUE, marker="o", markersize=4, linestyle="none")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("predicted", labelpad=0)
        axes.set_ylabel("measured", labelpad=0)
        axes.minorticks_off()


def _shorten_title(title: str) -> str:
    if len(title) <= LONGEST:
        return title
    return f"{title[: LONGEST // 3]}…{title[1 - LONGEST + LONGEST // 3 :]}"


def _compute_shares(counts: Sequence[int]) -> list[float]:
    total = max(1, sum(counts))
    return [count / total for count in counts]


def _find_span(edges: Sequence[float], *histograms: Sequence[int]) -> tuple[int, int]:
    """The inner bins, from and to, that hold all but a thousandth of each side of each histogram.

    The threshold is always seen, with a little on either side.
    """
    zero = sum(edge < 0 for edge in edges)
    first, last = zero - 8, zero + 8
    for counts in histograms:
        shares, total = _compute_shares(counts)[1:-1], 0.0
        inside = []
        for number, share in enumerate(shares):
            total += share
            if 0.001 < total < 0.999 and share:
                inside.append(number)
        if inside:
            first, last = min(first, inside[0]), max(last, inside[-1] + 1)
    return max(0, first), min(len(edges) - 1, last)


def _find_lower_end(edges: Sequence[float], counts: Sequence[int]) -> float:
    """Where all but a thousandth of the weights begin: scores near 0 have logarithms far below."""
    total, seen = sum(counts), 0
    for edge, count in zip(edges, counts, strict=False):
        seen += count
        if seen > total / 1000:
            return edge
    return edges[0]
