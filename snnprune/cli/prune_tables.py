"""What `prune` shows; its gates are those of `check` too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from snnprune.cli.chips import format_chip_lines, make_chip_table
from snnprune.cli.tables import (
    break_name,
    format_accuracy_line,
    format_excluded_lines,
    format_fallback_lines,
    format_sparsity_line,
    make_cell,
    make_layer_table,
    make_plain_table,
)
from snnprune.errors import format_percent, format_small_percent, layer_name, make_printable
from snnprune.plugins.user_code import is_reference
from snnprune.report import name_samples_of
from snnprune.report.verdicts import Verdict

if TYPE_CHECKING:
    from snnprune.jobs.prune.budgets import BudgetResult
    from snnprune.jobs.prune.outcome import PrunedFile, PruneOutcome
    from snnprune.jobs.prune.target_sparsity import Search


SIGNS = {True: "met", False: "NOT MET", None: "NOT JUDGED"}
STYLES = {True: "green", False: "bold red", None: "bold yellow"}


def make_gate_table(verdicts: Sequence[Verdict], width: int, name: str = "") -> Table:
    """A row for each gate, within `width` columns; `name` is that of the file, of several."""
    table = make_plain_table()
    if name:
        table.title, table.title_justify = Text(make_printable(name)), "left"
    for title in ("gate", "limit", "", "found"):
        table.add_column(title)
    taken = [
        max(map(len, map(str, each))) for each in zip(*map(_format_verdict, verdicts), strict=True)
    ]
    left = width - sum(taken) - 2 * (len(taken) + 1)
    for one in verdicts:
        gate, limit, sign = _format_verdict(one)
        found = break_name(make_printable(one.found), max(left, 20))
        table.add_row(gate, Text(limit), Text(sign, style=STYLES[one.met]), Text(found))
    return table


def format_gate_lines(verdicts: Sequence[Verdict], name: str = "") -> list[str]:
    """How many are met; nothing where there are none."""
    met = sum(one.met is True for one in verdicts)
    before = f"{make_printable(name)}: " if name else ""
    return [f"{before}{met} of {len(verdicts)} gates met"] if verdicts else []


def _format_verdict(one: Verdict) -> tuple[str, str, str]:
    return one.gate, make_printable(one.limit), SIGNS[one.met]


def make_sparsity_table(files: Sequence[PrunedFile]) -> Table:
    """One line per file."""
    table = make_plain_table()
    for title in ("sparsity", "accuracy", "kept weights"):
        table.add_column(title, justify="right")
    table.add_column("file", overflow="fold")
    for one in files:
        accuracy = one.after.accuracy if one.after else None
        table.add_row(
            f"{one.sparsity:g}",
            format_percent(accuracy, 2),
            f"{one.totals['kept']:,}",
            make_cell(one.place.out.name),
        )
    return table


def make_tries_table(search: Search) -> Table:
    """One line per sparsity that was tried, in the order of the tries."""
    table = make_plain_table()
    table.add_column("tried", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("held")
    for one in search.tries:
        table.add_row(f"{one.sparsity:g}", f"{one.accuracy:.2%}", "yes" if one.held else "no")
    return table


def make_budget_table(budget: BudgetResult, width: int) -> Table:
    """A row for each limit, of those on every layer the ones that decided; what was foreseen."""
    table = make_plain_table()
    table.add_column("limit")
    for title in ("at most", "dense", "predicted", "measured", "off"):
        table.add_column(title, justify="right")
    table.add_column("")
    for one in budget.limits:
        if one.layer is None or one.bound:
            name = one.name if one.layer is None else f"{one.name} {layer_name(one.layer)}"
            table.add_row(
                break_name(make_printable(name), max(width - 60, 20)),
                f"{one.most:,.0f}",
                f"{one.dense:,.0f}",
                "-" if one.predicted is None else f"{one.predicted:,.0f}",
                f"{one.measured:,.0f}",
                format_apart(one.predicted, one.measured),
                "bound" if one.bound else "",
            )
    return table


def make_operations_table(budget: BudgetResult) -> Table:
    """Synaptic operations of each layer and a sample: foreseen by the dense network's rates."""
    table = make_plain_table()
    table.add_column("layer")
    for title in ("predicted", "measured", "off"):
        table.add_column(title, justify="right")
    for key, one in budget.layers.items():
        apart = format_apart(one.predicted, one.measured)
        cells = (f"{one.predicted:,.0f}", f"{one.measured:,.0f}", apart)
        table.add_row(make_cell(layer_name(key)), *cells)
    return table


def format_apart(predicted: float | None, measured: float) -> str:
    """How far what was measured is from what was predicted, in percent of that."""
    return "-" if not predicted else f"{measured / predicted - 1:+.1%}"


def format_budget_lines(budget: BudgetResult, noun: str) -> list[str]:
    """Which limit decided, in how many tries; or that none did."""
    if not budget.tries:
        return ["the network keeps within every limit as it is: nothing is pruned"]
    tries = f"{len(budget.tries)} tries" if len(budget.tries) > 1 else "1 try"
    on = f", measured on the {budget.images} {noun}" if budget.images else ""
    return [f"bound by {' and '.join(budget.bound) or 'no limit'}: {tries}{on}"]


def format_search_line(search: Search, noun: str) -> str:
    """What was looked for, on which images."""
    return (
        f"looked for {search.target:.2%} on {search.images:,} {search.split} {noun}, where the "
        f"dense network has {search.dense:.2%}: {len(search.tries)} tries"
    )


