"""What results look like on 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from snnprune.errors import (
    format_count,
    format_joules,
    format_percent,
    format_split,
    format_whole,
    layer_name,
    make_printable,
)

if TYPE_CHECKING:
    from snnprune.export import ChainCheck, Sizes
    from snnprune.jobs.demo import DemoMeasurement
    from snnprune.jobs.evaluate import EvaluateResult
    from snnprune.jobs.targets.reporting import LayerRow
    from snnprune.measure.evaluation import Evaluation


MAX_ROWS = 300  # of a table; a stranger's file may have any number of layers
MIN_NAME = 12  # columns that a name gets at least


def make_cell(text: str) -> Text:
    """Text that may come from a file."""
    return Text(make_printable(text))


def make_layer_table(rows: Sequence[LayerRow], width: int, *, criteria: bool = False) -> Table:
    """One line per layer, within `width` columns; long names are broken at their dots."""
    rates = any(row.input_rate is not None for row in rows)
    titles = ["shape", "weights", "kept", "pruned"]
    titles += ["input", "fires"] if rates else []
    titles += ["by"] if criteria else []
    body = [_format_layer_cells(row, rates=rates, criteria=criteria) for row in rows]
    columns = zip(titles, *body, strict=True)
    left = width - sum(2 + max(map(len, column)) for column in columns)
    table = make_plain_table()
    table.add_column("layer")
    for title in titles:
        table.add_column(title, justify="left" if title in ("shape", "by") else "right")
    for row, cells in list(zip(rows, body, strict=True))[:MAX_ROWS]:
        name = break_name(make_printable(layer_name(row.weight)), max(left, MIN_NAME))
        table.add_row(Text(name), *map(Text, cells))
    if len(rows) > MAX_ROWS:
        table.add_row(f"... and {len(rows) - MAX_ROWS:,} more layers; --json has all")
    return table


def _format_layer_cells(row: LayerRow, *, rates: bool, criteria: bool) -> list[str]:
    counts = ["-", "-"] if row.kept is None else [f"{row.kept:,}", f"{row.sparsity:.1%}"]
    cells = ["x".join(map(str, row.shape)), f"{row.weights:,}", *counts]
    cells += [_format_rate(row.input_rate), _format_rate(row.firing_rate)] if rates else []
    return cells + ([make_printable(row.criterion or "", 20)] if criteria else [])


def break_name(name: str, width: int) -> str:
    """`name` over as many lines as it takes, broken after dots and blanks where there are some."""
    if len(name) <= width:
        return name
    dot = max(name.rfind(mark, 0, width) for mark in ". ")
    cut = dot + 1 if dot > 0 else width
    return f"{name[:cut]}\n{break_name(name[cut:], width)}"


def make_plain_table() -> Table:
    """No lines but the one under the titles."""
    return Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)


def make_link_table(rows: Sequence[LayerRow], width: int) -> Table:
    """What feeds each layer, and one line for each neuron that it drives: what stands between."""
    titles = ("layer", "fed by", "normalised by", "drives", "through")
    body = [cells for row in rows[:MAX_ROWS] for cells in _format_link_cells(row)]
    return _make_names_table(titles, body, width)


def _format_link_cells(row: LayerRow) -> list[list[str]]:
    ends = [
        [_format_norms(link.norms), link.neuron, ", ".join(link.through) or "-"]
        for link in row.links
    ] or [["-", "-", "-"]]
    layer = [layer_name(row.weight), "input" if row.encoding else "spikes"]
    return [[*(layer if end is ends[0] else ["", ""]), *end] for end in ends]


def make_neuron_table(neurons: Sequence[Mapping[str, Any]], width: int) -> Table:
    """Whose each neuron is, its time steps, and whose spikes reach it past every layer."""
    titles = ("neuron", "library", "steps", "also gets spikes of")
    body = [
        [
            neuron["name"],
            neuron["library"],
            "-" if neuron["steps"] is None else str(neuron["steps"]),
            ", ".join(neuron["identities"]) or "-",
        ]
        for neuron in neurons[:MAX_ROWS]
    ]
    return _make_names_table(titles, body, width)


def format_neuron_line(neurons: Sequence[Mapping[str, Any]]) -> str:
    """How many neurons there are, and over how many time steps."""
    steps = sorted({neuron["steps"] for neuron in neurons if neuron["steps"] is not None})
    over = f" over {' or '.join(map(str, steps))} time step{'s' * (steps != [1])}" if steps else ""
    return f"{len(neurons):,} spiking neuron{'s' * (len(neurons) != 1)}{over}"


def _format_norms(norms: Sequence[Sequence[str]]) -> str:
    """What normalises a layer: in order with commas; of one way per time step, first and last."""
    ways = [", ".join(way) for way in norms]
    return " ... ".join([ways[0], ways[-1]] if len(ways) > 1 else ways) or "-"


def _make_names_table(titles: Sequence[str], body: Sequence[Sequence[str]], width: int) -> Table:
    """Columns of names within `width`: the widest give way, broken at dots and commas."""
    cells = [[make_printable(text) for text in row] for row in body]
    columns = list(zip(titles, *cells, strict=True))
    room = _share_width(width, [max(map(len, column)) for column in columns])
    table = make_plain_table()
    for title in titles:
        table.add_column(title)
    for row in cells:
        lines = (break_name(text, columns) for text, columns in zip(row, room, strict=True))
        table.add_row(*map(Text, lines))
    return table


def _share_width(width: int, wanted: Sequence[int]) -> list[int]:
    """Columns for each of the `wanted` widths: the narrow get theirs, the wide share the rest."""
    left, given = width - 2 * len(wanted), dict[int, int]()
    for index in sorted(range(len(wanted)), key=wanted.__getitem__):
        given[index] = min(wanted[index], max(MIN_NAME, left // (len(wanted) - len(given))))
        left -= given[index]
    return [given[index] for index in range(len(wanted))]


def make_firing_table(evaluation: Evaluation) -> Table:
    """Spikes per neuron per time step, by neuron."""
    table = make_plain_table()
    table.add_column("neuron", overflow="fold")
    table.add_column("firing rate", justify="right")
    for name, rate in evaluation.firing_rates.items():
        table.add_row(make_cell(name), make_cell(f"{rate:.4f}"))
    return table


def make_demo_table(points: Sequence[DemoMeasurement]) -> Table:
    """Test accuracy by criterion and repair (rows) and sparsity (columns)."""
    sparsities = sorted({point.sparsity for point in points})
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("criterion")
    table.add_column("repair")
    for sparsity in sparsities:
        table.add_column(f"{sparsity:.0%}", justify="right")
    for row in dict.fromkeys((point.criterion, point.repair) for point in points):
        found = {p.sparsity: p.accuracy for p in points if (p.criterion, p.repair) == row}
        table.add_row(*row, *(f"{found[s]:.1%}" if s in found else "" for s in sparsities))
    return table


def format_excluded_lines(report: Mapping[str, Any]) -> list[str]:
    """Which weights `--exclude` left alone."""
    keys = [layer_name(key) for key in report["excluded"]]
    return [f"left alone: {make_printable(', '.join(keys))}"] if keys else []


def format_unused_lines(report: Mapping[str, Any]) -> list[str]:
    """Which weights are not pruned because no convolution or linear layer uses them."""
    from snnprune.jobs.targets.reporting import warn_of_unused

    return [make_printable(line) for line in warn_of_unused(report["unused"])]


def format_sparsity_line(totals: dict[str, Any]) -> str:
    """How much is pruned, of the prunable weights, of all where there are more, of everything."""
    pruned, prunable, parameters = totals["pruned"], totals["prunable"], totals["parameters"]
    weights = totals["weights"]
    if pruned is None:
        return f"{prunable:,} prunable weights of {parameters:,} parameters; zeros not counted"
    more = weights > prunable
    of_all = f"{pruned / weights:.2%} of all {weights:,} weights, " if more else ""
    return (
        f"pruned {pruned:,} of {prunable:,} {'prunable ' * more}weights: {pruned / prunable:.2%} "
        f"({of_all}{pruned / parameters:.2%} of all {parameters:,} parameters)"
    )


def format_accuracy_line(
    evaluation: Evaluation, before: Evaluation | None = None, *, noun: str
) -> str:
    """Accuracy and loss, what they were before, and on which images."""
    images = f"{format_split(evaluation.images)} {noun}"
    if evaluation.accuracy is None or evaluation.loss is None:
        return f"{evaluation.samples:,} {images} without labels: no accuracy"
    line = f"accuracy {evaluation.accuracy:.2%}, loss {evaluation.loss:.3f}"
    if before is not None and before.accuracy is not None and before.loss is not None:
        line = (
            f"accuracy {before.accuracy:.2%} -> {evaluation.accuracy:.2%}, "
            f"loss {before.loss:.3f} -> {evaluation.loss:.3f}"
        )
    steps = "" if evaluation.time_steps is None else f", T = {evaluation.time_steps}"
    return f"{line} ({evaluation.labelled:,} {images}{steps})"


def format_fallback_lines(rows: Sequence[LayerRow]) -> list[str]:
    """Why some layers were scored by magnitude."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.reason is not None:
            reasons.setdefault(row.reason, []).append(layer_name(row.weight))
    return [
        f"by magnitude: {make_printable(', '.join(names))} ({reason})"
        for reason, names in reasons.items()
    ]


