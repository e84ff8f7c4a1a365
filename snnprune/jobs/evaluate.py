"""`snnprune eval`: how well a checkpoint does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from snnprune.distributed.ranks import join_ranks
from snnprune.jobs.options import EvaluateOptions
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.reporting import (
    LayerRow,
    as_dicts,
    count_totals,
    make_layer_rows,
    make_target_report,
)
from snnprune.measure import Energy
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.measure.workload import Workload, describe_workload, measure_footprint
from snnprune.report import describe_evaluation, doubt_evaluation
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """What came of it."""

    rows: tuple[LayerRow, ...]
    totals: dict[str, int]
    evaluation: Evaluation
    workload: Workload
    energy: Energy
    report: dict[str, Any]


def evaluate_checkpoint(options: EvaluateOptions, progress: Progress) -> EvaluateResult:
    """Run a checkpoint over the images of a split.

    Without one it takes those that say most: test images, or all where nothing says what they are
    for. Several processes share the work, and all return what came of it.
    """
    with join_ranks(options.device) as ranks:
        with ranks.one_before_others(options.download):
            target = open_target(options)
        network, weights = target.require_runnable(), target.find_weights()
        split = options.split or target.choose_split()
        batches = target.batches(split, options.limit).track(progress, "evaluating")
        workload = Workload()
        evaluation = evaluate(
            network,
            batches,
            ranks=ranks,
            workload=workload,
            images=split,
        )
    rates = evaluation.firing_rates
    rows = tuple(
        replace(row, firing_rate=rates.get(row.neuron or ""))
        for row in make_layer_rows(weights, network=network)
    )
    counted = count_totals(rows, target.checkpoint.tensors, network)
    return EvaluateResult(
        rows=rows,
        totals=counted,
        evaluation=evaluation,
        workload=workload,
        energy=options.energy,
        report=make_target_report(
            target,
            "eval",
            warnings=doubt_evaluation(describe_evaluation(evaluation), noun=target.noun),
            split=split,
            totals=counted,
            evaluation=describe_evaluation(evaluation),
            workload=describe_workload(workload, evaluation.samples, options.energy),
            footprint_bytes=measure_footprint(network.module),
            layers=as_dicts(rows),
        ),
    )
