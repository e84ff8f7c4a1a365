"""`snnprune prune`: from a checkpoint to smaller ones that are drop-ins, with the evidence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from snnprune.calibration import Calibration
from snnprune.checkpoint import read_back, write_like, write_masks
from snnprune.checkpoint.write import SAFETENSORS
from snnprune.criteria import load_criterion
from snnprune.errors import SnnpruneError
from snnprune.evaluation import Evaluation, evaluate
from snnprune.files import write_json
from snnprune.jobs.binding import load
from snnprune.jobs.calibrate import calibrated
from snnprune.jobs.combining import Choice, choose
from snnprune.jobs.cost import Cost
from snnprune.jobs.cutting import LayerCutting, require_layers
from snnprune.jobs.layers import LayerRow, as_dicts, layer_rows, parameter_count, totals
from snnprune.jobs.opening import open_subject
from snnprune.jobs.prune_options import Place, PruneOptions, completed
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
from snnprune.report import about_evaluation, file_entry, report_on
from snnprune.structure import UNSTRUCTURED, parse_structure
from snnprune.structure.channels import ChannelCutting

BY_LAYER = "by layer"  # in place of an allocation, where a recipe names every layer


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What came of one sparsity."""

    sparsity: float | None
    """As asked for, or found; None where each layer has its own."""
    place: Place
    rows: tuple[LayerRow, ...]
    """Counted in the file that was written."""
    totals: dict[str, int]
    channels: Mapping[str, dict[str, int]]
    """See `Made`."""
    before: Evaluation | None
    after: Evaluation | None
    warnings: tuple[str, ...]
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What came of a command."""

    files: tuple[Pruned, ...]
    choice: Choice
    allocation: str
    search: Search | None
    report: dict[str, Any]
    """Of the one file, or of all of them."""


def prune_checkpoint(options: PruneOptions, progress: Progress) -> Pruning:
    """Prune a checkpoint and write each pruned file with its masks and its report.

    Raises:
        SnnpruneError: whatever is wrong; no file is half-written then, and the message names those
            that were written before.
    """
    work = _Work(completed(options), progress)
    search, found = work.searched() if options.target is not None else (None, None)
    files: list[Pruned] = []
    for sparsity, place in found or work.goals:
        with _naming(files):
            files.append(work.file(sparsity, place, search))
    return Pruning(
        files=tuple(files),
        choice=work.choice,
        allocation=work.allocation,
        search=search,
        report=files[0].report if len(files) == 1 else work.report_on_all(files),
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
    def before(self) -> Evaluation | None:
        """Of the dense network."""
        self.one_shot.restore()
        return self._evaluated("evaluating before")

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
        after = self._evaluated("evaluating after")
        written, notes = self._write(sparsity, place, made)
        whole = written if made.small is None else made.tensors
        rows = layer_rows(
            {key: whole[key] for key in made.cut.masks},
            kept=made.cut.masks,
            network=network,
            calibration=self.calibration,
            scores=self.scores,
        )
        pruned = Pruned(
            sparsity=sparsity if self.options.sparsities or search else None,
            place=place,
            rows=rows,
            totals=totals(rows, parameter_count(whole, network)),
            channels=made.channels,
            before=before,
            after=after,
            warnings=(
                *(self.calibration.warnings if self.calibration else ()),
                *not_used(self.scores),
                *self.notes,
                *made.cut.warnings,
                *warnings_on(self.subject.prunable.unused),
                *notes,
            ),
        )
        found = replace(pruned, report=self._report(pruned, search))
        write_json(place.report_file, found.report)
        return found

    def report_on_all(self, files: list[Pruned]) -> dict[str, Any]:
        """One report with those of all files in it."""
        warnings = dict.fromkeys(warning for one in files for warning in one.warnings)
        return report_on(
            self.subject,
            "prune",
            warnings=tuple(warnings),
            files=[one.report for one in files],
            cost=self.cost.report(self.subject.device),
        )

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

    def _evaluated(self, label: str) -> Evaluation | None:
        """Accuracy on the test images, where there are any."""
        subject, limit = self.subject, self.options.eval_samples
        network, data = subject.runnable, subject.data
        if not self.options.evaluate or network is None or data is None or data.test is None:
            return None
        batches = self.progress.track(
            subject.batches("test", limit), label=label, total=subject.steps("test", limit)
        )
        with self.cost.stage("evaluation"):
            return evaluate(network, batches, run=subject.run, readout=subject.readout())

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

    def _report(self, pruned: Pruned, search: Search | None) -> dict[str, Any]:
        plan = self.choice.plan
        return report_on(
            self.subject,
            "prune",
            warnings=pruned.warnings,
            criterion=plan.criterion,
            criterion_because=self.choice.why,
            allocation=self.allocation,
            repair=plan.repair,
            steps=plan.steps,
            structure=self.structure.name,
            channels=dict(pruned.channels),
            sparsity_asked=pruned.sparsity,
            layers_asked=dict(self.options.layers),
            search=search and search.report(),
            totals=pruned.totals,
            before=about_evaluation(pruned.before),
            after=about_evaluation(pruned.after),
            layers=as_dicts(pruned.rows),
            unused=list(self.subject.prunable.unused),
            cost=self.cost.report(self.subject.device),
            outputs=[file_entry(path) for path in (pruned.place.out, pruned.place.mask_file)],
        )
