"""Layer by layer: what is kept, what enters, what was changed, what it costs to prune it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnprune.report.pages.html import drawn_inline
from snnprune.report.pages.page import (
    NOTHING,
    Block,
    Lines,
    Picture,
    Pictures,
    Section,
    Table,
    percent,
    whole,
    without_unknown,
)
from snnprune.report.plots.panels import plot_scores
from snnprune.text import layer_name

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


Report = Mapping[str, Any]
MOST = 400  # rows of a page; report.json has all


def layers(report: Report) -> Section | None:
    """Density, rates, work and criterion of each prunable layer."""
    found = report.get("layers")
    if not found or "kept" not in found[0]:
        return None
    work, samples = _work(report)
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
            _input_rate(row, report.get("evidence") or {}),
        ]
        cells += [whole((done["macs"] + done["acs"]) / samples) if done else NOTHING] * bool(work)
        rows.append([*cells, *([row["criterion"] or NOTHING] if criteria else [])])
    blocks: list[Block] = [
        without_unknown(Table(titles=titles, rows=rows), NOTHING),
        *_left_out(found, MOST),
        *_reasons(found),
    ]
    return Section(title="Layers", blocks=blocks)


def _input_rate(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    """Of the dense network, and of the pruned one where both were run."""
    if both := evidence.get("input_rates", {}).get(row["weight"]):
        return f"{both['before']:.3f} → {both['after']:.3f}"
    return NOTHING if row["input_rate"] is None else f"{row['input_rate']:.3f}"


def _work(report: Report) -> tuple[Mapping[str, Any], int]:
    """Operations by layer, after where there are both, and the number of samples."""
    found = report.get("workload") or {}
    found = found.get("after", found) or {}
    return found.get("layers", {}), found.get("samples", 1)


def _left_out(rows: list[Any], most: int) -> list[Lines]:
    more = len(rows) - most
    return [Lines(lines=[f"{more:,} more are in the JSON report."])] if more > 0 else []


def _reasons(rows: list[Any]) -> list[Lines]:
    """Why layers were scored by magnitude."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(layer_name(row["weight"]))
    lines = [f"By magnitude: {', '.join(names)} ({why})." for why, names in reasons.items()]
    return [Lines(lines=lines)] if lines else []


def changes(report: Report) -> Section | None:
    """How much each tensor of two checkpoints differs."""
    found = report.get("layers")
    if not found or "relative_change" not in found[0]:
        return None
    rows = [
        [layer_name(row["key"]), percent(row["relative_change"], 2), percent(row["overlap"], 2)]
        for row in found[:MOST]
    ]
    titles = ("layer", "relative change", "overlap of the kept weights")
    blocks: list[Block] = [Table(titles=titles, rows=rows), *_left_out(found, MOST)]
    return Section(title="Weights", blocks=blocks)


def trials(report: Report) -> Section | None:
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
    return Section(title="Sensitivity", blocks=[Table(titles=titles, rows=rows, caption=caption)])
