"""One file of a pruning: written, read back, measured, gated and reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from snnprune.checkpoint.mask_file import PARTNER, write_masks
from snnprune.checkpoint.write import read_back, write_like
from snnprune.files.together import together
from snnprune.files.writing import sha256_of, write_json
from snnprune.jobs.gating import Gated, Ran, gated, measured, without
from snnprune.jobs.prune.combining import not_fitted
from snnprune.jobs.prune.measuring import Look, Looks
from snnprune.jobs.prune.options import Place
from snnprune.jobs.prune.pruned import Pruned
from snnprune.jobs.prune.target_sparsity import Made, Search
from snnprune.jobs.prune.work import Work
from snnprune.jobs.score import not_used
from snnprune.jobs.targets.layers import LayerRow, as_dicts, layer_rows, totals
from snnprune.jobs.targets.prunable import warnings_on
from snnprune.jobs.targets.reporting import report_on
from snnprune.measure.agreement import Agreement, about_agreement
from snnprune.measure.evaluation import Evaluation
from snnprune.pruning.structure.structure import metadata_of
from snnprune.report.frame import about_evaluation, doubts_on, file_entry
from snnprune.report.provenance import described


def _doubts(looks: Looks) -> list[str]:
    """On what the networks do on the images that they were measured on."""
    dense, pruned = map(about_evaluation, looks.evaluations)
    known = doubts_on(dense, of="the dense network")
    told = {text.partition(":")[0] for text in known}
    fresh = doubts_on(pruned, of="the pruned network")
    return [*known, *(text for text in fresh if text.partition(":")[0] not in told)]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured before anything is written."""

    looks: Looks
    test: Evaluation | None
    agreement: Agreement | None
    evidence: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Filing:
    """A pruned network on its way into a file."""

    work: Work
    sparsity: float
    place: Place
    made: Made
    search: Search | None
    before: Look | None
    """Of the dense network."""

    def filed(self) -> Pruned:
        """Measure the network, which the module holds, and write file, masks and report.

        All three take their places together, the pruned file last.
        """
        work, made, measuring = self.work, self.made, self.work.measuring
        looks = Looks(before=self.before, after=measuring.look("evaluating after"))
        found = Found(
            looks=looks,
            test=measuring.tested(),
            agreement=measuring.compared(made.tensors),
            evidence=measuring.evidence(made.cut.masks, work.scores, work.calibration),
        )
        with together(*self.place.files) as (out, mask_file, report_file):
            pruned = self._pruned(found, out, mask_file)
            write_json(report_file, pruned.report)
        return pruned

    def _pruned(self, found: Found, out: Path, mask_file: Path) -> Pruned:
        """Write the file and its masks, for the time being to `out` and `mask_file`."""
        work, looks = self.work, found.looks
        written, notes = self._written(out, mask_file)
        rows = self._rows(written)
        outcome = self._gated(rows, looks, found.agreement, out)
        told = self.sparsity if work.options.sparsities or self.search else None
        counted = totals(rows, self._whole(written), work.subject.network)
        report = self._report(
            warnings=(*self._warnings(notes), *_doubts(looks)),
            sparsity_asked=told,
            search=self.search and self.search.report(),
            totals_before=self._totals_before(),
            totals=counted,
            **looks.about(work.options.energy),
            test=about_evaluation(found.test),
            agreement=about_agreement(found.agreement),
            sizes=work.measuring.sizes(written),
            evidence=found.evidence,
            layers=as_dicts(rows),
            outputs=[
                file_entry(self.place.out, sha256_of(out)),
                file_entry(self.place.mask_file, sha256_of(mask_file)),
            ],
        )
        before, after = looks.evaluations
        return Pruned(
            sparsity=told,
            place=self.place,
            rows=rows,
            totals=counted,
            channels=self.made.channels,
            before=before,
            after=after,
            test=found.test,
            verdicts=outcome.verdicts,
            error=outcome.error,
            report=outcome.entered(report),
        )

    def _whole(self, written: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the whole network; the file may hold one without removed channels."""
        return written if self.made.small is None else self.made.tensors

    def _rows(self, written: dict[str, Tensor]) -> tuple[LayerRow, ...]:
        work, masks, whole = self.work, self.made.cut.masks, self._whole(written)
        return layer_rows(
            {key: whole[key] for key in masks},
            kept=masks,
            network=work.subject.network,
            calibration=work.calibration,
            scores=work.scores,
        )

    def _totals_before(self) -> dict[str, int]:
        subject = self.work.subject
        rows = layer_rows(subject.find_weights())
        return totals(rows, subject.checkpoint.tensors, subject.network)

    def _gated(
        self,
        rows: tuple[LayerRow, ...],
        looks: Looks,
        agreement: Agreement | None,
        out: Path,
    ) -> Gated:
        work, (before, after) = self.work, looks.evaluations
        ran = Ran(
            evaluation=without(self.made.channels, after, work.subject.network),
            before=before,
            workload=None if looks.after is None else looks.after.workload,
            agreement=agreement,
        )
        found = measured(rows, [out], ran, work.options.energy)
        return gated(work.options.limits, found, self.place.out)

    def _warnings(self, notes: tuple[str, ...]) -> tuple[str, ...]:
        work = self.work
        return (
            *(work.calibration.warnings if work.calibration else ()),
            *not_used(work.scores),
            *work.notes,
            *(work.subject.doubts if work.options.evaluate else ()),
            *self.made.cut.warnings,
            *self.made.notes,
            *warnings_on(work.subject.prunable.find_unused()),
            *not_fitted(work.subject.network, work.choice.plan.repair, self.made.cut.masks),
            *notes,
        )

    def _written(self, out: Path, mask_file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Write the pruned file and its masks; the tensors as they are read back, and notes."""
        work, made = self.work, self.made
        source, plan = work.subject.checkpoint, work.choice.plan
        metadata = source.metadata | described(
            "prune",
            model=work.subject.spec,
            data=work.subject.data_spec,
            criterion=plan.criterion,
            allocation=work.allocation,
            repair=plan.repair,
            steps=plan.steps,
            sparsity=self.sparsity,
            source_sha256=source.sha256,
        )
        metadata |= metadata_of(made.small.shapes) if made.small else {}
        found = made.small or made
        masks = made.cut.masks if made.small is None else made.small.masks
        notes = write_like(source, out, found.tensors, metadata)
        partner = {PARTNER: sha256_of(out)}
        write_masks(mask_file, source.in_file(masks), metadata | partner)
        return read_back(source, out), notes

    def _smaller(self) -> dict[str, list[int]]:
        """The shapes of what is smaller in the file than in its model."""
        small = self.made.small
        return {} if small is None else {key: [*shape] for key, shape in small.shapes.items()}

    def _report(self, **found: Any) -> dict[str, Any]:
        work, plan = self.work, self.work.choice.plan
        return report_on(
            work.subject,
            "prune",
            criterion=plan.criterion,
            criterion_because=work.choice.why,
            allocation=work.allocation,
            repair=plan.repair,
            steps=plan.steps,
            structure=work.structure.name,
            channels=dict(self.made.channels),
            smaller=self._smaller(),
            layers_asked=dict(work.options.layers),
            unused=list(work.subject.prunable.find_unused()),
            cost=work.cost.report(work.subject.device),
            **found,
        )
