"""From a report to its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnprune.files import as_json, together, write_text
from snnprune.pages.card import card
from snnprune.pages.composing import page_of
from snnprune.pages.html import html

REPORT = "report.json"
PAGES = ("report.html", "report.md")
FILES = (REPORT, *PAGES)


def write_report(
    folder: Path, report: Mapping[str, Any], *, within: Path | None = None
) -> tuple[Path, ...]:
    """Write `report.json` and its pages into `folder`, together; the files.

    `within` is as for `files.together`.

    Raises:
        OutputError: one cannot be written.
    """
    return _written(folder, report, FILES, within)


def write_pages(folder: Path, report: Mapping[str, Any]) -> tuple[Path, ...]:
    """Write `report.html` and `report.md` into `folder`, together; the files.

    Raises:
        OutputError: one cannot be written.
    """
    return _written(folder, report, PAGES, None)


def _written(
    folder: Path, report: Mapping[str, Any], names: tuple[str, ...], within: Path | None
) -> tuple[Path, ...]:
    texts = _texts(report)
    paths = tuple(folder / name for name in names)
    with together(*paths, within=within) as staged:
        for name, path in zip(names, staged, strict=True):
            write_text(path, texts[name])
    return paths


def _texts(report: Mapping[str, Any]) -> dict[str, str]:
    """By the name of the file."""
    page = page_of(report)
    return {
        REPORT: as_json(report),
        **dict(zip(PAGES, (html(page), card(page, report)), strict=True)),
    }
