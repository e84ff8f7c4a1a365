"""Pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snnprune.files import replacing


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a picture: its points as (sparsity, accuracy), both in [0, 1], and its look."""

    points: Sequence[tuple[float, float]]
    color: str
    dashed: bool = False


def plot_accuracy(
    paths: Sequence[Path], lines: Mapping[str, Line], *, dense: float, conditions: str
) -> None:
    """Draw accuracy against sparsity into each of `paths`; the suffix says the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with mpl.rc_context({"svg.hashsalt": "snnprune", "font.size": 10}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
        axes.axhline(100 * dense, color="#888888", linewidth=1, linestyle=":", label="dense")
        for label, line in lines.items():
            axes.plot(
                [100 * sparsity for sparsity, _ in line.points],
                [100 * accuracy for _, accuracy in line.points],
                label=label,
                color=line.color,
                linestyle="--" if line.dashed else "-",
                marker="o",
                markersize=4,
            )
        axes.set_xlabel("sparsity (% of prunable weights)")
        axes.set_ylabel("test accuracy (%)")
        axes.set_title(conditions, fontsize=9, loc="left")
        axes.set_ylim(0, 100)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower left")
        for path in paths:
            with replacing(path) as temporary:
                # no date: the same numbers give the same file
                metadata = {"Date": None} if path.suffix == ".svg" else None
                figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)
        pyplot.close(figure)
