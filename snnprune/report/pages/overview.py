"""What most reports have: gates, sizes, before and after side by side, where numbers come from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import PurePath
from typing import Any

from snnprune.errors import format_split
from snnprune.report import name_samples_of
from snnprune.report.pages.page import (
    NOTHING,
    Block,
    Facts,
    PageSection,
    TextLines,
    TextTable,
    drop_unknown_columns,
    format_bytes,
    format_change,
    format_joules,
    format_points,
    format_rate,
    format_whole,
    percent,
)

Report = Mapping[str, Any]
NAMES = {
    "dense": "dense, zeros and all",
    "gzip": "dense, by gzip",
    "zstd": "dense, by zstd",
    "packed": "packed",
    "bound": "entropy bound of packed",
}
TRIED = "gzip and zstd are estimates: they were tried on {} of it, in pieces from all over."


def make_sizes_section(report: Report) -> PageSection | None:
    """Of an export; before and after stand in the comparison."""
    found = report.get("sizes")
    if not found or "dense" not in found:
        return None
    rows = [
        [what, format_bytes(found[name]), percent(found[name] / max(1, found["dense"]))]
        for name, what in NAMES.items()
    ]
    table = TextTable(titles=("tensors", "size", "of dense"), rows=rows)
    return PageSection(title="Size", blocks=[table, *_list_notes(_format_tried_note(found))])


def _format_tried_note(sizes: Mapping[str, int]) -> str | None:
    """Where gzip and zstd were tried on some pieces of a large file."""
    tried = sizes.get("tried", sizes["dense"])  # older reports have none: it was all of it
    return TRIED.format(format_bytes(tried)) if tried < sizes["dense"] else None


def _list_notes(*notes: str | None) -> list[Block]:
    """A block of those that there are."""
    lines = [note for note in notes if note]
    return [TextLines(lines=lines)] if lines else []


SIGNS = {True: "met", False: "NOT MET", None: "not judged"}


def make_gates_section(report: Report) -> PageSection | None:
    """A row for each gate; a table for each of several files."""
    parts = [("", report), *((_name_file(one), one) for one in report.get("files", []))]
    tables = [_make_gate_table(name, part["gates"]) for name, part in parts if part.get("gates")]
    return PageSection(title="Gates", blocks=tables) if tables else None


def _name_file(one: Report) -> str:
    """Of a pruned file: the first that is written for it."""
    return PurePath(one["outputs"][0]["path"]).name


def _make_gate_table(name: str, found: Sequence[Report]) -> TextTable:
    rows = [[f"--{one['gate']}", one["limit"], SIGNS[one["met"]], one["found"]] for one in found]
    return TextTable(titles=("gate", "limit", "", "found"), rows=rows, names=4, caption=name)


def make_tuning_section(report: Report) -> PageSection | None:
    """How what is left was tuned, of each file, and why so or why not."""
    parts = [("", report), *((_name_file(one), one) for one in report.get("files", []))]
    told = [
        (name, part) for name, part in parts if part.get("tuning") or part.get("tuning_because")
    ]
    tables = [_make_tuning_table(name, part["tuning"]) for name, part in told if part.get("tuning")]
    whys = dict.fromkeys(part.get("tuning_because") for _, part in told)
    before = "Tuned so because " if tables else ""
    lines = _list_notes(*(f"{before}{why}." for why in whys if why))
    return PageSection(title="Tuning", blocks=[*tables, *lines]) if told else None


def _make_tuning_table(name: str, tuning: Report) -> TextTable:
    images = "batch by batch" if tuning["images"] is None else f"{tuning['images']:,} samples"
    rows = [
        ("steps", format_whole(tuning["steps"])),
        ("on", ", ".join([images, *tuning["augment"]])),
        ("towards", "their labels" if tuning["use_labels"] else "the dense network's outputs"),
        ("peak learning rate", f"{tuning['learning_rate']:g}"),
        ("weights kept, before and after", f"{tuning['kept_before']:,}, {tuning['kept']:,}"),
        ("loss, first", f"{tuning['loss_at_first']:.3g}"),
        ("loss, with the final masks", f"{tuning['loss_at_goal']:.3g}"),
        ("loss, last", f"{tuning['loss_at_last']:.3g}"),
    ]
    return TextTable(titles=("", "tuned"), rows=rows, caption=name)


Row = tuple[str, str, str, str]
ENERGY = (
    "Energy is that of arithmetic alone, at {mac:g} pJ a multiply-accumulate and {ac:g} pJ an "
    "accumulate (the defaults are those of 32-bit floats at 45 nm). Reading weights from memory "
    "may well take more, and a chip takes what its vendor measures."
)


def make_comparison_section(report: Report) -> PageSection | None:
    """Accuracy, work, energy, size, firing; one column where there is nothing to compare with."""
    before, after = _collect_views(report)
    if not after:
        return None
    rows = list(_iter_rows(before, after, name_samples_of(report)))
    pair = bool(before)
    titles = ("", "before", "after", "change") if pair else ("", "measured")
    table = TextTable(titles=titles, rows=[row if pair else (row[0], row[2]) for row in rows])
    sizes = after.get("sizes")
    notes = _list_notes(format_energy_note(after), _format_tried_note(sizes) if sizes else None)
    title = "Before and after" if pair else "Measured"
    return PageSection(title=title, blocks=[table, *notes])


def _collect_views(report: Report) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of the network before and after: evaluation, workload, sizes and totals."""
    if "before" in report or "after" in report:
        return _collect_view(report, "before"), _collect_view(report, "after")
    alone = {name: report.get(name) for name in ("evaluation", "workload", "totals")}
    if "kept" not in (alone["totals"] or {}):  # of something else than pruned weights
        alone["totals"] = None
    return {}, {name: value for name, value in alone.items() if value}


