"""From a report to its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnprune.files import write_json, write_text
from snnprune.pages.card import card
from snnprune.pages.composing import page_of
from snnprune.pages.html import html

REPORT = "report.json"
PAGES = ("report.html", "report.md")
FILES = (REPORT, *PAGES)


def write_report(folder: Path, report: Mapping[str, Any]) -> tuple[Path, ...]:
    """Write `report.json` and its pages into `folder`; the files.

    Raises:
        OutputError: one cannot be written.
    """
    texts = _texts(report)  # before the first file: what cannot be shown leaves none
    write_json(folder / REPORT, report)
    return (folder / REPORT, *_written(folder, texts))


def write_pages(folder: Path, report: Mapping[str, Any]) -> tuple[Path, ...]:
    """Write `report.html` and `report.md` into `folder`; the files.

    Raises:
        OutputError: one cannot be written.
    """
    return _written(folder, _texts(report))


def _texts(report: Mapping[str, Any]) -> dict[str, str]:
    page = page_of(report)
    return dict(zip(PAGES, (html(page), card(page, report)), strict=True))


def _written(folder: Path, texts: Mapping[str, str]) -> tuple[Path, ...]:
    for name, text in texts.items():
        write_text(folder / name, text)
    return tuple(folder / name for name in texts)
