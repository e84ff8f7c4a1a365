"""Which limits were kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnprune.pages.page import Section, Table

SIGNS = {True: "met", False: "NOT MET", None: "not judged"}


def gates(report: Mapping[str, Any]) -> Section | None:
    """A row for each gate."""
    found = report.get("gates")
    if not found:
        return None
    rows = [[f"--{one['gate']}", one["limit"], SIGNS[one["met"]], one["found"]] for one in found]
    table = Table(titles=("gate", "limit", "", "found"), rows=rows, names=4)
    return Section(title="Gates", blocks=[table])