def _collect_view(report: Report, when: str) -> dict[str, Any]:
    parts = {
        "evaluation": report.get(when),
        "workload": (report.get("workload") or {}).get(when),
        "sizes": (report.get("sizes") or {}).get(when),
        "totals": report.get("totals" if when == "after" else "totals_before"),
        "test": report.get("test") if when == "after" and report.get(when) else None,
    }
    return {name: value for name, value in parts.items() if value}


def _iter_rows(before: Report, after: Report, noun: str) -> Iterator[Row]:
    yield from _iter_total_rows(before.get("totals"), after.get("totals"))
    yield from _iter_evaluation_rows(before.get("evaluation"), after.get("evaluation"), noun)
    yield from _iter_test_rows(after.get("test"), noun)
    yield from _iter_workload_rows(before.get("workload"), after.get("workload"))
    yield from _iter_size_rows(before.get("sizes"), after.get("sizes"))


def _measure_both(
    measure: Callable[[Report], float | None], before: Report | None, after: Report | None
) -> tuple[float | None, float | None]:
    """A measure of what is known before and after."""
    one, other = (None if not found else measure(found) for found in (before, after))
    return one, other


def _iter_total_rows(before: Report | None, after: Report | None) -> Iterator[Row]:
    if not after:
        return
    one, other = _measure_both(lambda found: found["pruned"] / found["prunable"], before, after)
    yield "sparsity of the prunable weights", percent(one, 2), percent(other, 2), NOTHING
    one, other = _measure_both(lambda found: found["kept"], before, after)
    yield "weights kept", format_whole(one), format_whole(other), format_change(one, other)


def _iter_evaluation_rows(before: Report | None, after: Report | None, noun: str) -> Iterator[Row]:
    if not after:
        return
    one, other = _measure_both(lambda found: found["accuracy"], before, after)
    yield (
        f"accuracy{_format_images(after, noun)}",
        percent(one, 2),
        percent(other, 2),
        format_points(one, other),
    )
    named = {"silent": "channels that never spike", "saturated": "channels that always spike"}
    for name, what in named.items():
        yield what, _format_channels(before, name), _format_channels(after, name), NOTHING


def _format_images(evaluation: Report, noun: str) -> str:
    """Which images, where they have labels."""
    if not evaluation["labelled"]:
        return ""
    return f" ({evaluation['labelled']:,} {format_split(evaluation['images'])} {noun})"


def _iter_test_rows(test: Report | None, noun: str) -> Iterator[Row]:
    if test and test["accuracy"] is not None:
        yield (
            f"accuracy{_format_images(test, noun)}",
            NOTHING,
            percent(test["accuracy"], 2),
            NOTHING,
        )


