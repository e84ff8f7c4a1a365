"""What a page says of a report: each section asks whether the report has what it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from snnprune.report.pages.page import Section
from snnprune.report.pages.sections.comparison import comparison, gates, sizes
from snnprune.report.pages.sections.curves import epochs, grid, sparsities, tickets, tries
from snnprune.report.pages.sections.layers import changes, layers, scores, trials
from snnprune.report.pages.sections.neurons import membranes, neurons
from snnprune.report.pages.sections.origin import origin, warnings
from snnprune.report.pages.sections.theory import analysis, construction, crisis, widths

Report = Mapping[str, Any]

SECTIONS: tuple[Callable[[Report], Section | None], ...] = (
    gates,
    comparison,
    sparsities,
    tickets,
    grid,
    tries,
    trials,
    analysis,
    crisis,
    widths,
    construction,
    sizes,
    layers,
    changes,
    neurons,
    membranes,
    scores,
    epochs,
    warnings,
    origin,
)


def sections_of(report: Report) -> list[Section]:
    """Those that the report has something for, in the order of a page."""
    return [found for section in SECTIONS if (found := section(report)) is not None]
