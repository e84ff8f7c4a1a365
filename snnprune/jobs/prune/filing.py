"""What came of a pruning, and its files: measured, written, read back, gated and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.checkpoint.containers import read_back
from snnprune.checkpoint.header import PARTNER
from snnprune.checkpoint.mask_file import write_integers, write_masks
from snnprune.checkpoint.safetensors import measure_safetensors
from snnprune.chips.check import ChipFit
from snnprune.files.reading import hash_file
from snnprune.files.writing import replace_together, write_json
from snnprune.jobs.check import (
    GateResult,
    RunResults,
    collect_measurements,
    drop_channels,
    judge_gates,
)
from snnprune.jobs.prune.budget_search import BudgetSearch
from snnprune.jobs.prune.budgets import BudgetResult, make_budget, make_keeping
from snnprune.jobs.prune.measuring import BeforeAfter
from snnprune.jobs.prune.methods import list_rounded, list_unfitted
from snnprune.jobs.prune.options import (
    OutputPaths,
    PruneOptions,
)
from snnprune.jobs.prune.outcome import PrunedFile
from snnprune.jobs.prune.pruned_model import (
    PrunedModel,
    list_integers_by_name,
    require_smaller,
    slim_integers,
)
from snnprune.jobs.prune.target_sparsity import Search
from snnprune.jobs.prune.work import PruneJob
from snnprune.jobs.targets.reporting import (
    LayerRow,
    as_dicts,
    count_totals,
    make_layer_rows,
    make_target_report,
    warn_of_unused,
)
from snnprune.jobs.targets.target import warn_of_unused_criterion
from snnprune.masks import Masks
from snnprune.measure.agreement import Agreement, describe_agreement
from snnprune.measure.evaluation import Evaluation
from snnprune.pruning.repair.quantize import Quantized
from snnprune.report import describe_evaluation, doubt_evaluation, list_told, make_file_entry
from snnprune.report.verdicts import make_gate_error
from snnprune.runtime import Progress


class NetworkPruning:
    """A checkpoint that is pruned in memory, with its network as far as that is at hand."""

    def __init__(self, options: PruneOptions, progress: Progress) -> None:
        """Open it, calibrate and score, and look for the sparsity where that is asked for.

        Raises:
            SnnpruneError: whatever is wrong.
        """
        self._work = work = PruneJob(options, progress)
        work.calibrate()
        work.score()
        self.search: Search | None = None
        self.budget: BudgetResult | None = None
        self.goals: Sequence[tuple[float, OutputPaths]] = work.goals
        if options.accuracy_target is not None and not options.budget:
            within = make_keeping(work) if options.kept_by_layer else (None, 1.0)
            self.search, self.goals = work.search_goal(*within)
        self._before = work.measure_before()
        if options.fits_chip or options.budget:
            self.budget, made = self._prune_to_limits()
            self.goals = work.keep_goal(made)

    def _prune_to_limits(self) -> tuple[BudgetResult | None, PrunedModel]:
        """The network that keeps within the limits, on the chip where one is named."""
        work, options = self._work, self._work.options
        chip = work.chip if options.fits_chip else None
        if chip is not None and chip.channels:
            require_smaller(options.out)
            return None, work.prune_to_channels(chip.channels)
        weights = work.target.find_weights()
        budget = make_budget(options.budget, weights)
        if chip is not None:
            budget = chip.add_to_budget(budget, weights)
        if not (budget.caps or budget.rows):
            return None, work.leave_dense()
        return BudgetSearch(work, budget, self._before).run()

    def write(self, sparsity: float, place: OutputPaths) -> PrunedFile:
        """Prune to a sparsity, measure, and write file, masks and report.

        Raises:
            SnnpruneError: whatever is wrong; nothing of it is written then.
        """
        return self.finish(sparsity).write(place)

    def finish(self, sparsity: float) -> FinishedPruning:
        """Prune to a sparsity and measure.

        Raises:
            SnnpruneError: whatever is wrong.
        """
        work = self._work
        made = work.prune_to(sparsity)
        measuring = work.measuring
        return FinishedPruning(
            work=work,
            sparsity=sparsity,
            made=made,
            search=self.search,
            looks=BeforeAfter(before=self._before, after=measuring.measure("evaluating after")),
            test=measuring.evaluate_test(),
            agreement=measuring.measure_agreement(made.tensors),
            evidence=measuring.collect_evidence(made.cut.masks, work.scores, work.calibration),
            budget=self.budget,
            fit=None if work.chip is None else work.chip.fit(work.target, made),
        )

    def make_joint_report(self, files: Sequence[PrunedFile]) -> dict[str, Any]:
        """One report with those of all files in it."""
        target = self._work.target
        known = target.checkpoint.notes
        warnings = dict.fromkeys(
            text for one in files for text in list_told(one.report) if text not in known
        )
        return make_target_report(
            target,
            "prune",
            warnings=tuple(warnings),
            files=[one.report for one in files],
            cost=self._work.cost.report(target.device, self._work.one_shot.estimates),
        )


@dataclass(frozen=True, kw_only=True)
class FinishedPruning:
    """A pruned network and what was measured of it, to be described or written."""

    work: PruneJob
    sparsity: float
    made: PrunedModel
    search: Search | None
    budget: BudgetResult | None
    fit: ChipFit | None
    """How it fits the chip, where one is named."""
    looks: BeforeAfter
    test: Evaluation | None
    agreement: Agreement | None
    evidence: dict[str, Any] | None

    def write(self, place: OutputPaths) -> PrunedFile:
        """Write file, masks and report, and integers where there are some.

        They take their places together, the pruned file last.
        """
        with replace_together(*place.files) as (out, mask_file, report_file, *more):
            written, notes = self._write_tensors(out, mask_file, *more)
            outputs = [
                make_file_entry(path, hash_file(staged))
                for path, staged in ((place.out, out), (place.mask_file, mask_file))
            ]
            outputs += [
                make_file_entry(path, hash_file(staged))
                for path, staged in zip(filter(None, (place.integers_file,)), more, strict=True)
            ]
            size = out.stat().st_size
            pruned = self._describe(place, written, notes=notes, outputs=outputs, size=size)
            self._require_within_budget(pruned)
            write_json(report_file, pruned.report)
        return pruned

    def describe(self) -> PrunedFile:
        """The same of the network that is in memory; nothing is written."""
        work, found = self.work, (self.made.small or self.made).tensors
        place = OutputPaths(out=work.target.checkpoint.path)
        if work.packs:
            size = work.measure_size(self.made)
        else:
            metadata = work.make_metadata(self.made, self.sparsity)
            size = measure_safetensors(work.target.checkpoint.in_file(found), metadata)
        pruned = self._describe(place, found, notes=(), outputs=[], size=size)
        self._require_within_budget(pruned)
        return pruned

    @property
    def masks(self) -> Masks:
        """Of the network that is written, by weight key."""
        return self.made.cut.masks if self.made.small is None else self.made.small.masks

    def _require_within_budget(self, pruned: PrunedFile) -> None:
        """Let no file take its place that is beyond a limit which it was made for.

        Raises:
            GateError: it is.
        """
        options = self.work.options
        asked = {one.gate.name for one in options.budget}
        asked |= {"chip"} if options.fits_chip else set()
        error = make_gate_error([v for v in pruned.verdicts if v.gate in asked], pruned.place.out)
        if error is not None:
            error.hint = "give a little less"
            raise error

    def _describe(
        self,
        place: OutputPaths,
        written: dict[str, Tensor],
        *,
        notes: tuple[str, ...],
        outputs: list[dict[str, str]],
        size: int,
    ) -> PrunedFile:
        """What is told of the tensors that were read back."""
        work, looks = self.work, self.looks
        rows = self._make_rows(written)
        outcome = self._judge_gates(rows, place.out, size)
        told = self.sparsity if work.options.sparsities or self.search else None
        counted = count_totals(rows, self._whole(written), work.target.network)
        report = self._make_report(
            warnings=(*self._list_warnings(notes), *_list_doubts(looks, work.target.noun)),
            sparsity_asked=told,
            search=self.search and self.search.report(),
            budget=self.budget and self.budget.report(),
            chip=self.fit and asdict(self.fit),
            totals_before=self._count_totals_before(),
            totals=counted,
            **looks.about(work.options.energy),
            test=describe_evaluation(self.test),
            agreement=describe_agreement(self.agreement),
            sizes=work.measuring.sizes(written),
            evidence=self.evidence,
            layers=as_dicts(rows),
            outputs=outputs,
        )
        before, after = looks.evaluations
        return PrunedFile(
            sparsity=told,
            place=place,
            rows=rows,
            totals=counted,
            channels=self.made.channels,
            before=before,
            after=after,
            test=self.test,
            chip=self.fit,
            verdicts=outcome.verdicts,
            error=outcome.error,
            report=outcome.add_to(report),
        )

    def _whole(self, written: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the whole network; the file may hold one without removed channels."""
        return written if self.made.small is None else self.made.tensors

    def _make_rows(self, written: dict[str, Tensor]) -> tuple[LayerRow, ...]:
        work, masks, whole = self.work, self.made.cut.masks, self._whole(written)
        return make_layer_rows(
            {key: whole[key] for key in masks},
            kept=masks,
            network=work.target.network,
            calibration=work.calibration,
            scores=work.scores,
        )

    def _count_totals_before(self) -> dict[str, int]:
        target = self.work.target
        rows = make_layer_rows(target.find_weights())
        return count_totals(rows, target.checkpoint.tensors, target.network)

    def _judge_gates(self, rows: tuple[LayerRow, ...], file: Path, size: int) -> GateResult:
        work, looks = self.work, self.looks
        before, after = looks.evaluations
        ran = RunResults(
            evaluation=drop_channels(self.made.channels, after, work.target.network),
            before=before,
            workload=None if looks.after is None else looks.after.workload,
            agreement=self.agreement,
            channels=self.made.count_rows(work.target.network),
            chip=self.fit,
        )
        found = collect_measurements(rows, size, ran, work.options.energy)
        return judge_gates(work.options.limits, found, file)

    def _list_warnings(self, notes: tuple[str, ...]) -> tuple[str, ...]:
        work = self.work
        return (
            *(work.calibration.warnings if work.calibration else ()),
            *warn_of_unused_criterion(work.scores),
            *work.notes,
            *(work.target.doubts if work.options.evaluate else ()),
            *self.made.cut.warnings,
            *self.made.notes,
            *warn_of_unused(work.target.prunable.find_unused()),
            *list_unfitted(work.target.network, self.made.choice.plan.repair, self.made.cut.masks),
            *list_rounded(self.made.quantized),
            *notes,
        )

    def _write_tensors(
        self, out: Path, mask_file: Path, integers_file: Path | None = None
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Write all files but the report; the tensors as they are read back, and notes."""
        work, made = self.work, self.made
        source = work.target.checkpoint
        metadata = work.make_metadata(made, self.sparsity)
        notes = work.write_model(made, out, metadata)
        partner = {PARTNER: hash_file(out)}
        write_masks(mask_file, source.in_file(self.masks), metadata | partner)
        written = read_back(source, out)
        if integers_file is not None:
            integers = source.in_file(self.list_integers(written))
            write_integers(integers_file, integers, metadata | partner)
        return written, notes

    def list_integers(self, written: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Integers and scales of each weight in the shapes of `written`, where it is quantized."""
        target, made = self.work.target, self.made
        if made.quantized is None:
            return {}
        found = list_integers_by_name(target, made.quantized)
        if made.small is not None and made.removed is not None and target.network is not None:
            found = slim_integers(target.network, found, made.removed)
        return {key: held.shape_as(written[key].shape) for key, held in found.items()}

    def _list_compact_shapes(self) -> dict[str, list[int]]:
        """The shapes of what is smaller in the file than in its model."""
        small = self.made.small
        return {} if small is None else {key: [*shape] for key, shape in small.shapes.items()}

    def _make_report(self, **found: Any) -> dict[str, Any]:
        work, choice = self.work, self.made.choice
        plan = choice.plan
        return make_target_report(
            work.target,
            "prune",
            criterion=plan.criterion,
            criterion_because=choice.why,
            allocation=work.allocation,
            repair=plan.repair,
            steps=plan.steps,
            structure=work.structure.name,
            channels=dict(self.made.channels),
            smaller=self._list_compact_shapes(),
            tuning_because=choice.tuning_why,
            tuning=None if self.made.tuned is None else asdict(self.made.tuned),
            quantization=_describe_quantization(self.made.quantized),
            layers_asked=dict(work.options.layers),
            unused=list(work.target.prunable.find_unused()),
            cost=work.cost.report(work.target.device, work.one_shot.estimates),
            **found,
        )


def _list_doubts(looks: BeforeAfter, noun: str) -> list[str]:
    """On what the networks do on the images that they were measured on."""
    dense, pruned = map(describe_evaluation, looks.evaluations)
    known = doubt_evaluation(dense, of="the dense network", noun=noun)
    told = {text.partition(":")[0] for text in known}
    fresh = doubt_evaluation(pruned, of="the pruned network", noun=noun)
    return [*known, *(text for text in fresh if text.partition(":")[0] not in told)]


def _describe_quantization(found: Quantized | None) -> dict[str, Any] | None:
    """For a report."""
    if found is None:
        return None
    layers = {key: asdict(layer) for key, layer in found.layers.items()}
    return {"bits": found.bits, "per": found.per, "layers": layers}
