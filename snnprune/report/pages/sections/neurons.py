"""Neuron by neuron: how much they fire, which channels are dead, which spikes flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    small_percent,
)
from snnprune.report.plots.panels import plot_flips, plot_membrane

Report = Mapping[str, Any]
Histograms = tuple[Sequence[int], Sequence[int], float | None]
"""Before, after, and the half-width of the crisis neighbourhood."""
MOST = 400  # rows
PANELS = 36
FLIPS = (
    "Predicted: the chance that losing the pruned weights alone changes a spike, to first order "
    "(density of the membrane at the threshold times the expected change of the membrane), with "
    "the inputs of the dense network and without repair. Measured: the share of neurons and time "
    "steps whose spike differs between the checkpoint and the pruned and repaired network, with "
    "all that layers before pass on."
)


def make_neurons_section(report: Report) -> PageSection | None:
    """Firing, dead channels and flips of each layer of neurons."""
    names = _list_names(report)
    if not names:
        return None
    predicted = (report.get("evidence") or {}).get("crises", {})
    same = (report.get("agreement") or {}).get("neurons", {})
    rows = [_format_row(report, name, predicted.get(name), same.get(name)) for name in names[:MOST]]
    titles = ["neuron", "channels", "never spike", "always spike", "firing rate"]
    compared = bool(same)
    titles += ["flips predicted", "flips measured"] if compared else []
    table = TextTable(titles=titles, rows=[row if compared else row[:5] for row in rows])
    blocks: list[Block] = [
        drop_unknown_columns(table, NOTHING),
        *_draw_flips(names, predicted, same),
    ]
    blocks += [TextLines(lines=[FLIPS])] if compared and predicted else []
    return PageSection(title="Neurons", blocks=blocks)


def _list_names(report: Report) -> list[str]:
    last = report.get("after") or report.get("evaluation") or {}
    same = (report.get("agreement") or {}).get("neurons", {})
    return list(dict.fromkeys([*last.get("activity", {}), *same, *report.get("membranes", {})]))


def _format_row(
    report: Report, name: str, seen: Report | None, same: Report | None
) -> list[str | None]:
    first, last = (_read_evaluation(report, when).get("activity", {}).get(name) for when in (0, 1))
    rates = [_read_evaluation(report, when).get("firing_rates", {}).get(name) for when in (0, 1)]
    if same and rates == [None, None]:
        rates = same["firing_rates"]
    calibrated = report.get("membranes", {}).get(name)
    if calibrated:
        last, rates = calibrated, [None, calibrated["firing_rate"]]
    return [
        name,
        f"{last['channels']:,}" if last else NOTHING,
        _format_arrow(*(one and f"{one['silent']:,}" for one in (first, last))),
        _format_arrow(*(one and f"{one['saturated']:,}" for one in (first, last))),
        _format_arrow(*(None if rate is None else f"{rate:.4f}" for rate in rates)),
        small_percent(seen["flips"] if seen else None),
        small_percent(1 - same["agreement"] if same else None),
    ]


def _read_evaluation(report: Report, when: int) -> Report:
    if "after" in report:
        return report["after" if when else "before"] or {}
    return (report.get("evaluation") or {}) if when else {}


def _format_arrow(before: str | None, after: str | None) -> str:
    known = [one for one in (before, after) if one is not None]
    return " → ".join(known) or NOTHING


def _draw_flips(names: list[str], predicted: Report, same: Report) -> list[Pictures]:
    pairs = [
        (predicted[name]["flips"], 1 - same[name]["agreement"])
        for name in names
        if name in predicted and name in same
    ]
    if len(pairs) < 2:
        return []
    expected, measured = zip(*pairs, strict=True)
    svg = draw_inline(lambda path: plot_flips(path, expected, measured), "flips")
    alt = "Measured share of flipped spikes over the predicted one, a point for each neuron"
    return [
        Pictures(
            pictures=[Picture(svg=svg, alt=alt)],
            caption="Share of spikes that flip, a point for each row of the table; dashed: equal.",
        )
    ]


def make_membranes_section(report: Report) -> PageSection | None:
    """A small histogram for each neuron."""
    evidence = report.get("evidence") or {}
    before, after = (evidence.get(when) or {} for when in ("before", "after"))
    radii = {name: one["radius"] for name, one in evidence.get("crises", {}).items()}
    pair = bool(before and after)
    edges = (evidence if pair else report).get("edges", [])
    found: dict[str, Histograms] = {
        name: (before[name]["histogram"], after[name]["histogram"], radii.get(name))
        for name in before
        if name in after
    }
    if not pair:
        alone = report.get("membranes") or {}
        found = {name: (one["histogram"], one["histogram"], None) for name, one in alone.items()}
    if not found:
        return None
    pictures = [
        _draw_panel(name, edges, one, f"membrane{number}")
        for number, (name, one) in enumerate(list(found.items())[:PANELS])
    ]
    colours = (
        "Grey before, blue line after. Shaded: the crisis neighbourhood, one standard deviation of "
        "what the pruned weights would have added to the membrane. "
        if pair
        else ""
    )
    caption = (
        "Membrane potential before reset, about the threshold (dashed), over all channels. "
        f"{colours}{_format_more(len(found))}"
    )
    return PageSection(title="Membranes", blocks=[Pictures(pictures=pictures, caption=caption)])


def _draw_panel(name: str, edges: Sequence[float], found: Histograms, mark: str) -> Picture:
    def draw(path: Path) -> None:
        plot_membrane(path, name, edges, *found)

    alt = f"Histogram of the membrane potential of {name} about its threshold"
    return Picture(svg=draw_inline(draw, mark), alt=alt)


def _format_more(count: int) -> str:
    return f"The first {PANELS} of {count}; the JSON report has all." if count > PANELS else ""
