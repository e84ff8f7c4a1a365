"""`snnprune eval`: how well a checkpoint does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from snnprune.distributed.ranks import joined
from snnprune.jobs.targets.layers import LayerRow, as_dicts, layer_rows, totals
from snnprune.jobs.targets.opening import open_subject
from snnprune.jobs.targets.options import SubjectOptions
from snnprune.jobs.targets.reporting import report_on
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.measure.workload import Energy, Workload, footprint
from snnprune.report.frame import about_evaluation, about_workload, doubts_on
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What came of it."""

    rows: tuple[LayerRow, ...]
    totals: dict[str, int]
    evaluation: Evaluation
    workload: Workload
    energy: Energy
    report: dict[str, Any]


def evaluate_checkpoint(
    options: SubjectOptions,
    *,
    split: str | None,
    limit: int | None,
    energy: Energy,
    progress: Progress,
) -> Evaluated:
    """Run a checkpoint over the images of `split`, at most `limit` of them.

    None takes those that say most: test images, or all where nothing says what they are for.
    Several processes share the work, and all return what came of it.
    """
    with joined(options.device) as ranks:
        with ranks.one_before_others(options.download):
            subject = open_subject(options)
        network, weights = subject.require_runnable(), subject.find_weights()
        split = split or subject.choose_split()
        batches = subject.batches(split, limit).track(progress, "evaluating")
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
        for row in layer_rows(weights, network=network)
    )
    counted = totals(rows, subject.checkpoint.tensors, network)
    return Evaluated(
        rows=rows,
        totals=counted,
        evaluation=evaluation,
        workload=workload,
        energy=energy,
        report=report_on(
            subject,
            "eval",
            warnings=doubts_on(about_evaluation(evaluation)),
            split=split,
            totals=counted,
            evaluation=about_evaluation(evaluation),
            workload=about_workload(workload, evaluation.samples, energy),
            footprint_bytes=footprint(network.module),
            layers=as_dicts(rows),
        ),
    )
