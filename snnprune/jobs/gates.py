"""Gates of `check` and `prune`: what was found of a checkpoint, held against its limits.

Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnprune.errors import SnnpruneError
from snnprune.jobs.targets.reporting import LayerRow
from snnprune.measure import Energy
from snnprune.report.verdicts import (
    Limit,
    Measurements,
    Proportion,
    Verdict,
    append_step_summary,
    judge,
    make_gate_error,
    write_junit,
)

if TYPE_CHECKING:
    from snnprune.graph.network import Network
    from snnprune.measure.agreement import Agreement
    from snnprune.measure.evaluation import Evaluation
    from snnprune.measure.workload import Workload

NO_LABELS = "the images have no labels"
BY_RUNNING = ("right", "right_before", "operations", "energy", "silent", "same")
"""What takes network and data."""
BY_COMPARING = ("right_before", "same")
BY_COUNTING = ("operations", "energy")


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """What running a network gave; None where that was not asked for."""

    evaluation: Evaluation | None = None
    before: Evaluation | Agreement | None = None
    """Of the baseline, or of both together."""
    workload: Workload | None = None
    agreement: Agreement | None = None
    missing: str | None = None
    """Why it was not run."""


def has_limit_on(limits: Iterable[Limit], fields: Sequence[str]) -> bool:
    """Whether a limit is about one of `fields` of `Measurements`."""
    return bool({name for limit in limits for name in limit.gate.needs} & set(fields))


def collect_measurements(
    rows: Iterable[LayerRow], files: Iterable[Path], ran: RunResults, energy: Energy
) -> Measurements:
    """Everything that is known, as counts."""
    evaluation, work = ran.evaluation, ran.workload
    labels = {name: NO_LABELS for name in ("right", "right_before") if evaluation}
    missing = dict.fromkeys(BY_RUNNING, ran.missing) if ran.missing else labels
    return Measurements(
        layers={
            row.weight: Proportion(part=row.weights - row.kept, whole=row.weights)
            for row in rows
            if row.kept is not None
        },
        size=sum(path.stat().st_size for path in files),
        right=_count_right(evaluation),
        right_before=_count_right_before(ran.before),
        operations=None if work is None else work.sum_layers().macs + work.sum_layers().acs,
        energy=None if work is None else _compute_energy(work, energy),
        silent=None if evaluation is None else _count_silent(evaluation),
        same=_count_same(ran.agreement),
        samples=evaluation.samples if evaluation else 0,
        missing={name: why for name, why in missing.items() if why},
    )


def drop_channels(
    channels: Mapping[str, Mapping[str, int]],
    evaluation: Evaluation | None,
    network: Network | None,
) -> Evaluation | None:
    """The evaluation without `channels` that are gone from the file: they are not dead but away."""
    if not channels or network is None or evaluation is None:
        return evaluation
    gone = {
        link.neuron: found["of"] - found["kept"]
        for key, found in channels.items()
        for link in network.layers[key].links
    }
    activity = {
        name: replace(
            one,
            channels=one.channels - gone.get(name, 0),
            silent=max(0, one.silent - gone.get(name, 0)),
        )
        for name, one in evaluation.activity.items()
    }
    return replace(evaluation, activity=activity)


def _count_right(evaluation: Evaluation | None) -> Proportion | None:
    if evaluation is None or not evaluation.labelled:
        return None
    return Proportion(part=evaluation.correct, whole=evaluation.labelled)


def _count_right_before(before: Evaluation | Agreement | None) -> Proportion | None:
    """Of the first of two networks, where both were run together."""
    if before is None:
        return None
    from snnprune.measure.agreement import Agreement

    if not isinstance(before, Agreement):
        return _count_right(before)
    answers = before.answers
    if answers is None:
        return None
    return Proportion(part=answers.both + answers.only_first, whole=answers.labelled)


def _compute_energy(work: Workload, energy: Energy) -> Fraction:
    """In pJ, exact for what was written on the command line."""
    mac, ac = (Fraction(repr(each)) for each in (energy.mac, energy.ac))
    total = work.sum_layers()
    return total.macs * mac + total.acs * ac


def _count_silent(evaluation: Evaluation) -> Proportion | None:
    found = evaluation.activity.values()
    channels = sum(one.channels for one in found)
    return Proportion(part=sum(one.silent for one in found), whole=channels) if channels else None


def _count_same(agreement: Agreement | None) -> Proportion | None:
    spikes = agreement.spikes.values() if agreement else ()
    places = sum(sum(one.places) for one in spikes)
    return Proportion(part=sum(sum(one.same) for one in spikes), whole=places) if places else None


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """What came of the gates of one checkpoint."""

    verdicts: tuple[Verdict, ...]
    error: SnnpruneError | None

    def add_to(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """The report with the gates in it."""
        told: dict[str, Any] = {"gates": [one.as_dict() for one in self.verdicts]}
        if self.error is not None:
            told |= {"ok": False, "error": self.error.as_dict()}
        return {**report, **told}


def judge_gates(limits: Sequence[Limit], found: Measurements, file: Path) -> GateResult:
    """Hold all limits against what was found of the checkpoint `file`."""
    verdicts = judge(limits, found)
    error = make_gate_error(verdicts, file)
    if error is not None:
        error.in_report = True
    return GateResult(verdicts=verdicts, error=error)


def publish_verdicts(
    command: str, verdicts: Mapping[str, Sequence[Verdict]], junit: Path | None
) -> tuple[str, ...]:
    """Write the JUnit file, and the summary where a CI job has one; warnings.

    Raises:
        OutputError: the JUnit file cannot be written.
    """
    if junit is not None:
        write_junit(junit, command, verdicts)
    warning = append_step_summary(command, verdicts) if any(verdicts.values()) else None
    return (warning,) if warning else ()
