"""What the theory says, and what happens."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from snnprune.errors import layer_name
from snnprune.report.pages.page import (
    NOTHING,
    Block,
    PageSection,
    Picture,
    Pictures,
    TextTable,
    draw_inline,
    percent,
    small_percent,
)
from snnprune.report.plots.theory import (
    FlipCourse,
    plot_accumulation,
    plot_failures,
    plot_predictions,
)

Report = Mapping[str, Any]
Points = dict[str, tuple[list[float], list[float]]]


def make_analysis_section(report: Report) -> PageSection | None:
    """Levels of a change: what breaks first, and how good the prediction is."""
    levels = report.get("levels")
    if not levels:
        return None
    rows = [_format_level(one) for one in levels]
    titles = ("level", "first to break", "predicted", "flipped", "within a factor of 2", "accuracy")
    dense = (report["dense"] or {}).get("accuracy")
    table = TextTable(titles=titles, rows=rows, names=2, caption=f"Dense: {percent(dense, 2)}")
    points: Points = {}
    for one in levels:
        predicted, measured = points.setdefault(one["level"], ([], []))
        predicted += [layer["predicted"] for layer in one["layers"]]
        measured += [layer["measured"] for layer in one["layers"]]
    each = [
        [one["level"], _format_name(layer), f"{layer['error']:.3g}", *_format_shares(layer)]
        for one in levels
        for layer in one["layers"]
    ]
    of_layers = ("level", "layer", "E|du|", "predicted", "flipped")
    blocks = [table, _draw_predictions(points), TextTable(titles=of_layers, rows=each, names=2)]
    return PageSection(title="What the change does", blocks=blocks)


def _format_level(one: Report) -> list[str | None]:
    layers = one["layers"]
    worst = max(layers, key=lambda layer: layer["measured"], default=None)
    good = f"{sum(layer['good'] for layer in layers)} of {len(layers)}"
    accuracy = (one["evaluation"] or {}).get("accuracy")
    known = [_format_name(worst), *_format_shares(worst)] if worst else [NOTHING] * 3
    return [one["level"], *known, good, percent(accuracy, 2)]


def _format_name(layer: Report) -> str:
    return layer_name(layer["layer"]) or str(layer["neuron"])


def _format_shares(layer: Report) -> list[str]:
    return [small_percent(layer["predicted"]), small_percent(layer["measured"])]


def make_crisis_section(report: Report) -> PageSection | None:
    """Bound, estimate and count of each layer."""
    found = report.get("crises")
    if not found:
        return None
    rows, points = [], Points()
    for one in found:
        rates = list(_iter_rates(one["moved"]))
        kinds = ("estimate", "estimate_counted", "near", "bound")
        means = [statistics.fmean(rates), *(statistics.fmean(one[kind]) for kind in kinds)]
        rank = one["correlation"]
        rows.append(
            [
                layer_name(one["layer"]),
                *map(small_percent, means),
                NOTHING if rank is None else f"{rank:.2f}",
            ]
        )
        points[layer_name(one["layer"])] = one["estimate_counted"], rates
    titles = ("layer alone", "flipped", "Gaussian", "counted", "near", "bound", "rank correlation")
    blocks = [TextTable(titles=titles, rows=rows), _draw_predictions(points)]
    return PageSection(
        title="Flips", blocks=blocks + _make_accumulation_blocks(report["accumulation"])
    )


def _make_accumulation_blocks(found: Sequence[Report]) -> list[Block]:
    """All layers changed at once, from neuron to neuron and step to step."""
    if not found:
        return []
    rows, courses = [], {}
    for one in found:
        sums = [
            NOTHING if one[kind] is None else f"{one[kind][-1]:.2g}" for kind in ("near", "bound")
        ]
        shares = map(small_percent, (one["flipped"][0], one["flipped"][-1], one["hit"][-1]))
        rows.append([one["neuron"], *shares, *sums])
        courses[one["neuron"]] = FlipCourse(
            flipped=one["flipped"], hit=one["hit"], bound=one["bound"]
        )
    titles = (
        "all layers changed",
        "flips, first step",
        "flips, last",
        "samples hit",
        "near",
        "bound",
    )
    svg = draw_inline(lambda path: plot_accumulation([path], courses, ""), "accumulation")
    alt = "Spikes that are others over time, and the share of samples hit beside its bound"
    caption = "All layers changed at once, over time steps. A bound above 1 says nothing."
    picture = Pictures(pictures=[Picture(svg=svg, alt=alt)], caption=caption, wide=True)
    return [TextTable(titles=titles, rows=rows), picture]


def _iter_rates(moved: Report) -> Iterator[float]:
    pairs = zip(moved["first"], moved["places"], strict=True)
    return (first / max(1, places) for first, places in pairs)


def _draw_predictions(points: Points) -> Block:
    svg = draw_inline(lambda path: plot_predictions([path], points, ""), "predictions")
    alt = "Measured share of flipped spikes over the predicted one"
    caption = "Share of spikes that flip over what the membrane's change predicts; dashed: equal."
    return Pictures(pictures=[Picture(svg=svg, alt=alt)], caption=caption, wide=True)


def make_widths_section(report: Report) -> PageSection | None:
    """Widths as printed and corrected."""
    found = report.get("widths")
    if not found:
        return None
    rows = [
        [
            row["statement"],
            row["what"],
            f"{row['error']:.3g}",
            f"{row['printed']:,}",
            f"{row['corrected']:,}",
        ]
        for row in found
    ]
    titles = ("statement", "of what", "error", "k as printed", "k corrected")
    return PageSection(title="Widths", blocks=[TextTable(titles=titles, rows=rows, names=2)])


def make_construction_section(report: Report) -> PageSection | None:
    """How often each statement failed."""
    found = report.get("steps")
    if not isinstance(found, Sequence) or "within" not in report:
        return None
    counts = {one["name"]: one["count"] for one in found}
    counts |= {"partners": report["within"], "all spikes": report["equal"]}
    exact = {one["name"]: one["exact"] for one in found}
    rows = [
        [
            name,
            f"{one['failures']:,} of {one['trials']:,}",
            f"{one['low']:.4f} to {one['high']:.4f}",
            NOTHING if exact.get(name) is None else f"{exact[name]:.4f}",
        ]
        for name, one in counts.items()
    ]
    allowed = report["setting"]["delta"]

    def draw(path: Path) -> None:
        plot_failures([path], counts, allowed, "")

    picture = Picture(svg=draw_inline(draw, "failures"), alt="Failures of each statement")
    caption = f"Share of failures with 95 % intervals; dashed: the {allowed:g} that is allowed."
    blocks: list[Block] = [
        TextTable(titles=("statement", "failed", "95 % interval", "exact chance"), rows=rows),
        Pictures(pictures=[picture], caption=caption, wide=True),
    ]
    return PageSection(title="Trials", blocks=blocks)
