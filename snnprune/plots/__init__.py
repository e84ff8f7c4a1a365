"""Pictures, as SVG or PNG by the suffix; the same numbers give the same bytes."""

from snnprune.plots.accumulation import Course, plot_accumulation
from snnprune.plots.accuracy import Curve, Level, Mark, plot_accuracy
from snnprune.plots.failures import plot_failures
from snnprune.plots.growth import plot_growth
from snnprune.plots.layers import plot_densities, plot_firing_rates
from snnprune.plots.looks import Look
from snnprune.plots.panels import plot_flips, plot_membrane, plot_scores
from snnprune.plots.predictions import plot_predictions
from snnprune.plots.sensitivity import plot_sensitivity
from snnprune.plots.summary import Tile, plot_grid, plot_search, plot_tickets

__all__ = [
    "Course",
    "Curve",
    "Level",
    "Look",
    "Mark",
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
