"""Accuracy against sparsity, where a report has several; and epoch by epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from snnprune.errors import format_split, layer_name
from snnprune.report import name_samples_of
from snnprune.report.pages.overview import format_energy_note
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
    format_bytes,
    format_joules,
    format_whole,
    make_inline,
    percent,
)
from snnprune.report.plots.accuracy import AccuracyLevel, Curve, CurveMark, plot_accuracy
from snnprune.report.plots.canvas import choose_line_styles


def find_picture(report: Mapping[str, Any], name: str) -> Path | None:
    """The SVG of that name among the command's outputs, where it is there."""
    paths = (Path(one["path"]) for one in report.get("outputs", []))
    return next((path for path in paths if path.name == f"{name}.svg" and path.is_file()), None)


Report = Mapping[str, Any]
Measured = Mapping[str, Sequence[tuple[float, Sequence[float]]]]
"""By method: sparsity and the accuracies of each seed."""

MAPS = {"densities": "What is kept of each layer.", "firing-rates": "How much each neuron fires."}


def make_accuracy_section(report: Report) -> PageSection | None:
    """Several files of one `prune`, or the points of a demo."""
    files = [one for one in report.get("files", []) if one["after"]]
    if files:
        found: dict[str, Any] = {
            "pruned": [
                (_compute_sparsity(one["totals"]), _list_accuracies(one["after"])) for one in files
            ]
        }
        dense = _list_accuracies(files[0]["before"])
    elif report.get("points"):
        found = {}
        for one in report["points"]:
            method = f"{one['criterion']}, {one['repair']}"
            accuracy = one["correct"] / one["labelled"]
            found.setdefault(method, []).append((one["pruned"] / one["prunable"], [accuracy]))
        dense = _list_accuracies(report["dense"])
    else:
        return None
    split = files[0]["after"]["images"] if files else "test"
    blocks = _make_curve_blocks(found, dense, split, find_picture(report, "accuracy"))
    if files:
        blocks[-1:] = _make_file_blocks(files)
    return PageSection(title="Accuracy and sparsity", blocks=blocks)


def _make_file_blocks(files: Sequence[Report]) -> list[Block]:
    """What each file comes to, below the network that they are from."""
    rows = [_format_row("before", files[0], "before")]
    for one in files:
        rows.append(_format_row(PurePath(one["outputs"][0]["path"]).name, one, "after"))
    titles = ("file", "sparsity", "accuracy", "spikes as before", "operations a sample")
    table = TextTable(titles=(*titles, "energy a sample", "packed"), rows=rows)
    work = files[0].get("workload")
    note = format_energy_note({"workload": work["after"]}) if work else ""
    return [drop_unknown_columns(table, NOTHING), *([TextLines(lines=[note])] if note else [])]


def _format_row(name: str, one: Report, when: str) -> list[str]:
    work = (one.get("workload") or {}).get(when)
    same = (one.get("agreement") or {}).get("spike_agreement") if when == "after" else None
    weight = (one.get("sizes") or {}).get(when)
    done = (work["macs"] + work["acs"]) / work["samples"] if work else None
    return [
        name,
        percent(_compute_sparsity(one["totals" if when == "after" else "totals_before"]), 2),
        percent((one[when] or {}).get("accuracy"), 2),
        percent(same, 2),
        format_whole(done),
        format_joules(work["energy_pj"] if work else None),
        format_bytes(weight["packed"] if weight else None),
    ]


def make_tickets_section(report: Report) -> PageSection | None:
    """The summary of `imp`, `search` and several seeds."""
    summary = report.get("summary")
    if not summary or not summary["points"]:
        return None
    found, known = _collect_accuracies(summary)
    blocks = _make_curve_blocks(
        found, known, summary["accuracies_on"], find_picture(report, "accuracy")
    )
    for name, caption in MAPS.items():
        path = find_picture(report, name)
        blocks += [_embed_picture(path, caption)] if path else []
    return PageSection(title="Accuracy and sparsity", blocks=blocks)


def make_grid_section(report: Report) -> PageSection | None:
    """The summaries of several networks and data sets, below the picture of all."""
    runs = [one for one in report.get("runs", []) if one.get("summary", {}).get("points")]
    if not runs:
        return None
    made = find_picture(report, "accuracy")
    blocks: list[Block] = [_embed_picture(made, "Accuracy and sparsity.")] if made else []
    for one in runs:
        found, dense = _collect_accuracies(one["summary"])
        name = f"{one['model']['name']}, {one['data']['name']}"
        blocks.append(
            _make_accuracy_table(
                found, dense, f"{name}: {format_split(one['summary']['accuracies_on'])}"
            )
        )
    return PageSection(title="Accuracy and sparsity", blocks=blocks)


def make_tries_section(report: Report) -> PageSection | None:
    """What was tried to hold a target."""
    search = report.get("search")
    if not search:
        return None
    rows = [
        [f"{one['sparsity']:g}", percent(one["accuracy"], 2), "yes" if one["held"] else "no"]
        for one in search["tries"]
    ]
    caption = (
        f"Looked for {percent(search['target'], 2)} on {search['images']:,} "
        f"{format_split(search['split'])} {name_samples_of(report)}, where the dense network has "
        f"{percent(search['dense'], 2)}."
    )
    table = TextTable(titles=("sparsity", "accuracy", "held"), rows=rows, caption=caption)
    return PageSection(title="Search", blocks=[table])