def _format_channels(evaluation: Report | None, name: str) -> str:
    if not evaluation:
        return NOTHING
    found = evaluation["activity"].values()
    return f"{sum(one[name] for one in found):,} of {sum(one['channels'] for one in found):,}"


OPERATIONS: Mapping[str, Callable[[Report], float]] = {
    "synaptic operations a sample": lambda work: work["macs"] + work["acs"],
    "of them multiply-accumulates": lambda work: work["macs"],
    "of them accumulates": lambda work: work["acs"],
    "membrane updates a sample": lambda work: work["updates"],
}


def _divide_by_samples(measure: Callable[[Report], float]) -> Callable[[Report], float]:
    return lambda work: measure(work) / work["samples"]


def _iter_workload_rows(before: Report | None, after: Report | None) -> Iterator[Row]:
    if not after:
        return
    for name, measure in OPERATIONS.items():
        one, other = _measure_both(_divide_by_samples(measure), before, after)
        yield name, format_whole(one), format_whole(other), format_change(one, other)
    one, other = _measure_both(lambda work: work["energy_pj"], before, after)
    yield "energy a sample", format_joules(one), format_joules(other), format_change(one, other)
    one, other = _measure_both(lambda work: work["active"] / max(1, work["outputs"]), before, after)
    yield (
        "share of outputs that are spikes",
        format_rate(one),
        format_rate(other),
        format_change(one, other),
    )


SIZES = {
    "dense": "tensors, zeros and all",
    "gzip": "the same by gzip",
    "zstd": "the same by zstd",
    "packed": "packed (export --to packed)",
    "bound": "what packed could be at best",
}


def _iter_size_rows(before: Report | None, after: Report | None) -> Iterator[Row]:
    if not after:
        return
    for name, what in SIZES.items():
        one, other = _measure_both(itemgetter(name), before, after)
        yield what, format_bytes(one), format_bytes(other), format_change(one, other)


def format_energy_note(after: Report) -> str | None:
    work = after.get("workload")
    if not work:
        return None
    return ENERGY.format(mac=work["energy_per_mac_pj"], ac=work["energy_per_ac_pj"])


CHOICES = ("allocation", "repair", "steps", "structure", "split")


def make_warnings_section(report: Report) -> PageSection | None:
    """What the command warned of."""
    lines = report.get("warnings")
    return PageSection(title="Warnings", blocks=[TextLines(lines=lines)]) if lines else None


def make_notes_section(report: Report) -> PageSection | None:
    """What it did that is worth a line."""
    lines = report.get("notes")
    return PageSection(title="Notes", blocks=[TextLines(lines=lines)]) if lines else None


def make_origin_section(report: Report) -> PageSection:
    """What it takes to get them again: command, choices, seed, device, versions, files, hashes."""
    several = report.get("files", [])
    known = {**several[0], **report} if several else report  # all were pruned in the same way
    chosen = {name: known.get(name) for name in CHOICES}
    pairs = [(name, str(value)) for name, value in chosen.items() if isinstance(value, str | int)]
    command = report.get("command_line")
    why = known.get("criterion_because")
    facts = [
        *([("command", command)] if command else []),
        *([("criterion", f"{known['criterion']} ({why})")] if why else []),
        *pairs,
        *((what, _format_named(one)) for what in ("model", "data") if (one := report.get(what))),
        ("seed", str(report["seed"])),
        ("device", report["device"]),
        ("versions", ", ".join(f"{name} {text}" for name, text in report["versions"].items())),
    ]
    files = [("read", one) for one in report["inputs"]]
    files += [("written", one) for part in (report, *several) for one in part.get("outputs", [])]
    rows = [[what, one["path"], one.get("sha256")] for what, one in files]
    table = drop_unknown_columns(TextTable(titles=("", "file", "SHA-256"), rows=rows, names=2), "")
    blocks: list[Block] = [Facts(pairs=facts), *([replace(table, names=3)] if files else [])]
    return PageSection(title="How to get this again", blocks=blocks)


def _format_named(found: Report) -> str:
    """A model or data set with its arguments, in a line."""
    rest = {key: value for key, value in found.items() if key != "name" and value}
    args = rest.pop("args", {})
    return " ".join([found["name"], *([json.dumps({**args, **rest})] if args or rest else [])])
