"""Pictures that a command has drawn already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def drawn(report: Mapping[str, Any], name: str) -> Path | None:
    """The SVG of that name among the command's outputs, where it is there."""
    paths = (Path(one["path"]) for one in report.get("outputs", []))
    return next((path for path in paths if path.name == f"{name}.svg" and path.is_file()), None)