def make_budget_section(report: Report) -> PageSection | None:
    """Limits, what was predicted of them and what was measured, and the tries between."""
    budget = report.get("budget")
    if not budget:
        return None
    if not budget["tries"]:
        told = "The network keeps within every limit as it is: nothing was pruned."
        return PageSection(title="Budget", blocks=[TextLines(lines=[told])])
    limits = TextTable(
        titles=("limit", "layer", "at most", "dense", "predicted", "measured", "off", "bound"),
        rows=[
            [
                one["name"],
                layer_name(one["layer"]) if one["layer"] else "",
                f"{one['most']:,.0f} {one['unit']}",
                format_whole(one["dense"]),
                format_whole(one["predicted"]),
                format_whole(one["measured"]),
                _format_apart(one["predicted"], one["measured"]),
                "yes" if one["bound"] else "no",
            ]
            for one in budget["limits"]
        ],
        names=2,
        caption="Predicted from the calibration of the dense network before anything was pruned.",
    )
    tries = TextTable(
        titles=("weights kept", "sparsity", "operations predicted", "measured", "within limits"),
        rows=[
            [
                format_whole(one["kept"]),
                percent(one["sparsity"], 2),
                format_whole(one["predicted"]),
                format_whole(one["measured"]),
                "yes" if one["met"] else "no",
            ]
            for one in budget["tries"]
        ],
        caption="Each try is predicted by what the one before measured of each layer.",
    )
    layers = TextTable(
        titles=("layer", "operations predicted", "measured", "off"),
        rows=[
            [
                layer_name(key),
                format_whole(one["predicted"]),
                format_whole(one["measured"]),
                _format_apart(one["predicted"], one["measured"]),
            ]
            for key, one in budget["layers"].items()
        ],
        caption="Of a sample, with these masks: by the dense network's rates, and as measured.",
    )
    blocks = [limits, tries, *([layers] if budget["layers"] else [])]
    return PageSection(title="Budget", blocks=blocks)


def _format_apart(predicted: float | None, measured: float) -> str:
    return NOTHING if not predicted else f"{measured / predicted - 1:+.1%}"


def make_epochs_section(report: Report) -> PageSection | None:
    """Loss and accuracy of a training."""
    found = report.get("epochs")
    if not found:
        return None
    rows = [
        [
            str(one["epoch"]),
            f"{one['train_loss']:.4f}",
            percent(one["train_accuracy"], 2),
            percent(one["validation_accuracy"], 2),
            f"{one['learning_rate']:.4g}",
        ]
        for one in found
    ]
    titles = ("epoch", "training loss", "training accuracy", "validation accuracy", "learning rate")
    return PageSection(title="Epochs", blocks=[TextTable(titles=titles, rows=rows)], folded=True)


def _compute_sparsity(totals: Report) -> float:
    return float(totals["pruned"] / totals["prunable"])


def _list_accuracies(evaluation: Report | None) -> list[float]:
    if evaluation is None or evaluation["accuracy"] is None:
        return []
    return [evaluation["accuracy"]]


def _collect_accuracies(summary: Report) -> tuple[Measured, Sequence[float]]:
    """The accuracies of a summary by method, and those of the dense network."""
    found: dict[str, Any] = {}
    for one in summary["points"]:
        pruned, prunable = sum(one["pruned"]), sum(one["prunable"])
        found.setdefault(one["method"], []).append((pruned / prunable, one["accuracies"]))
    dense = summary["dense"]
    return found, dense["accuracies"] if dense else []


def _embed_picture(path: Path, caption: str) -> Pictures:
    """A coloured map, which is drawn for light paper."""
    svg = make_inline(path.read_text("utf-8"), path.stem)
    return Pictures(
        pictures=[Picture(svg=svg, alt=caption, on_white=True)], caption=caption, wide=True
    )


def _make_curve_blocks(
    found: Measured, dense: Sequence[float], split: str, made: Path | None
) -> list[Block]:
    """The picture, where there are accuracies, and the numbers."""
    table = _make_accuracy_table(found, dense, format_split(split).capitalize())
    if not any(accuracies for marks in found.values() for _, accuracies in marks):
        return [table]
    svg = (
        make_inline(made.read_text("utf-8"), "accuracy")
        if made
        else _plot_curves(found, dense, split)
    )
    picture = Picture(svg=svg, alt="Accuracy against sparsity")
    return [Pictures(pictures=[picture], caption="", wide=True), table]


def _make_accuracy_table(found: Measured, dense: Sequence[float], what: str) -> TextTable:
    """A row for each method and a column for each sparsity; the caption begins with `what`."""
    steps = sorted({round(sparsity, 4) for marks in found.values() for sparsity, _ in marks})
    rows = []
    for method, marks in found.items():
        by_step = {round(sparsity, 4): accuracies for sparsity, accuracies in marks}
        rows.append([method, *(_format_level(by_step.get(step, [])) for step in steps)])
    titles = ("method", *(f"{100 * step:.4g} %" for step in steps))
    caption = f"{what} accuracy; dense {_format_level(dense)}"
    return TextTable(titles=titles, rows=rows, caption=caption)


def _plot_curves(found: Measured, dense: Sequence[float], split: str) -> str:
    look = choose_line_styles(list(found))
    curves = [
        Curve(
            label=method,
            marks=[
                CurveMark(sparsity=sparsity, level=_make_level(accuracies))
                for sparsity, accuracies in sorted(marks)
                if accuracies
            ],
            look=look[method],
        )
        for method, marks in found.items()
    ]

    def draw(path: Path) -> None:
        level = _make_level(dense) if dense else None
        plot_accuracy([path], curves, dense=level, conditions="", split=split)

    return draw_inline(draw, "accuracy")


def _make_level(accuracies: Sequence[float]) -> AccuracyLevel:
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    return AccuracyLevel(mean=statistics.fmean(accuracies), deviation=spread)


def _format_level(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return NOTHING
    level = _make_level(accuracies)
    spread = "" if level.deviation is None else f" ± {100 * level.deviation:.2f}"
    return f"{100 * level.mean:.2f}{spread} %"
