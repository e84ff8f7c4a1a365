"""Tables stay within the width, whatever the names."""

from collections.abc import Sequence

import pytest
from rich.console import Console
from rich.table import Table

from snnprune.cli.tables import make_link_table, make_neuron_table
from snnprune.jobs.targets.reporting import LayerRow, LinkRow


def shown(table: Table, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def row(weight: str, *links: LinkRow) -> LayerRow:
    return LayerRow(weight=weight, shape=(1, 1), weights=1, kept=1, encoding=False, links=links)


def link(neuron: str, norms: Sequence[Sequence[str]] = (), *through: str) -> LinkRow:
    return LinkRow(neuron=neuron, norms=tuple(map(tuple, norms)), through=through)


def test_a_layer_has_a_line_for_each_neuron_that_it_drives_with_what_is_between() -> None:
    rows = [
        row("conv.weight", link("first", [["bn"]], "add"), link("second", [["bn", "scale"]])),
        row("steps.weight", link("third", [["bns.0"], ["bns.1"], ["bns.2"]])),
        row("fc.weight"),
    ]
    assert shown(make_link_table(rows, 80), 80)[2:] == [
        "conv   spikes  bn               first   add",
        "               bn, scale        second  -",
        "steps  spikes  bns.0 ... bns.2  third   -",
        "fc     spikes  -                -       -",
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_long_names_are_broken_at_dots_and_no_column_is_cut(width: int) -> None:
    long = "module.backbone.features.encoder.stages.3.blocks.11.attention"
    links = link(f"{long}.spikes", [[f"{long}.norm", f"{long}.scale"]], "add", "max_pool2d")
    lines = shown(make_link_table([row(f"{long}.projection.weight", links)], width), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert lines[2].split()[0] == "module.backbone."
    assert " spikes " in lines[2]
    neurons = [
        {
            "name": f"{long}.spikes",
            "library": "SpikingJelly",
            "steps": 4,
            "identities": [long, long],
        }
    ]
    lines = shown(make_neuron_table(neurons, width), width)
    assert max(map(len, lines)) <= width
    assert "SpikingJelly" in lines[2]


def test_names_from_a_file_reach_the_tables_escaped() -> None:
    lines = shown(make_link_table([row("a\x1b[31m.weight", link("b\u202e"))], 80), 80)
    assert "\\x1b[31m" in lines[2]
    assert "\\u202e" in lines[2]
