"""`snnprune check`: whether a checkpoint keeps its limits, which are the gates of `prune` too.

Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnprune.checkpoint.containers import files_of, require_sha256
from snnprune.errors import SnnpruneError, UsageError
from snnprune.files.writing import require_free
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
from snnprune.measure import Energy
from snnprune.report import describe_evaluation, doubt_evaluation, make_file_entry
from snnprune.report.verdicts import (
    Limit,
    Measurements,
    Proportion,
    RowCounts,
    Verdict,
    append_step_summary,
    judge,
    make_gate_error,
    write_junit,
)
from snnprune.runtime import Progress

if TYPE_CHECKING:
    from snnprune.checkpoint.checkpoint import Checkpoint
    from snnprune.chips.check import ChipFit
    from snnprune.graph.network import Network
    from snnprune.jobs.targets.target import Target
    from snnprune.masks import Masks
    from snnprune.measure.agreement import Agreement
    from snnprune.measure.evaluation import Evaluation
    from snnprune.measure.workload import Workload


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What came of it."""

    verdicts: tuple[Verdict, ...]
    rows: tuple[LayerRow, ...]
    totals: dict[str, Any]
    chip: ChipFit | None
    """How it fits the chip, where one is named."""
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
    seen = has_limit_on(options.limits, (*BY_RUNNING, *BY_ROW, *BY_TRACING))
    runs = seen or options.baseline is not None
    stored = None if runs else open_stored_target(options)
    checked = (
        _count_network(options, progress) if stored is None else _count_stored(stored, progress)
    )
    found = collect_measurements(
        checked.rows, _measure_size(options.checkpoint), checked.ran, options.energy
    )
    result = judge_gates(options.limits, found, options.checkpoint)
    name = options.checkpoint.name
    warnings = publish_verdicts("check", {name: result.verdicts}, options.junit)
    return CheckResult(
        verdicts=result.verdicts,
        rows=checked.rows,
        totals=checked.totals,
        chip=checked.ran.chip,
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
            chip=None,
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
    alive = {key: weight != 0 for key, weight in target.find_weights().items()}
    ran = replace(
        _GateRunner(options, target, second, progress).run_network(),
        channels=count_rows(alive, target.network),
    )
    totals = count_totals(rows, target.checkpoint.tensors, target.network)

    def make_report(warnings: tuple[str, ...]) -> dict[str, Any]:
        return _make_report(
            options, target, second, ran, warnings, totals=totals, layers=as_dicts(rows)
        )

    return _Checked(rows=rows, totals=totals, ran=ran, make_report=make_report)


def _measure_size(checkpoint: Path) -> int:
    """Bytes of all files that it is."""
    return sum(path.stat().st_size for path in files_of(checkpoint))


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
        chip = find_chip_limit(limits)
        fit = None if chip is None else fit_target(self.target, chip)
        traced = RunResults(chip=fit, no_chip=self.target.missing)
        if not has_limit_on(limits, BY_RUNNING):
            return traced
        if network is None:
            return replace(traced, missing=self.target.missing)
        workload = Workload() if has_limit_on(limits, BY_COUNTING) else None
        compared = self._compare(network) if has_limit_on(limits, BY_COMPARING) else None
        return replace(
            traced,
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
            *doubt_evaluation(describe_evaluation(ran.evaluation), noun=target.noun),
        ),
        split=ran.evaluation.images if ran.evaluation else None,
        size_bytes=_measure_size(options.checkpoint),
        evaluation=describe_evaluation(ran.evaluation),
        workload=ran.workload and describe_workload(ran.workload, samples, options.energy),
        agreement=describe_agreement(ran.agreement),
        chip=ran.chip and asdict(ran.chip),
        **counted,
    )
    inputs = [make_file_entry(second.path, second.sha256)] if second else []
    return {**report, "inputs": [*report["inputs"], *inputs]}


NO_LABELS = "the samples have no labels"
BY_RUNNING = (
    *("right", "right_before", "operations", "layer_operations", "energy", "silent", "same"),
)
"""What takes network and data."""
BY_ROW = ("rows",)
"""What takes all values at once."""
BY_COMPARING = ("right_before", "same")
BY_COUNTING = ("operations", "layer_operations", "energy")
BY_TRACING = ("chip",)
"""What takes the network and one batch, which may be blank."""


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """What running a network gave; None where that was not asked for."""

    evaluation: Evaluation | None = None
    before: Evaluation | Agreement | None = None
    """Of the baseline, or of both together."""
    workload: Workload | None = None
    agreement: Agreement | None = None
    channels: Mapping[str, RowCounts] | None = None
    """Weights of output channels, which take no run."""
    missing: str | None = None
    """Why it was not run."""
    chip: ChipFit | None = None
    no_chip: str | None = None
    """Why it was not held against a chip."""


def has_limit_on(limits: Iterable[Limit], fields: Sequence[str]) -> bool:
    """Whether a limit is about one of `fields` of `Measurements`."""
    return bool({name for limit in limits for name in limit.gate.needs} & set(fields))


def collect_measurements(
    rows: Iterable[LayerRow], size: int, ran: RunResults, energy: Energy
) -> Measurements:
    """Everything that is known, as counts; `size` is that of all files in bytes."""
    evaluation, work = ran.evaluation, ran.workload
    labels = {name: NO_LABELS for name in ("right", "right_before") if evaluation}
    missing = dict.fromkeys(BY_RUNNING, ran.missing) if ran.missing else labels
    missing = missing | ({} if ran.no_chip is None else dict.fromkeys(BY_TRACING, ran.no_chip))
    return Measurements(
        layers={
            row.weight: Proportion(part=row.weights - row.kept, whole=row.weights)
            for row in rows
            if row.kept is not None
        },
        size=size,
        right=_count_right(evaluation),
        right_before=_count_right_before(ran.before),
        operations=None if work is None else work.sum_layers().macs + work.sum_layers().acs,
        layer_operations=None
        if work is None
        else {key: one.macs + one.acs for key, one in work.layers.items()},
        energy=None if work is None else _compute_energy(work, energy),
        rows=ran.channels,
        silent=None if evaluation is None else _count_silent(evaluation),
        same=_count_same(ran.agreement),
        samples=evaluation.samples if evaluation else 0,
        chip=ran.chip,
        missing={name: why for name, why in missing.items() if why},
    )


def find_chip_limit(limits: Iterable[Limit]) -> Limit | None:
    """The chip that is a gate, where one is."""
    return next((limit for limit in limits if has_limit_on([limit], BY_TRACING)), None)


def fit_target(target: Target, chip: Limit) -> ChipFit | None:
    """How a target fits a chip, on a first batch of its data or blank pictures.

    None where its network cannot be had.
    """
    from snnprune.chips.check import check_design
    from snnprune.chips.tracing import measure_needs
    from snnprune.jobs.targets.opening import read_example

    if target.network is None or target.spec is None:
        return None
    example = read_example(target.spec, target.data, target.device)
    if example is None:
        return None
    return check_design(measure_needs(target.network, example.x), chip.value, chip.text)


def count_rows(masks: Masks, network: Network | None) -> dict[str, RowCounts]:
    """How many weights each layer's output channels keep, by weight key."""
    found = {}
    for key, mask in masks.items():
        layer = None if network is None else network.layers.get(key)
        rows = (mask if layer is None else layer.weight_of(mask)).flatten(1)
        counts = rows.sum(1)
        found[key] = RowCounts(fewest=int(counts.min()), most=int(counts.max()), size=rows.shape[1])
    return found


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
