"""What runs found, on 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

if TYPE_CHECKING:
    from snnprune.curves import Summary


def shown(summary: Summary) -> list[RenderableType]:
    """Accuracies, in tables or a line."""
    points = [*([summary.dense] if summary.dense else []), *summary.points]
    return [f"{p.method} {p.sparsity:.1%}: {(p.mean or 0):.2%}" for p in points]
