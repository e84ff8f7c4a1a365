"""What a checkpoint weighs in which file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnprune.pages.numbers import in_bytes, percent
from snnprune.pages.page import Section, Table

NAMES = {
    "dense": "dense, zeros and all",
    "gzip": "dense, by gzip",
    "zstd": "dense, by zstd",
    "packed": "packed",
    "bound": "entropy bound of packed",
}


def sizes(report: Mapping[str, Any]) -> Section | None:
    """Of an export; before and after stand in the comparison."""
    found = report.get("sizes")
    if not found or "dense" not in found:
        return None
    rows = [
        [what, in_bytes(found[name]), percent(found[name] / max(1, found["dense"]))]
        for name, what in NAMES.items()
    ]
    table = Table(titles=("tensors", "size", "of dense"), rows=rows)
    return Section(title="Size", blocks=[table])
