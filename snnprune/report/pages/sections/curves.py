"""Accuracy against sparsity, where a report has several; and epoch by epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from snnprune.data.dataset import worded
from snnprune.report.pages.html import drawn_inline, inline
from snnprune.report.pages.page import (
    NOTHING,
    Block,
    Lines,
    Picture,
    Pictures,
    Section,
    Table,
    in_bytes,
    in_joules,
    percent,
    whole,
    without_unknown,
)
from snnprune.report.pages.sections.comparison import energy_note
from snnprune.report.plots.accuracy import Curve, Level, Mark, plot_accuracy
from snnprune.report.plots.canvas import looks


def drawn(report: Mapping[str, Any], name: str) -> Path | None:
    """The SVG of that name among the command's outputs, where it is there."""
    paths = (Path(one["path"]) for one in report.get("outputs", []))
    return next((path for path in paths if path.name == f"{name}.svg" and path.is_file()), None)


Report = Mapping[str, Any]
Measured = Mapping[str, Sequence[tuple[float, Sequence[float]]]]
"""By method: sparsity and the accuracies of each seed."""

MAPS = {"densities": "What is kept of each layer.", "firing-rates": "How much each neuron fires."}


def sparsities(report: Report) -> Section | None:
    """Several files of one `prune`, or the points of a demo."""
    files = [one for one in report.get("files", []) if one["after"]]
    if files:
        found: dict[str, Any] = {
            "pruned": [(_sparsity(one["totals"]), _known(one["after"])) for one in files]
        }
        dense = _known(files[0]["before"])
    elif report.get("points"):
        found = {}
        for one in report["points"]:
            method = f"{one['criterion']}, {one['repair']}"
            accuracy = one["correct"] / one["labelled"]
            found.setdefault(method, []).append((one["pruned"] / one["prunable"], [accuracy]))
        dense = _known(report["dense"])
    else:
        return None
    split = files[0]["after"]["images"] if files else "test"
    blocks = _curves(found, dense, split, drawn(report, "accuracy"))
    if files:
        blocks[-1:] = _files(files)
    return Section(title="Accuracy and sparsity", blocks=blocks)


def _files(files: Sequence[Report]) -> list[Block]:
    """What each file comes to, below the network that they are from."""
    rows = [_row("before", files[0], "before")]
    for one in files:
        rows.append(_row(PurePath(one["outputs"][0]["path"]).name, one, "after"))
    titles = ("file", "sparsity", "accuracy", "spikes as before", "operations a sample")
    table = Table(titles=(*titles, "energy a sample", "packed"), rows=rows)
    work = files[0].get("workload")
    note = energy_note({"workload": work["after"]}) if work else ""
    return [without_unknown(table, NOTHING), *([Lines(lines=[note])] if note else [])]


def _row(name: str, one: Report, when: str) -> list[str]:
    work = (one.get("workload") or {}).get(when)
    same = (one.get("agreement") or {}).get("spike_agreement") if when == "after" else None
    weight = (one.get("sizes") or {}).get(when)
    done = (work["macs"] + work["acs"]) / work["samples"] if work else None
    return [
        name,
        percent(_sparsity(one["totals" if when == "after" else "totals_before"]), 2),
        percent((one[when] or {}).get("accuracy"), 2),
        percent(same, 2),
        whole(done),
        in_joules(work["energy_pj"] if work else None),
        in_bytes(weight["packed"] if weight else None),
    ]


def tickets(report: Report) -> Section | None:
    """The summary of `imp`, `search` and several seeds."""
    summary = report.get("summary")
    if not summary or not summary["points"]:
        return None
    found, known = _measured(summary)
    blocks = _curves(found, known, summary["accuracies_on"], drawn(report, "accuracy"))
    for name, caption in MAPS.items():
        path = drawn(report, name)
        blocks += [_as_it_is(path, caption)] if path else []
    return Section(title="Accuracy and sparsity", blocks=blocks)


