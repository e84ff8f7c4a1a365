"""Which limits were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from snnprune.pages.page import Section, Table

SIGNS = {True: "met", False: "NOT MET", None: "not judged"}


def gates(report: Mapping[str, Any]) -> Section | None:
    """A row for each gate; a table for each of several files."""
    parts = [("", report), *((_name(one), one) for one in report.get("files", []))]
    tables = [_table(name, part["gates"]) for name, part in parts if part.get("gates")]
    return Section(title="Gates", blocks=tables) if tables else None


def _name(one: Mapping[str, Any]) -> str:
    """Of a pruned file: the first that is written for it."""
    return PurePath(one["outputs"][0]["path"]).name


def _table(name: str, found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[f"--{one['gate']}", one["limit"], SIGNS[one["met"]], one["found"]] for one in found]
    return Table(titles=("gate", "limit", "", "found"), rows=rows, names=4, caption=name)