def _format_rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.3f}"


NAME, NUMBER = 16, 8  # columns that a name and a percentage take


def make_tables_abreast(
    titles: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> Iterator[Table]:
    """Tables of as many columns as there is room for beside the names."""
    most = max(1, (width - NAME) // NUMBER)
    for start in range(1, len(titles), most):
        some = slice(start, start + most)
        yield make_number_table(
            [titles[0], *titles[some]], [[row[0], *row[some]] for row in rows], width
        )


def make_number_table(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A table of names with numbers beside them, within `width`; long names are broken."""
    first, *others = titles
    columns = list(zip(titles, *rows, strict=True))[1:]
    left = width - sum(2 + max(map(len, column)) for column in columns)
    table = make_plain_table()
    table.add_column(first)
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    for name, *numbers in rows[:MAX_ROWS]:
        table.add_row(
            Text(break_name(make_printable(name), max(left, MIN_NAME))), *map(make_cell, numbers)
        )
    if len(rows) > MAX_ROWS:
        table.add_row(f"... and {len(rows) - MAX_ROWS:,} more; --json has all")
    return table


def make_size_table(sizes: Sizes, values: str) -> Table:
    """Bytes of the tensors as they are, compressed and packed."""
    precision = "" if values == "exact" else f" ({values})"
    by_pieces = ", estimated" if sizes.estimated else ""
    rows = {
        "dense": sizes.dense,
        f"gzip{by_pieces}": sizes.gzip,
        f"zstd{by_pieces}": sizes.zstd,
        f"packed{precision}": sizes.packed,
        "entropy bound": sizes.bound,
    }
    table = make_plain_table()
    table.add_column("tensors")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("of dense", justify="right", no_wrap=True)
    for name, count in rows.items():
        table.add_row(name, f"{count:,}", f"{count / max(sizes.dense, 1):.1%}")
    return table


def describe_chain(check: ChainCheck) -> str:
    """How near a chain is to its network, and what it takes."""
    where = f"{format_count(check.samples, 'sample')} of {format_count(check.time_steps, 'step')}"
    parts = [
        f"held against the network on {where}: membranes off by at most {check.deviation:.1g} of "
        f"the largest, {check.other_spikes:,} of {check.spikes:,} spikes otherwise",
        f"BatchNorm of {format_count(check.folded, 'layer')} folded" if check.folded else "",
    ]
    if check.table_bytes is not None and check.state_bytes is not None:
        parts.append(f"tables {check.table_bytes:,} bytes, state {check.state_bytes:,} bytes")
    return "; ".join(filter(None, parts))


def make_work_table(found: EvaluateResult, width: int) -> Table:
    """Synaptic operations for a sample, by layer."""
    samples = found.evaluation.samples
    rows = [
        [
            layer_name(key),
            format_per_sample(layer.dense, samples),
            format_per_sample(layer.macs, samples),
            format_per_sample(layer.acs, samples),
            format_percent((layer.macs + layer.acs) / layer.dense if layer.dense else None),
        ]
        for key, layer in found.workload.layers.items()
    ]
    return make_number_table(["a sample", "dense", "MACs", "ACs", "done"], rows, width)


def format_work_lines(found: EvaluateResult) -> list[str]:
    """Totals for a sample, energy, and how sparse activations are."""
    samples, total = found.evaluation.samples, found.workload.sum_layers()
    active, energy = found.workload.sum_neurons(), found.energy
    lines = [
        f"synaptic operations of a sample: {format_per_sample(total.macs, samples)} MACs, "
        f"{format_per_sample(total.acs, samples)} ACs; "
        f"dense {format_per_sample(total.dense, samples)}",
        f"energy {format_joules(energy.of(total) / samples)} a sample at {energy.mac:g} pJ a MAC "
        f"and {energy.ac:g} pJ an AC, memory traffic left out",
    ]
    if active.outputs:
        lines.append(
            f"activation sparsity {1 - active.active / active.outputs:.2%}, "
            f"{format_per_sample(active.updates, samples)} membrane updates a sample"
        )
    return lines


def format_per_sample(count: int, samples: int) -> str:
    """A mean of counts."""
    return format_whole(count / samples)


def format_uncounted_lines(layers: Sequence[str]) -> list[str]:
    """Which layers no table has."""
    names = ", ".join(layer_name(layer) for layer in layers)
    return [f"not counted, as no neuron is known behind: {names}"] if layers else []
