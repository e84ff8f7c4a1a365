"""What `prune` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from snnprune.cli.tables import (
    accuracy_line,
    broken,
    cell,
    excluded_lines,
    fallback_lines,
    layer_table,
    number_table,
    plain_table,
    sparsity_line,
)
from snnprune.plugins.user_code import is_reference
from snnprune.report.gates.gate import Verdict
from snnprune.text import in_joules, layer_name, percent, printable, whole

if TYPE_CHECKING:
    from snnprune.export.sizes import Sizes
    from snnprune.jobs.evaluate import Evaluated
    from snnprune.jobs.prune.pruned import Pruned, Pruning
    from snnprune.jobs.prune.target_sparsity import Search


SIGNS = {True: "met", False: "NOT MET", None: "NOT JUDGED"}
STYLES = {True: "green", False: "bold red", None: "bold yellow"}


def gate_table(verdicts: Sequence[Verdict], width: int, name: str = "") -> Table:
    """A row for each gate, within `width` columns; `name` is that of the file, of several."""
    table = plain_table()
    if name:
        table.title, table.title_justify = Text(printable(name)), "left"
    for title in ("gate", "limit", "", "found"):
        table.add_column(title)
    taken = [max(map(len, map(str, each))) for each in zip(*map(_short, verdicts), strict=True)]
    left = width - sum(taken) - 2 * (len(taken) + 1)
    for one in verdicts:
        gate, limit, sign = _short(one)
        found = broken(printable(one.found), max(left, 20))
        table.add_row(gate, Text(limit), Text(sign, style=STYLES[one.met]), Text(found))
    return table


def gate_lines(verdicts: Sequence[Verdict], name: str = "") -> list[str]:
    """How many are met; nothing where there are none."""
    met = sum(one.met is True for one in verdicts)
    before = f"{printable(name)}: " if name else ""
    return [f"{before}{met} of {len(verdicts)} gates met"] if verdicts else []


def _short(one: Verdict) -> tuple[str, str, str]:
    return one.gate, printable(one.limit), SIGNS[one.met]


def size_table(sizes: Sizes, values: str) -> Table:
    """Bytes of the tensors as they are, compressed and packed."""
    precision = "" if values == "exact" else f" ({values})"
    rows = {
        "dense": sizes.dense,
        "gzip": sizes.gzip,
        "zstd": sizes.zstd,
        f"packed{precision}": sizes.packed,
        "entropy bound": sizes.bound,
    }
    table = plain_table()
    table.add_column("tensors")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("of dense", justify="right", no_wrap=True)
    for name, count in rows.items():
        table.add_row(name, f"{count:,}", f"{count / max(sizes.dense, 1):.1%}")
    return table


def work_table(found: Evaluated, width: int) -> Table:
    """Synaptic operations for a sample, by layer."""
    samples = found.evaluation.samples
    rows = [
        [
            layer_name(key),
            per_sample(layer.dense, samples),
            per_sample(layer.macs, samples),
            per_sample(layer.acs, samples),
            percent((layer.macs + layer.acs) / layer.dense if layer.dense else None),
        ]
        for key, layer in found.workload.layers.items()
    ]
    return number_table(["a sample", "dense", "MACs", "ACs", "done"], rows, width)


def work_lines(found: Evaluated) -> list[str]:
    """Totals for a sample, energy, and how sparse activations are."""
    samples, total = found.evaluation.samples, found.workload.sum_layers()
    active, energy = found.workload.sum_neurons(), found.energy
    lines = [
        f"synaptic operations of a sample: {per_sample(total.macs, samples)} MACs, "
        f"{per_sample(total.acs, samples)} ACs; dense {per_sample(total.dense, samples)}",
        f"energy {in_joules(energy.of(total) / samples)} a sample at {energy.mac:g} pJ a MAC and "
        f"{energy.ac:g} pJ an AC, memory traffic left out",
    ]
    if active.outputs:
        lines.append(
            f"activation sparsity {1 - active.active / active.outputs:.2%}, "
            f"{per_sample(active.updates, samples)} membrane updates a sample"
        )
    return lines


def per_sample(count: int, samples: int) -> str:
    """A mean of counts."""
    return whole(count / samples)


def sparsity_table(files: Sequence[Pruned]) -> Table:
    """One line per file."""
    table = plain_table()
    for title in ("sparsity", "accuracy", "kept weights"):
        table.add_column(title, justify="right")
    table.add_column("file", overflow="fold")
    for one in files:
        accuracy = one.after.accuracy if one.after else None
        table.add_row(
            f"{one.sparsity:g}",
            percent(accuracy, 2),
            f"{one.totals['kept']:,}",
            cell(one.place.out.name),
        )
    return table


def tries_table(search: Search) -> Table:
    """One line per sparsity that was tried, in the order of the tries."""
    table = plain_table()
    table.add_column("tried", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_column("held")
    for one in search.tries:
        table.add_row(f"{one.sparsity:g}", f"{one.accuracy:.2%}", "yes" if one.held else "no")
    return table


def search_line(search: Search) -> str:
    """What was looked for, on which images."""
    return (
        f"looked for {search.target:.2%} on {search.images:,} {search.split} images, where the "
        f"dense network has {search.dense:.2%}: {len(search.tries)} tries"
    )


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
