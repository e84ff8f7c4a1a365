"""Where the cut went through the scores of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnprune.notation import layer_name
from snnprune.pages.page import Picture, Pictures, Section
from snnprune.pages.svg import drawn_inline
from snnprune.plots import plot_scores

PANELS = 36


def scores(report: Mapping[str, Any]) -> Section | None:
    """A small histogram for each layer."""
    found = (report.get("evidence") or {}).get("scores") or report.get("score_histograms") or {}
    drawable = {key: one for key, one in found.items() if one["edges"]}
    if not drawable:
        return None
    pictures = [
        _panel(layer_name(key), one, f"scores{number}")
        for number, (key, one) in enumerate(list(drawable.items())[:PANELS])
    ]
    more = f" The first {PANELS} of {len(drawable)} layers." if len(drawable) > PANELS else ""
    caption = (
        "Weights by the logarithm of their score: blue kept, orange pruned. Colours overlap where "
        f"repair, a later step or a structure chose other weights than the scores alone.{more}"
    )
    return Section(title="Scores", blocks=[Pictures(pictures=pictures, caption=caption)])


def _panel(name: str, found: Mapping[str, Any], mark: str) -> Picture:
    def draw(path: Path) -> None:
        plot_scores(path, name, found["edges"], found["kept"], found["pruned"])

    return Picture(svg=drawn_inline(draw, mark), alt=f"Histogram of the scores of {name}")
