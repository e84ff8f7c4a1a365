"""Pictures, as SVG or PNG by the suffix; the same numbers give the same bytes."""

from snnprune.report.plots.accuracy import (
    AccuracyLevel,
    Curve,
    CurveMark,
    Tile,
    plot_accuracy,
    plot_grid,
    plot_search,
    plot_tickets,
)
from snnprune.report.plots.canvas import LineStyle
from snnprune.report.plots.layers import (
    plot_densities,
    plot_firing_rates,
    plot_flips,
    plot_membrane,
    plot_scores,
    plot_sensitivity,
)
from snnprune.report.plots.theory import (
    FlipCourse,
    plot_accumulation,
    plot_failures,
    plot_growth,
    plot_predictions,
)

__all__ = [
    "AccuracyLevel",
    "Curve",
    "CurveMark",
    "FlipCourse",
    "LineStyle",
    "Tile",
    "plot_accumulation",
    "plot_accuracy",
    "plot_densities",
    "plot_failures",
    "plot_firing_rates",
    "plot_flips",
    "plot_grid",
    "plot_growth",
    "plot_membrane",
    "plot_predictions",
    "plot_scores",
    "plot_search",
    "plot_sensitivity",
    "plot_tickets",
]
