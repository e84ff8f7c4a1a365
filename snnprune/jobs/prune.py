"""`snnprune prune`: from a checkpoint to smaller ones that are drop-ins, with the evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from torch import Tensor

from snnprune.agreement import Agreement, about_agreement
from snnprune.calibration import Calibration
from snnprune.checkpoint import read_back, write_like, write_masks
from snnprune.checkpoint.write import SAFETENSORS
from snnprune.criteria import load_criterion
from snnprune.errors import InputError, SnnpruneError, UsageError
from snnprune.files import write_json
from snnprune.jobs.binding import load
from snnprune.jobs.calibrate import calibrated
from snnprune.jobs.combining import choose
from snnprune.jobs.cost import Cost
from snnprune.jobs.cutting import LayerCutting, require_layers
from snnprune.jobs.gating import (
    BY_COUNTING,
    BY_RUNNING,
    Gated,
    Ran,
    gated,
    measured,
    need,
    told_outside,
    without,
)
from snnprune.jobs.layers import LayerRow, as_dicts, layer_rows, parameter_count, totals
from snnprune.jobs.measuring import Look, Looks, Measuring, Wanted
from snnprune.jobs.opening import open_subject
from snnprune.jobs.prune_options import Place, PruneOptions, completed
from snnprune.jobs.pruned import Pruned, Pruning
from snnprune.jobs.repairing import pruned_tensors
from snnprune.jobs.score import evidence, not_used, one_shot
from snnprune.jobs.structuring import cutting_of, smaller
from snnprune.jobs.targeting import Made, Search, look_for
from snnprune.jobs.unused import warnings_on
from snnprune.jobs.validation import Validation, accuracy_on, validation_of
from snnprune.one_shot import OneShot
from snnprune.progress import Progress
from snnprune.provenance import described
from snnprune.pruning import default_allocation
from snnprune.report import file_entry, report_on
from snnprune.structure import UNSTRUCTURED, parse_structure
from snnprune.structure.channels import ChannelCutting

BY_LAYER = "by layer"  # in place of an allocation, where a recipe names every layer


def prune_checkpoint(options: PruneOptions, progress: Progress) -> Pruning:
    """Prune a checkpoint and write each pruned file with its masks and its report.

    Raises:
        SnnpruneError: whatever is wrong; no file is half-written then, and the message names those
            that were written before.
    """
    options = completed(options)
    work = _Work(options, progress)
    search, found = work.searched() if options.target is not None else (None, None)
    files: list[Pruned] = []
    for sparsity, place in found or work.goals:
        with _naming(files):
            files.append(work.file(sparsity, place, search))
    verdicts = {one.place.out.name: one.verdicts for one in files}
    warnings = told_outside("prune", verdicts, options.junit)
    report = files[0].report if len(files) == 1 else work.report_on_all(files)
    report = {**report, "warnings": [*report["warnings"], *warnings]}
    return Pruning(
        files=tuple(files),
        choice=work.choice,
        allocation=work.allocation,
        search=search,
        report=report,
    )


@contextlib.contextmanager
def _naming(files: list[Pruned]) -> Iterator[None]:
    """An error in the block tells which files are there."""
    try:
        yield
    except SnnpruneError as error:
        if files:
            names = ", ".join(one.place.out.name for one in files)
            error.message += f" (written before: {names})"
        raise


class _Work:
    """A checkpoint, opened, and all that its files share."""

    def __init__(self, options: PruneOptions, progress: Progress) -> None:
        self.options, self.progress, self.cost = options, progress, Cost()
        self.structure = parse_structure(options.structure or UNSTRUCTURED)
        self.subject = open_subject(options.subject)
        self.subject.prunable.require_one_by_one()
        self.measuring = Measuring(
            self.subject, _wanted(options), options.eval_samples, progress, self.cost
        )
        _require_judgeable(options, self.measuring)
        self.choice = choose(self.subject, options)
        require_layers(options.layers, self.subject.weights, options.recipe)
        with self.cost.stage("calibration"):
            self.calibration = self._calibration()
        self.one_shot: OneShot = one_shot(self.subject, self.calibration, progress)
        with self.cost.stage("scoring"):
            self.scores = self.one_shot.scores(self.choice.plan)
        shared_out = self.choice.plan.allocation or default_allocation(self.scores)
        named_all = options.layers.keys() >= self.subject.weights.keys()
        self.allocation = BY_LAYER if named_all else shared_out
        self.made: dict[float, Made] = {}
        """Networks that a search has made already, by sparsity."""
        self.notes: list[str] = []

    @property
    def goals(self) -> list[tuple[float, Place]]:
        """Each sparsity and where its file goes; 0 where only named layers are pruned."""
        sparsities = self.options.sparsities or (0.0,)
        return list(zip(sparsities, self.options.places, strict=True))

    @cached_property
    def before(self) -> Look | None:
        """Of the dense network."""
        self.one_shot.restore()
        return self.measuring.look("evaluating before")

    def searched(self) -> tuple[Search, list[tuple[float, Place]]]:
        """The search for the target, and the goal that it found."""
        target, limit = self.options.target, self.options.eval_samples
        assert target is not None
        validation = validation_of(self.subject, self.calibration, limit)
        self.one_shot.restore()
        search, sparsity, made = look_for(
            target,
            make=self._make,
            accuracy=lambda: self._accuracy_on(validation),
            split=validation.split,
        )
        self.made[sparsity] = made
        self.notes = validation.warnings
        return search, [(sparsity, self.options.places[0])]

    def file(self, sparsity: float, place: Place, search: Search | None) -> Pruned:
        """Prune, measure and write one file."""
        before = self.before
        made = self.made.pop(sparsity, None) or self._make(sparsity)
        network = self.subject.network
        if network is not None:
            load(network.module, made.tensors)
        looks = Looks(before=before, after=self.measuring.look("evaluating after"))
        agreement = self.measuring.compared(made.tensors)
        evidence = self.measuring.evidence(made.cut.masks, self.scores, self.calibration)
        written, notes = self._write(sparsity, place, made)
        whole = written if made.small is None else made.tensors
        rows = layer_rows(
            {key: whole[key] for key in made.cut.masks},
            kept=made.cut.masks,
            network=network,
            calibration=self.calibration,
            scores=self.scores,
        )
        counted = totals(rows, parameter_count(whole, network))
        outcome = self._gated(rows, place, made, looks, agreement)
        told = sparsity if self.options.sparsities or search else None
        report = outcome.entered(
            self._report(
                made,
                place,
                warnings=self._warnings(made, notes),
                sparsity_asked=told,
                search=search and search.report(),
                totals_before=self._totals_before(),
                totals=counted,
                **looks.about(self.options.energy),
                agreement=about_agreement(agreement),
                sizes=self.measuring.sizes(written),
                evidence=evidence,
                layers=as_dicts(rows),
            )
        )
        write_json(place.report_file, report)
        return Pruned(
            sparsity=told,
            place=place,
            rows=rows,
            totals=counted,
            channels=made.channels,
            before=looks.evaluations[0],
            after=looks.evaluations[1],
            verdicts=outcome.verdicts,
            error=outcome.error,
            report=report,
        )

    def report_on_all(self, files: list[Pruned]) -> dict[str, Any]:
        """One report with those of all files in it."""
        known = self.subject.checkpoint.notes
        warnings = dict.fromkeys(
            text for one in files for text in one.report["warnings"] if text not in known
        )
        report = report_on(
            self.subject,
            "prune",
            warnings=tuple(warnings),
            files=[one.report for one in files],
            cost=self.cost.report(self.subject.device),
        )
        errors = [one.error.as_dict() for one in files if one.error is not None]
        return {**report, "ok": False, "error": errors[0]} if errors else report

    def _calibration(self) -> Calibration | None:
        """Statistics, also for a criterion that needs none where the report can have them."""
        file, subject = self.options.calibration, self.subject
        criterion = load_criterion(self.choice.plan.criterion)
        if file is None and subject.runnable is not None:
            return calibrated(subject, self.progress)
        return evidence(subject, criterion, file, self.progress)

    def _make(self, sparsity: float) -> Made:
        """Prune the dense network and repair it."""
        layers, plan, subject = self.options.layers, self.choice.plan, self.subject
        shaped = cutting_of(self.structure, subject, plan)
        cutting = LayerCutting(layers, plan, sparsity) if layers else shaped
        with self.cost.stage("pruning and repair"):
            cut = self.one_shot.prune(plan, sparsity, cutting, structured=shaped is not None)
            tensors = pruned_tensors(subject, cut.masks, self.one_shot.tensors())
            fits = self.options.out.suffix.lower() in SAFETENSORS
            small = smaller(subject, tensors, cut.masks, shaped) if fits else None
        channels = shaped.removed.counts() if isinstance(shaped, ChannelCutting) else {}
        return Made(cut=cut, tensors=tensors, small=small, channels=channels)

    def _accuracy_on(self, validation: Validation) -> tuple[float, int]:
        with self.cost.stage("search"):
            return accuracy_on(self.subject, validation, self.progress)

    def _totals_before(self) -> dict[str, int]:
        rows = layer_rows(self.subject.weights)
        tensors = self.subject.checkpoint.tensors
        return totals(rows, parameter_count(tensors, self.subject.network))

    def _gated(
        self,
        rows: tuple[LayerRow, ...],
        place: Place,
        made: Made,
        looks: Looks,
        agreement: Agreement | None,
    ) -> Gated:
        before, after = looks.evaluations
        ran = Ran(
            evaluation=without(made.channels, after, self.subject.network),
            before=before,
            workload=None if looks.after is None else looks.after.workload,
            agreement=agreement,
        )
        found = measured(rows, [place.out], ran, self.options.energy)
        return gated(self.options.limits, found, place.out)

    def _warnings(self, made: Made, notes: tuple[str, ...]) -> tuple[str, ...]:
        return (
            *(self.calibration.warnings if self.calibration else ()),
            *not_used(self.scores),
            *self.notes,
            *made.cut.warnings,
            *warnings_on(self.subject.prunable.unused),
            *notes,
        )

    def _write(
        self, sparsity: float, place: Place, made: Made
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Write the pruned file and its masks; the tensors as they are read back, and notes."""
        source, plan = self.subject.checkpoint, self.choice.plan
        metadata = source.metadata | described(
            "prune",
            model=self.subject.spec,
            data=self.subject.data_spec,
            criterion=plan.criterion,
            allocation=self.allocation,
            repair=plan.repair,
            steps=plan.steps,
            sparsity=sparsity,
            source_sha256=source.sha256,
            **({"structure": self.structure.name} if made.small else {}),
        )
        for stale in (place.mask_file, place.report_file):  # of a file that is about to go
            stale.unlink(missing_ok=True)
        found = made.small or made
        masks = made.cut.masks if made.small is None else made.small.masks
        notes = write_like(source, place.out, found.tensors, metadata)
        write_masks(place.mask_file, source.in_file(masks), metadata)
        return read_back(source, place.out), notes

    def _report(self, made: Made, place: Place, **found: Any) -> dict[str, Any]:
        plan = self.choice.plan
        return report_on(
            self.subject,
            "prune",
            criterion=plan.criterion,
            criterion_because=self.choice.why,
            allocation=self.allocation,
            repair=plan.repair,
            steps=plan.steps,
            structure=self.structure.name,
            channels=dict(made.channels),
            layers_asked=dict(self.options.layers),
            unused=list(self.subject.prunable.unused),
            cost=self.cost.report(self.subject.device),
            outputs=[file_entry(path) for path in (place.out, place.mask_file)],
            **found,
        )


def _wanted(options: PruneOptions) -> Wanted:
    """What gates and report ask for."""
    reported = options.report_folder is not None
    return Wanted(
        evaluation=options.evaluate,
        workload=reported or need(options.limits, BY_COUNTING),
        agreement=options.evaluate and (reported or need(options.limits, ("same",))),
        evidence=reported,
    )


def _require_judgeable(options: PruneOptions, measuring: Measuring) -> None:
    """Refuse, before any work is done, gates that nothing could be held against.

    Raises:
        UsageError: a gate is about what `--no-eval` leaves out.
        InputError: there are no network or no test images.
    """
    for limit in options.limits:
        if not need([limit], BY_RUNNING):
            continue
        if not options.evaluate:
            raise UsageError("needs what --no-eval leaves out", field=limit.gate.flag)
        if measuring.missing:
            raise InputError(
                f"cannot be judged: {measuring.missing}",
                file=options.subject.checkpoint,
                field=limit.gate.flag,
                hint="give --model and --data",
            )