def make_prune_tables(found: PruneOutcome, width: int) -> list[Table]:
    """The tries of a search; the layers of one file, or all files."""
    tries = [] if found.search is None else [make_tries_table(found.search)]
    if found.budget is not None and found.budget.tries:
        tries.append(make_budget_table(found.budget, width))
        tries += [make_operations_table(found.budget)] if found.budget.layers else []
    gates = [
        make_gate_table(file.verdicts, width, _format_file_name(file, found))
        for file in found.files
        if file.verdicts
    ]
    if len(found.files) > 1:
        return [*tries, make_sparsity_table(found.files), *gates]
    fit = found.files[0].chip
    on_chip = [] if fit is None else [make_chip_table(fit, width)]
    layers = make_layer_table(found.files[0].rows, width, criteria=True)
    return [*tries, layers, *on_chip, *gates]


def format_prune_lines(found: PruneOutcome) -> list[str]:
    """What was done, why so, and what was written."""
    first = found.files[0]
    how, noun = first.report, name_samples_of(first.report)
    steps = f" in {how['steps']} steps" if how["steps"] > 1 else ""
    search = [] if found.search is None else [format_search_line(found.search, noun)]
    search += [] if found.budget is None else format_budget_lines(found.budget, noun)
    one = found.files if len(found.files) == 1 else ()
    return [
        *search,
        *(format_sparsity_line(file.totals) for file in one),
        f"criterion {how['criterion']} ({how['criterion_because']}), "
        f"allocation {how['allocation']}, repair {how['repair']}{steps}",
        *_format_tuning_lines(found),
        *_format_quantization_lines(found),
        *format_fallback_lines(first.rows),
        *format_excluded_lines(first.report),
        *(format_channels_line(file) for file in one if file.channels),
        *(format_accuracy_line(file.after, file.before, noun=noun) for file in one if file.after),
        *(f"tested: {format_accuracy_line(file.test, noun=noun)}" for file in one if file.test),
        *(line for file in one if file.chip for line in format_chip_lines(file.chip)),
        *(
            line
            for file in found.files
            for line in format_gate_lines(file.verdicts, _format_file_name(file, found))
        ),
        *_format_output_lines(found.files),
        *_format_compact_lines(found.files),
    ]


def _format_tuning_lines(found: PruneOutcome) -> list[str]:
    """How long each was tuned, on what, and what that gave; or why none was."""
    lines = [
        _format_tuning_line(
            file.report["tuning"], _format_file_name(file, found), name_samples_of(file.report)
        )
        for file in found.files
        if file.report["tuning"]
    ]
    whys = {
        file.report["tuning_because"]: "tuned so because " if file.report["tuning"] else ""
        for file in found.files
    }
    return [*lines, *(f"{before}{why}" for why, before in whys.items() if why)]


def _format_tuning_line(tuning: Mapping[str, Any], name: str, noun: str) -> str:
    images = "batch by batch" if tuning["images"] is None else f"{tuning['images']:,} {noun}"
    by = "their labels" if tuning["use_labels"] else "the dense network's outputs"
    return (
        f"{name + ': ' if name else ''}tuned by {tuning['steps']:,} steps on {images} "
        f"and {by}, loss {tuning['loss_at_goal']:.3g} -> {tuning['loss_at_last']:.3g} "
        "with the final masks"
    )


def _format_quantization_lines(found: PruneOutcome) -> list[str]:
    """On which grid each is, and what that costs the layer that it costs most."""
    return [
        _format_quantization_line(file.report["quantization"], _format_file_name(file, found))
        for file in found.files
        if file.report["quantization"]
    ]


def _format_quantization_line(quantization: Mapping[str, Any], name: str) -> str:
    layers = quantization["layers"].values()
    lost = [one["lost"] for one in layers if one["lost"] is not None]
    rounded = [one["lost_by_rounding"] for one in layers if one["lost_by_rounding"] is not None]
    cost = (
        f"no layer's currents are off by more than {format_small_percent(max(lost))} of their "
        f"square, {format_small_percent(max(rounded))} were it by rounding alone"
        if lost
        else "each rounded by itself"
    )
    before = f"{make_printable(name)}: " if name else ""
    by = "output channel" if quantization["per"] == "channel" else "layer"
    return f"{before}kept weights in {quantization['bits']} bits by {by}: {cost}"


def _format_file_name(file: PrunedFile, found: PruneOutcome) -> str:
    """Its name, where there are several."""
    return file.place.out.name if len(found.files) > 1 else ""


def format_channels_line(file: PrunedFile) -> str:
    """How many channels each layer has left, and what share of all is gone."""
    counts = (
        f"{layer_name(key)} {found['kept']} of {found['of']}"
        for key, found in file.channels.items()
    )
    of = sum(found["of"] for found in file.channels.values())
    gone = of - sum(found["kept"] for found in file.channels.values())
    return f"channels kept: {', '.join(counts)}; {gone:,} of {of:,} gone, {gone / of:.2%}"


def _format_compact_lines(files: tuple[PrunedFile, ...]) -> list[str]:
    """How code of the user's own loads what is smaller than its model."""
    model = files[0].report["model"]
    if not any(file.report["smaller"] for file in files) or not is_reference(model["name"]):
        return []
    return ["layers are smaller than the model's: snnprune.shrink(model, FILE) makes them fit"]


def _format_output_lines(files: tuple[PrunedFile, ...]) -> list[str]:
    if len(files) > 1:
        names = ", ".join(str(one.place.out) for one in files)
        integers = ", integers" if files[0].place.integers_file else ""
        return [f"wrote {names}, each with its masks{integers} and report"]
    place = files[0].place
    beside = [place.mask_file.name, *([place.integers_file.name] if place.integers_file else [])]
    return [f"wrote {place.out}, {', '.join(beside)} and {place.report_file.name}"]
