"""Accuracy against sparsity over several seeds."""

import json
from typing import Any

import pytest

from snnprune.report.curves import describe_curves, summarize_runs

Row = dict[str, Any]


def ticket(
    method: str, asked: float, correct: int | None, *, kept: int, validation: float | None = None
) -> Row:
    """A ticket of 100 weights of which `kept` are left, `correct` of 200 test images right."""
    test = {"correct": correct, "labelled": 200, "firing_rates": {"spikes": 0.1 * kept}}
    return {
        "kind": "ticket",
        "method": method,
        "round": 1,
        "sparsity_asked": asked,
        "pruned": 100 - kept,
        "prunable": 100,
        "validation_accuracy": validation,
        "test": None if correct is None else test,
        "layers": [
            {"weight": "a.weight", "kept": kept // 2, "weights": 50},
            {"weight": "b.weight", "kept": kept - kept // 2, "weights": 50},
        ],
    }


def run(dense: int, *others: Row) -> list[Row]:
    return [
        {"kind": "epoch", "method": "dense", "epoch": 0},
        ticket("dense", 0.0, dense, kept=100),
        *others,
    ]


def test_a_point_has_the_mean_and_the_sample_deviation_over_the_seeds() -> None:
    runs = [run(180, ticket("imp", 0.9, correct, kept=10)) for correct in (160, 170, 174)]
    (point,) = summarize_runs(runs).points
    assert point.accuracies == (0.8, 0.85, 0.87)
    assert point.compute_mean() == pytest.approx(0.84)
    assert point.compute_deviation() == pytest.approx(
        0.036055512754639890
    )  # sqrt((16 + 1 + 9) / 2) %
    assert point.sparsity == 0.9


def test_one_seed_has_no_spread() -> None:
    summary = summarize_runs([run(180, ticket("imp", 0.9, 160, kept=10))])
    assert (summary.points[0].compute_mean(), summary.points[0].compute_deviation()) == (0.8, None)
    assert summary.seeds == 1


def test_the_dense_network_stands_apart_from_the_points() -> None:
    summary = summarize_runs([run(180), run(184)])
    assert summary.dense is not None
    assert (summary.dense.accuracies, summary.points) == ((0.9, 0.92), ())


def test_points_come_by_method_as_they_ran_and_then_by_sparsity() -> None:
    rows = [("sf-imp-1", 0.5), ("sf-imp-1", 0.9), ("random", 0.9), ("random", 0.5), ("imp", 0.5)]
    summary = summarize_runs([run(180, *(ticket(*row, 160, kept=50) for row in rows))])
    assert summary.list_methods() == ("sf-imp-1", "random", "imp")
    assert [(p.method, p.asked) for p in summary.points] == [
        *[("sf-imp-1", 0.5), ("sf-imp-1", 0.9), ("random", 0.5), ("random", 0.9), ("imp", 0.5)],
    ]
    assert summary.list_sparsities() == (0.5, 0.9)


def test_seeds_whose_counts_differ_a_little_share_a_point_with_the_sparsity_they_have() -> None:
    runs = [run(180, ticket("sf-imp-2", 0.9, 160, kept=kept)) for kept in (9, 12)]
    (point,) = summarize_runs(runs).points
    assert point.pruned == (91, 88)
    assert point.sparsity == (91 + 88) / 200


def test_densities_and_firing_rates_are_means_over_the_seeds() -> None:
    runs = [run(180, ticket("imp", 0.9, 160, kept=kept)) for kept in (9, 12)]
    (point,) = summarize_runs(runs).points
    assert point.densities == pytest.approx({"a.weight": 0.1, "b.weight": 0.11})
    assert point.firing_rates == pytest.approx({"spikes": 1.05})


def test_validation_accuracy_counts_where_a_run_has_no_test_images() -> None:
    rows = [ticket("imp", 0.9, None, kept=10, validation=0.75)]
    summary = summarize_runs([rows, run(180, *rows)])
    assert summary.split == "validation"
    assert summary.points[0].accuracies == (0.75, 0.75)
    assert summary.points[0].firing_rates == {}


def test_networks_that_nothing_was_labelled_for_have_no_accuracy() -> None:
    summary = summarize_runs([[ticket("imp", 0.9, None, kept=10)]])
    assert (summary.dense, summary.points[0].compute_mean()) == (None, None)


def test_the_last_of_two_tickets_of_one_run_counts() -> None:
    rows = [ticket("imp", 0.9, correct, kept=10) for correct in (100, 160)]
    assert summarize_runs([run(180, *rows)]).points[0].accuracies == (0.8,)


def test_the_summary_goes_into_a_report_with_counts_and_what_follows_from_them() -> None:
    summary = summarize_runs([run(180, ticket("imp", 0.9, 160, kept=10))])
    about = json.loads(json.dumps(describe_curves(summary), allow_nan=False))
    assert about["dense"]["accuracies"] == [0.9]
    assert about["points"][0] == {
        "method": "imp",
        "sparsity_asked": 0.9,
        "sparsity": 0.9,
        "pruned": [90],
        "prunable": [100],
        "accuracies": [0.8],
        "accuracy_mean": 0.8,
        "accuracy_deviation": None,
        "densities": {"a.weight": 0.1, "b.weight": 0.1},
        "firing_rates": {"spikes": 1.0},
    }
    assert (about["accuracies_on"], about["seeds"]) == ("test", 1)
