"""Accuracies of several seeds as tables, on a terminal and in Markdown."""

from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from snnprune.cli.training import render_summary
from snnprune.report.curves import CurveSummary, format_markdown_table, summarize_runs


def ticket(method: str, sparsity: float, correct: int) -> dict[str, Any]:
    return {
        "kind": "ticket",
        "method": method,
        "sparsity_asked": sparsity,
        "pruned": round(1000 * sparsity),
        "prunable": 1000,
        "validation_accuracy": None,
        "test": {"correct": correct, "labelled": 1000},
        "layers": [],
    }


SEEDS = [
    [ticket("dense", 0, 890), ticket("imp", 0.5, 885), ticket("imp", 0.999, 100)],
    [ticket("dense", 0, 910), ticket("imp", 0.5, 875), ticket("my|own", 0.5, 500)],
]


def printed(summary: CurveSummary, width: int) -> list[str]:
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        for one in render_summary(summary, width):
            console.print(one, markup=False, soft_wrap=isinstance(one, str))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_row_for_each_sparsity_and_a_column_for_each_method() -> None:
    assert printed(summarize_runs(SEEDS), 80) == [
        "sparsity          imp       my|own",
        "──────────────────────────────────",
        "     50%   88.0 ± 0.7   50.0 (n=1)",
        "   99.9%   10.0 (n=1)            -",
        "dense 90.0 ± 1.4; test accuracy (%), mean ± standard deviation of 2 seeds",
    ]


def test_the_same_as_markdown() -> None:
    assert format_markdown_table(summarize_runs(SEEDS)).splitlines() == [
        "| sparsity | imp | my\\|own |",
        "| ---: | ---: | ---: |",
        "| 50% | 88.0 ± 0.7 | 50.0 (n=1) |",
        "| 99.9% | 10.0 (n=1) | - |",
        "",
        "Dense 90.0 ± 1.4; test accuracy (%), mean ± standard deviation of 2 seeds.",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_methods_with_long_names_stay_within_the_width_and_none_is_cut(width: int) -> None:
    names = [f"somewhere/criterion_{number}.py:a_function_of_mine" for number in range(7)]
    found = summarize_runs([[ticket(name, 0.5, 900) for name in names]])
    lines = printed(found, width)[:-1]
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    tables = [one for one in render_summary(found, width) if isinstance(one, Table)]
    assert sum(len(table.columns) - 1 for table in tables) == 7


def test_names_are_escaped() -> None:
    found = summarize_runs([[ticket("a\x1b[31m[red]<b>", 0.5, 900)]])
    assert "a\\x1b[31m[red]<b>" in printed(found, 80)[0]
    assert "| a\\\\x1b\\[31m\\[red\\]\\<b\\> |" in format_markdown_table(found)


def test_a_run_that_pruned_nothing_has_its_line_alone() -> None:
    dense = summarize_runs([SEEDS[0][:1]])
    assert printed(dense, 80) == ["dense 89.0; test accuracy (%), one seed"]
    assert format_markdown_table(dense) == "Dense 89.0; test accuracy (%), one seed.\n"
