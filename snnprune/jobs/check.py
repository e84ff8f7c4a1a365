"""`snnprune check`: whether a checkpoint keeps its limits, which are gates of `prune` too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snnprune.checkpoint.containers import files_of, require_sha256
from snnprune.errors import SnnpruneError, UsageError
from snnprune.files.writing import require_free
from snnprune.jobs.gates import (
    BY_COMPARING,
    BY_COUNTING,
    BY_RUNNING,
    RunResults,
    collect_measurements,
    has_limit_on,
    judge_gates,
    publish_verdicts,
)
from snnprune.jobs.options import CheckOptions
from snnprune.jobs.targets.reporting import (
    LayerRow,
    as_dicts,
    count_totals,
    make_layer_rows,
    make_target_report,
)
from snnprune.jobs.targets.stored import (
    StoredTarget,
    look_at_values,
    make_stored_report,
    make_stored_rows,
    open_stored_target,
)
from snnprune.report.frame import describe_evaluation, doubt_evaluation, make_file_entry
from snnprune.report.verdicts import Verdict
from snnprune.runtime import Progress

if TYPE_CHECKING:
    from snnprune.checkpoint.checkpoint import Checkpoint
    from snnprune.graph.network import Network
    from snnprune.jobs.targets.target import Target
    from snnprune.measure.agreement import Agreement
    from snnprune.measure.evaluation import Evaluation
    from snnprune.measure.workload import Workload


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What came of it."""

    verdicts: tuple[Verdict, ...]
    rows: tuple[LayerRow, ...]
    totals: dict[str, Any]
    error: SnnpruneError | None
    """Of gates that are not met."""
    report: dict[str, Any]


def check_checkpoint(options: CheckOptions, progress: Progress) -> CheckResult:
    """Measure what the gates are about, and hold it against them all.

    Raises:
        UsageError: there is no gate, or one that compares has nothing to compare with.
        InputError: a checkpoint, network or data set cannot be used, or it is not that of the hash.
        OutputError: the JUnit file cannot be written.
    """
    _require_sense(options)
    if options.sha256 is not None:
        require_sha256(options.checkpoint, options.sha256)
    runs = has_limit_on(options.limits, BY_RUNNING) or options.baseline is not None
    stored = None if runs else open_stored_target(options)
    checked = (
        _count_network(options, progress) if stored is None else _count_stored(stored, progress)
    )
    found = collect_measurements(
        checked.rows, files_of(options.checkpoint), checked.ran, options.energy
    )
    result = judge_gates(options.limits, found, options.checkpoint)
    name = options.checkpoint.name
    warnings = publish_verdicts("check", {name: result.verdicts}, options.junit)
    return CheckResult(
        verdicts=result.verdicts,
        rows=checked.rows,
        totals=checked.totals,
        error=result.error,
        report=result.add_to(checked.make_report(warnings)),
    )


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """What was found of a checkpoint."""

    rows: tuple[LayerRow, ...]
    totals: dict[str, Any]
    ran: RunResults
    make_report: Callable[[tuple[str, ...]], dict[str, Any]]
    """With these warnings."""


def _count_stored(target: StoredTarget, progress: Progress) -> _Checked:
    """The weights of a bare file, without torch."""
    look = look_at_values(target, progress)
    zeros = look.count_zeros(target.weights)
    rows = make_stored_rows(
        target.weights, {key: one.numel() - zeros[key] for key, one in target.weights.items()}
    )
    totals = count_totals(rows, target.checkpoint.tensors, None)

    def make_report(warnings: tuple[str, ...]) -> dict[str, Any]:
        return make_stored_report(
            target,
            look,
            "check",
            warnings=warnings,
            split=None,
            size_bytes=sum(path.stat().st_size for path in target.checkpoint.files),
            evaluation=None,
            workload=None,
            agreement=None,
            totals=totals,
            layers=as_dicts(rows),
        )

    return _Checked(rows=rows, totals=totals, ran=RunResults(), make_report=make_report)


