"""Layer by layer: what is kept, what enters, what was changed, what it costs to prune it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnprune.errors.text import layer_name
from snnprune.report.pages.html import draw_inline
from snnprune.report.pages.page import (
    NOTHING,
    Block,
    PageSection,
    Picture,
    Pictures,
    TextLines,
    TextTable,
    drop_unknown_columns,
    format_whole,
    percent,
)
from snnprune.report.plots.panels import plot_scores

PANELS = 36


def make_scores_section(report: Mapping[str, Any]) -> PageSection | None:
    """A small histogram for each layer."""
    found = (report.get("evidence") or {}).get("scores") or report.get("score_histograms") or {}
    drawable = {key: one for key, one in found.items() if one["edges"]}
    if not drawable:
        return None
    pictures = [
        _draw_panel(layer_name(key), one, f"scores{number}")
        for number, (key, one) in enumerate(list(drawable.items())[:PANELS])
    ]
    more = f" The first {PANELS} of {len(drawable)} layers." if len(drawable) > PANELS else ""
    caption = (
        "Weights by the logarithm of their score: blue kept, orange pruned. Colours overlap where "
        f"repair, a later step or a structure chose other weights than the scores alone.{more}"
    )
    return PageSection(title="Scores", blocks=[Pictures(pictures=pictures, caption=caption)])


def _draw_panel(name: str, found: Mapping[str, Any], mark: str) -> Picture:
    def draw(path: Path) -> None:
        plot_scores(path, name, found["edges"], found["kept"], found["pruned"])

    return Picture(svg=draw_inline(draw, mark), alt=f"Histogram of the scores of {name}")


Report = Mapping[str, Any]
MOST = 400  # rows of a page; report.json has all


def make_layers_section(report: Report) -> PageSection | None:
    """Density, rates, work and criterion of each prunable layer."""
    found = report.get("layers")
    if not found or "kept" not in found[0]:
        return None
    work, samples = _read_work(report)
    titles = ["layer", "shape", "weights", "kept", "density", "input", "input rate"]
    titles += ["operations a sample"] if work else []
    criteria = any(row["criterion"] for row in found)
    titles += ["scored by"] if criteria else []
    rows = []
    for row in found[:MOST]:
        done = work.get(row["weight"])
        cells = [
            layer_name(row["weight"]),
            "x".join(map(str, row["shape"])),
            f"{row['weights']:,}",
            f"{row['kept']:,}",
            percent(row["kept"] / row["weights"]),
            row["input_values"] or NOTHING,
            _format_input_rate(row, report.get("evidence") or {}),
        ]
        cells += [format_whole((done["macs"] + done["acs"]) / samples) if done else NOTHING] * bool(
            work
        )
        rows.append([*cells, *([row["criterion"] or NOTHING] if criteria else [])])
    blocks: list[Block] = [
        drop_unknown_columns(TextTable(titles=titles, rows=rows), NOTHING),
        *_note_left_out(found, MOST),
        *_note_reasons(found),
    ]
    return PageSection(title="Layers", blocks=blocks)


def _format_input_rate(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    """Of the dense network, and of the pruned one where both were run."""
    if both := evidence.get("input_rates", {}).get(row["weight"]):
        return f"{both['before']:.3f} → {both['after']:.3f}"
    return NOTHING if row["input_rate"] is None else f"{row['input_rate']:.3f}"


def _read_work(report: Report) -> tuple[Mapping[str, Any], int]:
    """Operations by layer, after where there are both, and the number of samples."""
    found = report.get("workload") or {}
    found = found.get("after", found) or {}
    return found.get("layers", {}), found.get("samples", 1)


def _note_left_out(rows: list[Any], most: int) -> list[TextLines]:
    more = len(rows) - most
    return [TextLines(lines=[f"{more:,} more are in the JSON report."])] if more > 0 else []


def _note_reasons(rows: list[Any]) -> list[TextLines]:
    """Why layers were scored by magnitude."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(layer_name(row["weight"]))
    lines = [f"By magnitude: {', '.join(names)} ({why})." for why, names in reasons.items()]
    return [TextLines(lines=lines)] if lines else []


def make_changes_section(report: Report) -> PageSection | None:
    """How much each tensor of two checkpoints differs."""
    found = report.get("layers")
    if not found or "relative_change" not in found[0]:
        return None
    rows = [
        [layer_name(row["key"]), percent(row["relative_change"], 2), percent(row["overlap"], 2)]
        for row in found[:MOST]
    ]
    titles = ("layer", "relative change", "overlap of the kept weights")
    blocks: list[Block] = [TextTable(titles=titles, rows=rows), *_note_left_out(found, MOST)]
    return PageSection(title="Weights", blocks=blocks)


def make_trials_section(report: Report) -> PageSection | None:
    """Accuracy by the layer that alone was pruned, and its sparsity."""
    found = report.get("trials")
    if not found:
        return None
    steps = list(dict.fromkeys(one["sparsity"] for one in found))
    accurate = any(one["accuracy"] is not None for one in found)
    key = "accuracy" if accurate else "same_class"
    cells = {(one["weight"], one["sparsity"]): percent(one[key]) for one in found}
    rows = [
        [layer_name(weight), *(cells.get((weight, step), NOTHING) for step in steps)]
        for weight in dict.fromkeys(one["weight"] for one in found)
    ]
    what = "Accuracy" if accurate else "Share of images with the class of the dense network"
    titles = ("layer", *(percent(step, 0) for step in steps))
    caption = f"{what} where that layer alone is pruned so far."
    return PageSection(
        title="Sensitivity", blocks=[TextTable(titles=titles, rows=rows, caption=caption)]
    )
