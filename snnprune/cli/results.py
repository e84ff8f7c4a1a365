"""What `prune` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.gate_tables import gate_lines, gate_table
from snnprune.cli.sparsities import search_line, sparsity_table, tries_table
from snnprune.cli.tables import (
    accuracy_line,
    excluded_lines,
    fallback_lines,
    layer_table,
    sparsity_line,
)
from snnprune.notation import layer_name
from snnprune.user_code import is_reference

if TYPE_CHECKING:
    from snnprune.jobs.pruning.pruned import Pruned, Pruning


def prune_tables(found: Pruning, width: int) -> list[Table]:
    """The tries of a search; the layers of one file, or all files."""
    tries = [] if found.search is None else [tries_table(found.search)]
    gates = [
        gate_table(file.verdicts, width, _named(file, found))
        for file in found.files
        if file.verdicts
    ]
    if len(found.files) > 1:
        return [*tries, sparsity_table(found.files), *gates]
    return [*tries, layer_table(found.files[0].rows, width, criteria=True), *gates]


def prune_lines(found: Pruning) -> list[str]:
    """What was done, why so, and what was written."""
    plan, first = found.choice.plan, found.files[0]
    steps = f" in {plan.steps} steps" if plan.steps > 1 else ""
    search = [] if found.search is None else [search_line(found.search)]
    one = found.files if len(found.files) == 1 else ()
    return [
        *search,
        *(sparsity_line(file.totals) for file in one),
        f"criterion {plan.criterion} ({found.choice.why}), allocation {found.allocation}, "
        f"repair {plan.repair}{steps}",
        *fallback_lines(first.rows),
        *excluded_lines(first.report),
        *(channels_line(file) for file in one if file.channels),
        *(accuracy_line(file.after, file.before) for file in one if file.after),
        *(f"tested: {accuracy_line(file.test)}" for file in one if file.test),
        *(line for file in found.files for line in gate_lines(file.verdicts, _named(file, found))),
        *_written(found.files),
        *_smaller(found.files),
    ]


def _named(file: Pruned, found: Pruning) -> str:
    """Its name, where there are several."""
    return file.place.out.name if len(found.files) > 1 else ""


def channels_line(file: Pruned) -> str:
    """How many channels each layer has left, and what share of all is gone."""
    counts = (
        f"{layer_name(key)} {found['kept']} of {found['of']}"
        for key, found in file.channels.items()
    )
    of = sum(found["of"] for found in file.channels.values())
    gone = of - sum(found["kept"] for found in file.channels.values())
    return f"channels kept: {', '.join(counts)}; {gone:,} of {of:,} gone, {gone / of:.2%}"


def _smaller(files: tuple[Pruned, ...]) -> list[str]:
    """How code of the user's own loads what is smaller than its model."""
    model = files[0].report["model"]
    if not any(file.report["smaller"] for file in files) or not is_reference(model["name"]):
        return []
    return ["layers are smaller than the model's: snnprune.shrink(model, FILE) makes them fit"]


def _written(files: tuple[Pruned, ...]) -> list[str]:
    if len(files) > 1:
        names = ", ".join(str(one.place.out) for one in files)
        return [f"wrote {names}, each with its masks and report"]
    place = files[0].place
    return [f"wrote {place.out}, {place.mask_file.name} and {place.report_file.name}"]