def _count_network(options: CheckOptions, progress: Progress) -> _Checked:
    """The weights that the network has, where it is at hand, and what running it gives."""
    from snnprune.jobs.targets.opening import open_target, read_other

    target = open_target(options)
    second = None if options.baseline is None else read_other(target, options.baseline)
    rows = make_layer_rows(target.find_weights(), network=target.network)
    ran = _GateRunner(options, target, second, progress).run_network()
    totals = count_totals(rows, target.checkpoint.tensors, target.network)

    def make_report(warnings: tuple[str, ...]) -> dict[str, Any]:
        return _make_report(
            options, target, second, ran, warnings, totals=totals, layers=as_dicts(rows)
        )

    return _Checked(rows=rows, totals=totals, ran=ran, make_report=make_report)


def _require_sense(options: CheckOptions) -> None:
    if not options.limits and options.sha256 is None:
        raise UsageError("no gate is given", hint="give one, such as --min-sparsity 0.9")
    for limit in options.limits:
        if options.baseline is None and set(limit.gate.needs) & set(BY_COMPARING):
            raise UsageError(
                "compares with a baseline",
                field=limit.gate.flag,
                hint="give --baseline FILE, the checkpoint before pruning",
            )
    if options.junit is not None:
        require_free(options.junit, force=options.force, inputs=options.list_inputs())


@dataclass(frozen=True)
class _GateRunner:
    """Runs the network as far as the gates need it."""

    options: CheckOptions
    target: Target
    second: Checkpoint | None
    progress: Progress

    def run_network(self) -> RunResults:
        from snnprune.measure.workload import Workload

        limits, network = self.options.limits, self.target.runnable
        if not has_limit_on(limits, BY_RUNNING):
            return RunResults()
        if network is None:
            return RunResults(missing=self.target.missing)
        workload = Workload() if has_limit_on(limits, BY_COUNTING) else None
        compared = self._compare(network) if has_limit_on(limits, BY_COMPARING) else None
        return RunResults(
            evaluation=self._evaluate(network, workload),
            before=compared,
            workload=workload,
            agreement=compared,
        )

    def _evaluate(self, network: Network, workload: Workload | None) -> Evaluation:
        from snnprune.measure.evaluation import evaluate

        target, split, limit = self.target, self.choose_split(), self.options.limit
        batches = target.batches(split, limit).track(self.progress, "evaluating")
        return evaluate(
            network,
            batches,
            workload=workload,
            images=split,
        )

    def choose_split(self) -> str:
        """Which images it is run on."""
        return self.options.split or self.target.choose_split()

    def _compare(self, network: Network) -> Agreement:
        from snnprune.measure.agreement_pass import measure_agreements

        assert self.second is not None
        target, split, limit = self.target, self.choose_split(), self.options.limit
        batches = target.batches(split, limit).track(self.progress, "comparing")
        before, now = self.second.tensors, target.checkpoint.tensors
        return measure_agreements(network, before, [now], batches)[0]


def _make_report(
    options: CheckOptions,
    target: Target,
    second: Checkpoint | None,
    ran: RunResults,
    warnings: tuple[str, ...],
    **counted: Any,
) -> dict[str, Any]:
    from snnprune.measure.agreement import describe_agreement
    from snnprune.measure.workload import describe_workload

    samples = ran.evaluation.samples if ran.evaluation else 0
    report = make_target_report(
        target,
        "check",
        warnings=(
            *(second.notes if second else ()),
            *warnings,
            *doubt_evaluation(describe_evaluation(ran.evaluation)),
        ),
        split=ran.evaluation.images if ran.evaluation else None,
        size_bytes=sum(path.stat().st_size for path in files_of(options.checkpoint)),
        evaluation=describe_evaluation(ran.evaluation),
        workload=ran.workload and describe_workload(ran.workload, samples, options.energy),
        agreement=describe_agreement(ran.agreement),
        **counted,
    )
    inputs = [make_file_entry(second.path, second.sha256)] if second else []
    return {**report, "inputs": [*report["inputs"], *inputs]}
