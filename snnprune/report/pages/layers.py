"""Layer by layer and neuron by neuron: what is kept, what it costs, what fires and what flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snnprune.errors import layer_name
from snnprune.report import name_samples_of
from snnprune.report.pages.page import (
    NOTHING,
    Block,
    PageSection,
    Picture,
    Pictures,
    TextLines,
    TextTable,
    draw_inline,
    drop_unknown_columns,
    format_whole,
    percent,
    small_percent,
)
from snnprune.report.plots.layers import plot_flips, plot_membrane, plot_scores

Report = Mapping[str, Any]
Histograms = tuple[Sequence[int], Sequence[int], float | None]
"""Before, after, and the half-width of the crisis neighbourhood."""
MOST = 400  # rows of a page; report.json has all
PANELS = 36
FLIPS = (
    "Predicted: the chance that losing the pruned weights alone changes a spike, to first order "
    "(density of the membrane at the threshold times the expected change of the membrane), with "
    "the inputs of the dense network and without repair. Measured: the share of neurons and time "
    "steps whose spike differs between the checkpoint and the pruned and repaired network, with "
    "all that layers before pass on."
)


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
    what = (
        "Accuracy"
        if accurate
        else f"Share of {name_samples_of(report)} with the class of the dense network"
    )
    titles = ("layer", *(percent(step, 0) for step in steps))
    caption = f"{what} where that layer alone is pruned so far."
    return PageSection(
        title="Sensitivity", blocks=[TextTable(titles=titles, rows=rows, caption=caption)]
    )


def make_scores_section(report: Report) -> PageSection | None:
    """A small histogram for each layer."""
    found = (report.get("evidence") or {}).get("scores") or report.get("score_histograms") or {}
    drawable = {key: one for key, one in found.items() if one["edges"]}
    if not drawable:
        return None
    pictures = [
        _draw_scores(layer_name(key), one, f"scores{number}")
        for number, (key, one) in enumerate(list(drawable.items())[:PANELS])
    ]
    more = f" The first {PANELS} of {len(drawable)} layers." if len(drawable) > PANELS else ""
    caption = (
        "Weights by the logarithm of their score: blue kept, orange pruned. Colours overlap where "
        f"repair, a later step or a structure chose other weights than the scores alone.{more}"
    )
    return PageSection(title="Scores", blocks=[Pictures(pictures=pictures, caption=caption)])


def _draw_scores(name: str, found: Report, mark: str) -> Picture:
    def draw(path: Path) -> None:
        plot_scores(path, name, found["edges"], found["kept"], found["pruned"])

    return Picture(svg=draw_inline(draw, mark), alt=f"Histogram of the scores of {name}")


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
        _draw_membrane(name, edges, one, f"membrane{number}")
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


def _draw_membrane(name: str, edges: Sequence[float], found: Histograms, mark: str) -> Picture:
    def draw(path: Path) -> None:
        plot_membrane(path, name, edges, *found)

    alt = f"Histogram of the membrane potential of {name} about its threshold"
    return Picture(svg=draw_inline(draw, mark), alt=alt)


def _format_more(count: int) -> str:
    return f"The first {PANELS} of {count}; the JSON report has all." if count > PANELS else ""


def make_chip_section(report: Report) -> PageSection | None:
    """What each layer takes of a chip, and what does not fit it."""
    fit = report.get("chip")
    if not fit:
        return None
    titles = ["layer", "held as", "weights", "neurons", "biases", "fan-in", "bits", "cores", "fits"]
    rows = [
        [
            layer_name(row["layer"]),
            row["held"],
            *(f"{row[name]:,}" for name in ("weights", "neurons", "biases", "fan_in")),
            "float" if row["bits"] is None else str(row["bits"]),
            ", ".join(map(str, row["cores"][:1] + row["cores"][1:][-1:])) or NOTHING,
            "yes" if row["fits"] else "no",
        ]
        for row in fit["layers"][:MOST]
    ]
    lines = [
        ": ".join(filter(None, (one["layer"], one["message"], one["change"])))
        for one in fit["misfits"]
    ]
    table = TextTable(titles=titles, rows=rows, names=2)
    blocks: list[Block] = [table, TextLines(lines=[*lines, *fit["remarks"]])]
    return PageSection(title=f"On {fit['title']}", blocks=blocks)
