"""`snnprune score`: a score for every weight."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.files.writing import require_free
from snnprune.jobs.calibrate import read_or_calibrate
from snnprune.jobs.options import ScoreOptions
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.targets.reporting import (
    LayerRow,
    as_dicts,
    make_layer_rows,
    make_target_report,
    warn_of_unused,
)
from snnprune.jobs.targets.target import Target, make_one_shot, warn_of_unused_criterion
from snnprune.pruning.effects import make_score_histogram
from snnprune.pruning.oneshot import LoadedPlan, Plan
from snnprune.pruning.score import Scores
from snnprune.report import make_file_entry
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """Scores, why this criterion, and the report."""

    rows: tuple[LayerRow, ...]
    scores: Scores
    why: str
    report: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CriterionChoice:
    """A criterion and why it was taken."""

    plan: LoadedPlan
    why: str


def score_checkpoint(options: ScoreOptions, progress: Progress) -> ScoreResult:
    """Score a checkpoint's weights, and write them to `--out` where it is given."""
    out, statistics = options.out, options.calibration
    if out is not None:
        require_free(out, force=options.force, inputs=options.list_inputs())
    target = open_target(options)
    target.prunable.require_one_by_one()
    choice = choose_criterion(target, options.criterion, calibrated=statistics is not None)
    calibration = read_or_calibrate(target, choice.plan.criterion, statistics, progress)
    scores = make_one_shot(target, calibration, progress).scores(choice.plan)
    if out is not None:
        _write_scores(out, scores, target)
    weights = target.find_weights()
    rows = make_layer_rows(weights, network=target.network, calibration=calibration, scores=scores)
    return ScoreResult(
        rows=rows,
        scores=scores,
        why=choice.why,
        report=make_target_report(
            target,
            "score",
            warnings=(
                *(calibration.warnings if calibration else ()),
                *warn_of_unused_criterion(scores),
                *warn_of_unused(target.prunable.find_unused()),
            ),
            unused=list(target.prunable.find_unused()),
            criterion=scores.criterion,
            criterion_because=choice.why,
            scale=scores.scale,
            layers=as_dicts(rows),
            score_histograms={
                key: asdict(make_score_histogram(values, weights[key] != 0, scores.scale))
                for key, values in scores.values.items()
            },
            outputs=[make_file_entry(out)] if out else [],
        ),
    )


def choose_criterion(target: Target, asked: str | None, *, calibrated: bool) -> CriterionChoice:
    """The criterion asked for; by default `sf` where it can work, else `magnitude`."""
    if asked is not None:
        name, why = asked, "asked for"
    elif target.network is not None and calibrated:
        name, why = "sf", "the network and its calibration are at hand"
    elif target.runnable is not None:
        name, why = "sf", "the network and its data are at hand"
    else:
        name, why = "magnitude", target.missing or "the network is not at hand"
    return CriterionChoice(plan=Plan(criterion=name).load(), why=why)


def _write_scores(out: Path, scores: Scores, target: Target) -> None:
    metadata = make_metadata(
        "score",
        model=target.spec,
        data=target.data_spec,
        criterion=scores.criterion,
        scale=scores.scale,
        source_sha256=target.checkpoint.sha256,
    )
    values = {key: value.float() for key, value in scores.values.items()}
    write_safetensors(out, target.checkpoint.in_file(values), metadata)
