"""What a page says of a report: each section asks whether the report has what it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from snnprune.report.pages.page import PageSection
from snnprune.report.pages.sections.comparison import (
    make_comparison_section,
    make_gates_section,
    make_sizes_section,
)
from snnprune.report.pages.sections.curves import (
    make_epochs_section,
    make_grid_section,
    make_sparsities_section,
    make_tickets_section,
    make_tries_section,
)
from snnprune.report.pages.sections.layers import (
    make_changes_section,
    make_layers_section,
    make_scores_section,
    make_trials_section,
)
from snnprune.report.pages.sections.neurons import make_membranes_section, make_neurons_section
from snnprune.report.pages.sections.origin import make_origin_section, make_warnings_section
from snnprune.report.pages.sections.theory import (
    make_analysis_section,
    make_construction_section,
    make_crisis_section,
    make_widths_section,
)

Report = Mapping[str, Any]

SECTIONS: tuple[Callable[[Report], PageSection | None], ...] = (
    make_gates_section,
    make_comparison_section,
    make_sparsities_section,
    make_tickets_section,
    make_grid_section,
    make_tries_section,
    make_trials_section,
    make_analysis_section,
    make_crisis_section,
    make_widths_section,
    make_construction_section,
    make_sizes_section,
    make_layers_section,
    make_changes_section,
    make_neurons_section,
    make_membranes_section,
    make_scores_section,
    make_epochs_section,
    make_warnings_section,
    make_origin_section,
)


def make_sections(report: Report) -> list[PageSection]:
    """Those that the report has something for, in the order of a page."""
    return [found for section in SECTIONS if (found := section(report)) is not None]
