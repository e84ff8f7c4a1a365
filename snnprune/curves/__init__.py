"""Accuracy against sparsity over the seeds of a run: as numbers, as a report, as a table."""

from snnprune.curves.summary import DENSE, RANDOM, Point, Summary, about_curves, summarised
from snnprune.curves.table import accuracy_cells, dense_line, markdown_table

__all__ = [
    "DENSE",
    "RANDOM",
    "Point",
    "Summary",
    "about_curves",
    "accuracy_cells",
    "dense_line",
    "markdown_table",
    "summarised",
]
