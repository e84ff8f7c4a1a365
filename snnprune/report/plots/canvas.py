"""What every picture is drawn on and saved from."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snnprune.errors import make_printable
from snnprune.files.writing import replace_file
from snnprune.report.curves import RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Dashes = str | tuple[int, tuple[int, ...]]
BLACK, GREY = "#000000", "#888888"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (  # Okabe and Ito 2008, Color Universal Design
    *("#0072B2", "#D55E00", "#009E73"),
    *("#CC79A7", "#E69F00", "#56B4E9"),
)


@dataclass(frozen=True, kw_only=True)
class LineStyle:
    """How a line is drawn, in the words of matplotlib."""

    color: str
    marker: str = "o"
    dashes: Dashes = "-"


LOOKS = (
    LineStyle(color=BLUE, marker="o"),
    LineStyle(color=VERMILLION, marker="s", dashes=(0, (6, 2))),
    LineStyle(color=GREEN, marker="^", dashes=(0, (6, 1, 1, 1))),
    LineStyle(color=PURPLE, marker="D", dashes=(0, (3, 1))),
    LineStyle(color=ORANGE, marker="v", dashes=(0, (6, 1, 1, 1, 1, 1))),
    LineStyle(color=SKY, marker="P", dashes=(0, (1, 1))),
)
RANDOM_LOOK = LineStyle(color=GREY, marker="x", dashes=(0, (2, 2)))


def choose_line_styles(methods: Sequence[str]) -> Mapping[str, LineStyle]:
    """One for each method; grey for random tickets, over again where there are many."""
    others = [method for method in methods if method != RANDOM]
    given = {method: LOOKS[number % len(LOOKS)] for number, method in enumerate(others)}
    return {**given, RANDOM: RANDOM_LOOK}


ROUND = (  # the first have the first choice
    *(0.0, 0.9, 0.99, 0.999, 0.9999, 0.5, 0.95, 0.98, 0.8, 0.995, 0.998, 0.7, 0.3),
    *(0.2, 0.6, 0.4, 0.1, 0.85),
)
APART = 0.07  # of the axis, between two labels
MARGIN = 0.04  # of the axis, beside the outermost points
MOST = 0.99999  # sparsity; 1 lies at infinity


def compute_position(sparsity: float) -> float:
    """Where a sparsity in [0, 1) lies: each time the weights are halved, it is as much further."""
    return float(-np.log2(1 - min(sparsity, MOST)))


def show_sparsities(axes: Axes, sparsities: Sequence[float]) -> None:
    """Let the x axis of `axes`, whose points lie at `compute_position`, span `sparsities`."""
    low, high = compute_position(min(sparsities)), compute_position(max(sparsities))
    axes.set_xlim(low - _compute_margin(low, high), high + _compute_margin(low, high))
    shown = choose_ticks(sparsities)
    axes.set_xticks([compute_position(one) for one in shown], [f"{100 * one:.4g}" for one in shown])
    axes.set_xlabel("sparsity (% of prunable weights), by weights left")


def choose_ticks(sparsities: Sequence[float]) -> list[float]:
    """Round sparsities in the range of those given, and of these if few are; none too close."""
    low, high = compute_position(min(sparsities)), compute_position(max(sparsities))
    margin, least = _compute_margin(low, high), APART * max(high - low, 0.1)
    chosen: list[float] = []
    for one in (*ROUND, *(sparsities if len(sparsities) < 4 else ())):
        at = compute_position(one)
        far = all(abs(at - compute_position(other)) >= least for other in chosen)
        if low - margin <= at <= high + margin and far:
            chosen.append(one)
    return sorted(chosen)


def _compute_margin(low: float, high: float) -> float:
    return max(MARGIN * (high - low), 0.0 if high - low > 1 else 0.3)


STYLE: dict[str, Any] = {
    "svg.hashsalt": "snnprune",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "errorbar.capsize": 2,
}
TITLE_PER_INCH = 14.5  # characters of the title


@contextmanager
def write_figure(
    paths: Sequence[Path], *, size: tuple[float, float], conditions: str
) -> Iterator[Figure]:
    """A figure of `size` inches with `conditions` above it, written to `paths` after the block.

    Raises:
        OutputError: a file cannot be written.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        title = wrap_text(conditions, int(size[0] * TITLE_PER_INCH))
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        for path in paths:
            save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as what its suffix says.

    Raises:
        OutputError: `path` cannot be written.
    """
    with replace_file(path) as temporary:
        # no date: the same numbers give the same file
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)


def wrap_text(text: str, width: int) -> str:
    """The text in lines of at most `width` characters."""
    parts = (textwrap.wrap(make_printable(line), width) for line in text.splitlines())
    return "\n".join(line for lines in parts for line in lines)