def grid(report: Report) -> Section | None:
    """The summaries of several networks and data sets, below the picture of all."""
    runs = [one for one in report.get("runs", []) if one.get("summary", {}).get("points")]
    if not runs:
        return None
    made = drawn(report, "accuracy")
    blocks: list[Block] = [_as_it_is(made, "Accuracy and sparsity.")] if made else []
    for one in runs:
        found, dense = _measured(one["summary"])
        name = f"{one['model']['name']}, {one['data']['name']}"
        blocks.append(_table(found, dense, f"{name}: {worded(one['summary']['accuracies_on'])}"))
    return Section(title="Accuracy and sparsity", blocks=blocks)


def tries(report: Report) -> Section | None:
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
        f"{worded(search['split'])} images, where the dense network has "
        f"{percent(search['dense'], 2)}."
    )
    table = Table(titles=("sparsity", "accuracy", "held"), rows=rows, caption=caption)
    return Section(title="Search", blocks=[table])


def epochs(report: Report) -> Section | None:
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
    return Section(title="Epochs", blocks=[Table(titles=titles, rows=rows)], folded=True)


def _sparsity(totals: Report) -> float:
    return float(totals["pruned"] / totals["prunable"])


def _known(evaluation: Report | None) -> list[float]:
    if evaluation is None or evaluation["accuracy"] is None:
        return []
    return [evaluation["accuracy"]]


def _measured(summary: Report) -> tuple[Measured, Sequence[float]]:
    """The accuracies of a summary by method, and those of the dense network."""
    found: dict[str, Any] = {}
    for one in summary["points"]:
        pruned, prunable = sum(one["pruned"]), sum(one["prunable"])
        found.setdefault(one["method"], []).append((pruned / prunable, one["accuracies"]))
    dense = summary["dense"]
    return found, dense["accuracies"] if dense else []


def _as_it_is(path: Path, caption: str) -> Pictures:
    """A coloured map, which is drawn for light paper."""
    svg = inline(path.read_text("utf-8"), path.stem)
    return Pictures(
        pictures=[Picture(svg=svg, alt=caption, on_white=True)], caption=caption, wide=True
    )


def _curves(found: Measured, dense: Sequence[float], split: str, made: Path | None) -> list[Block]:
    """The picture, where there are accuracies, and the numbers."""
    table = _table(found, dense, worded(split).capitalize())
    if not any(accuracies for marks in found.values() for _, accuracies in marks):
        return [table]
    svg = inline(made.read_text("utf-8"), "accuracy") if made else _plot(found, dense, split)
    picture = Picture(svg=svg, alt="Accuracy against sparsity")
    return [Pictures(pictures=[picture], caption="", wide=True), table]


def _table(found: Measured, dense: Sequence[float], what: str) -> Table:
    """A row for each method and a column for each sparsity; the caption begins with `what`."""
    steps = sorted({round(sparsity, 4) for marks in found.values() for sparsity, _ in marks})
    rows = []
    for method, marks in found.items():
        by_step = {round(sparsity, 4): accuracies for sparsity, accuracies in marks}
        rows.append([method, *(_level_text(by_step.get(step, [])) for step in steps)])
    titles = ("method", *(f"{100 * step:.4g} %" for step in steps))
    caption = f"{what} accuracy; dense {_level_text(dense)}"
    return Table(titles=titles, rows=rows, caption=caption)


def _plot(found: Measured, dense: Sequence[float], split: str) -> str:
    look = looks(list(found))
    curves = [
        Curve(
            label=method,
            marks=[
                Mark(sparsity=sparsity, level=_level(accuracies))
                for sparsity, accuracies in sorted(marks)
                if accuracies
            ],
            look=look[method],
        )
        for method, marks in found.items()
    ]

    def draw(path: Path) -> None:
        level = _level(dense) if dense else None
        plot_accuracy([path], curves, dense=level, conditions="", split=split)

    return drawn_inline(draw, "accuracy")


def _level(accuracies: Sequence[float]) -> Level:
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    return Level(mean=statistics.fmean(accuracies), deviation=spread)


def _level_text(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return NOTHING
    level = _level(accuracies)
    spread = "" if level.deviation is None else f" ± {100 * level.deviation:.2f}"
    return f"{100 * level.mean:.2f}{spread} %"
