"""Pruning by magnitude from file to file, in constant memory; importing this imports no torch.

The files, counts and reports are those that pruning in memory makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from snnprune.checkpoint.header import NAMES, PARTNER, SHAPES, Slot, plan_header
from snnprune.checkpoint.stored import (
    PieceReader,
    compute_magnitude_bits,
    count_zeros,
    cut_into_pieces,
)
from snnprune.files.reading import GrowingHash, changed_error, hash_file
from snnprune.files.writing import as_output_error, replace_together, write_json
from snnprune.jobs.check import (
    BY_ROW,
    BY_RUNNING,
    BY_TRACING,
    RunResults,
    collect_measurements,
    has_limit_on,
    judge_gates,
)
from snnprune.jobs.prune.options import (
    FAST,
    OutputPaths,
    PruneOptions,
)
from snnprune.jobs.prune.outcome import PrunedFile
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.targets.reporting import (
    LayerRow,
    StageTimer,
    as_dicts,
    count_totals,
)
from snnprune.jobs.targets.stored import (
    StoredTarget,
    look_at_values,
    make_stored_report,
    make_stored_rows,
    open_stored_target,
    takes_long,
)
from snnprune.pruning.allocation import warn_of_zeros
from snnprune.pruning.repair import NONE
from snnprune.pruning.stored import RULES, Cut, MaskMaker, find_cuts
from snnprune.pruning.structure import UNSTRUCTURED
from snnprune.report import list_told, make_file_entry
from snnprune.runtime import SILENT, Progress

MAGNITUDE = "magnitude"
NO_HASH = "0" * 64  # in its place until the file that it is of is written
SAFETENSORS = ".safetensors"


def open_for_stored_pruning(options: PruneOptions) -> StoredTarget | None:
    """The target, where all that is asked for can be done in its file; else None.

    Raises:
        InputError: see `open_stored_target`.
    """
    by_size = options.criterion in (None, MAGNITUDE) and _choose_rule(options) in RULES
    as_it_is = options.repair in (None, NONE) and options.structure in (None, UNSTRUCTURED)
    tuned = bool(options.list_given()) or options.effort not in (None, FAST)
    more = (options.bits, options.accuracy_target, options.calibration, options.budget or None)
    if not by_size or not as_it_is or tuned or any(one is not None for one in more):
        return None
    if (
        options.layers
        or options.steps not in (None, 1)
        or has_limit_on(options.limits, (*BY_RUNNING, *BY_ROW, *BY_TRACING))
    ):
        return None
    if options.out.suffix.lower() != SAFETENSORS or options.report is not None:
        return None  # its pages show scores and what the bytes compress to
    return open_stored_target(options)


def _choose_rule(options: PruneOptions) -> str | None:
    """The allocation that was asked for, or that goes with the criterion that was."""
    return options.allocation or ("global" if options.criterion is not None else None)


@dataclass(frozen=True, kw_only=True)
class WrittenFiles:
    """What was written, and how many of each weight are kept in it."""

    sha256: str
    mask_sha256: str
    kept: Mapping[str, int]


class StoredPruning:
    """A checkpoint that is pruned in its file."""

    search = None
    budget = None

    def __init__(self, target: StoredTarget, options: PruneOptions, progress: Progress) -> None:
        """Read the whole file once.

        Raises:
            InputError: its values are none that a network can have, or it changed meanwhile.
        """
        self.target, self.options, self.progress = target, options, progress
        self.cost = StageTimer()
        self.rule = _choose_rule(options) or ""
        with self.cost.stage("reading"):
            self.look = look_at_values(target, progress)
        self.zeros = self.look.count_zeros(target.weights)

    @property
    def goals(self) -> list[tuple[float, OutputPaths]]:
        """Each sparsity and where its file goes."""
        return list(zip(self.options.sparsities, self.options.places, strict=True))

    def write(self, sparsity: float, place: OutputPaths) -> PrunedFile:
        """Rank the weights, and write file, masks and report.

        Raises:
            InputError: the file changed meanwhile.
            OutputError: a file cannot be written.
        """
        with replace_together(*place.files) as (out, mask_file, report_file, *_):
            with self.target.checkpoint.steady.hold():
                with self.cost.stage("ranking"):
                    cuts = find_cuts(self.target.weights, self.zeros, sparsity, self.rule)
                with self.cost.stage("writing"):
                    written = self._write_tensors(out, mask_file, cuts, sparsity)
                pruned = self._make_result(sparsity, place, out, written)
            write_json(report_file, pruned.report)
        return pruned

    def _write_tensors(
        self, out: Path, mask_file: Path, cuts: Mapping[str, Cut], sparsity: float
    ) -> WrittenFiles:
        metadata = self.target.checkpoint.metadata | make_metadata(
            "prune",
            criterion=MAGNITUDE,
            allocation=self.rule,
            repair=NONE,
            steps=1,
            sparsity=sparsity,
            source_sha256=self.look.hash.result(),
        )
        writer = StoredWriter(self.target, cuts, self.progress)
        sha256 = writer.write(out, mask_file, metadata)
        writer.sign_masks(mask_file, metadata, sha256)
        return WrittenFiles(sha256=sha256, mask_sha256=hash_file(mask_file), kept=writer.kept)

    def _make_result(
        self, sparsity: float, place: OutputPaths, out: Path, written: WrittenFiles
    ) -> PrunedFile:
        weights = self.target.weights
        rows = make_stored_rows(weights, written.kept, criterion=MAGNITUDE)
        found = collect_measurements(rows, out.stat().st_size, RunResults(), self.options.energy)
        outcome = judge_gates(self.options.limits, found, place.out)
        totals = count_totals(rows, self.target.checkpoint.tensors, None)
        outputs = [
            make_file_entry(place.out, written.sha256),
            make_file_entry(place.mask_file, written.mask_sha256),
        ]
        report = self._make_report(rows, totals, sparsity, outputs)
        return PrunedFile(
            sparsity=sparsity,
            place=place,
            rows=rows,
            totals=totals,
            channels={},
            before=None,
            after=None,
            test=None,
            verdicts=outcome.verdicts,
            error=outcome.error,
            report=outcome.add_to(report),
        )

    def _make_report(
        self,
        rows: tuple[LayerRow, ...],
        totals: dict[str, int],
        sparsity: float,
        outputs: list[dict[str, str]],
    ) -> dict[str, Any]:
        weights = self.target.weights
        before = {key: weight.numel() - self.zeros[key] for key, weight in weights.items()}
        nothing = ("before", "after", "workload", "test", "agreement", "sizes", "evidence")
        count = round(sparsity * totals["prunable"])
        whole = (f"{row.weight} is pruned whole" for row in rows if not row.kept)
        return make_stored_report(
            self.target,
            self.look,
            "prune",
            warnings=(
                *warn_of_zeros(sum(self.zeros.values()), count, weights=totals["prunable"]),
                *whole,
            ),
            criterion=MAGNITUDE,
            criterion_because="asked for"
            if self.options.criterion
            else "the file does not say which model it is of",
            allocation=self.rule,
            repair=NONE,
            steps=1,
            structure=UNSTRUCTURED,
            channels={},
            smaller={},
            tuning_because=None,
            tuning=None,
            quantization=None,
            layers_asked={},
            unused=[],
            cost=self.cost.report(),
            sparsity_asked=sparsity,
            search=None,
            budget=None,
            chip=None,
            totals_before=count_totals(
                make_stored_rows(weights, before), self.target.checkpoint.tensors, None
            ),
            totals=totals,
            **dict.fromkeys(nothing),
            layers=as_dicts(rows),
            outputs=outputs,
        )

    def make_joint_report(self, files: Sequence[PrunedFile]) -> dict[str, Any]:
        """One report with those of all files in it."""
        warnings = dict.fromkeys(text for one in files for text in list_told(one.report))
        return make_stored_report(
            self.target,
            self.look,
            "prune",
            warnings=tuple(text for text in warnings if text not in self.look.notes),
            files=[one.report for one in files],
            cost=self.cost.report(),
        )


class StoredWriter:
    """Writes a checkpoint with what its cuts leave, and the masks, piece by piece."""

    def __init__(self, target: StoredTarget, cuts: Mapping[str, Cut], progress: Progress) -> None:
        self.target, self.cuts = target, cuts
        self.progress = progress if takes_long(target.checkpoint) else SILENT
        self._reader = PieceReader()
        self.kept = dict.fromkeys(target.weights, 0)
        """How many of each weight are not 0 in the file that was written, by key."""

    def write(self, out: Path, mask_file: Path, metadata: Mapping[str, str]) -> str:
        """Write both, and read the first one back; its hash.

        Raises:
            InputError: what is read back is not what was meant.
        """
        checkpoint = self.target.checkpoint
        slots: dict[str, Slot] = {
            checkpoint.names[key]: (NAMES[one.dtype.name], one.shape)
            for key, one in checkpoint.tensors.items()
        }
        header, order = plan_header(slots, metadata)
        mask_header, starts = self._plan_masks(metadata, NO_HASH)
        key_of = {name: key for key, name in checkpoint.names.items()}
        meant = dict.fromkeys(self.kept, 0)
        with (
            as_output_error(out),
            out.open("wb") as file,
            as_output_error(mask_file),
            mask_file.open("wb") as masks,
            GrowingHash(out, self._count_kept) as sha256,
        ):

            def put(data: bytes | memoryview, label: str) -> None:
                with as_output_error(out):
                    file.write(data)
                    file.flush()  # or the thread would not find it
                sha256.advance(file.tell(), label)

            put(header, "")
            masks.write(mask_header)
            for name in self.progress.track(order, label="writing", total=len(order)):
                masks.seek(starts.get(name, 0))
                for data in self._iter_data(key_of[name], meant, masks):
                    put(data, key_of[name])
        found = sha256.result()
        if self.kept != meant:
            raise changed_error(out)
        return found

    def _count_kept(self, key: str, data: memoryview) -> None:
        """What was read back of a weight."""
        if key in self.kept:
            kind = self.target.weights[key].dtype
            bits = np.frombuffer(data, dtype=f"<u{kind.itemsize}")
            magnitude = compute_magnitude_bits(kind, bits, out=bits)
            self.kept[key] += len(bits) - count_zeros(magnitude)

    def sign_masks(self, mask_file: Path, metadata: Mapping[str, str], sha256: str) -> None:
        """Say which file the masks are of, now that its hash is known."""
        header, _ = self._plan_masks(metadata, sha256)
        with as_output_error(mask_file), mask_file.open("r+b") as file:
            file.write(header)

    def _plan_masks(self, metadata: Mapping[str, str], sha256: str) -> tuple[bytes, dict[str, int]]:
        """The header of the mask file, and where each mask begins in the file."""
        names, weights = self.target.checkpoint.names, self.target.weights
        shapes = json.dumps({names[key]: list(one.shape) for key, one in weights.items()})
        sizes = {names[key]: -(-one.numel() // 8) for key, one in weights.items()}
        slots: dict[str, Slot] = {name: ("U8", (size,)) for name, size in sizes.items()}
        header, order = plan_header(slots, {**metadata, PARTNER: sha256, SHAPES: shapes})
        ends = accumulate((sizes[name] for name in order), initial=len(header))
        return header, dict(zip(order, ends, strict=False))

    def _iter_data(self, key: str, kept: dict[str, int], masks: BinaryIO) -> Iterator[memoryview]:
        """What to write of a tensor; of a weight the mask is written, and counted in `kept`."""
        tensor = self.target.checkpoint.tensors[key]
        if key not in self.target.weights:
            for piece in cut_into_pieces(tensor):
                yield self._reader.read(piece).data
            return
        maker, kept[key] = MaskMaker(self.cuts[key], key), 0
        for piece in cut_into_pieces(tensor):
            bits = self._reader.read(piece)
            mask = maker.make(piece, bits)
            kept[key] += int(np.count_nonzero(mask))
            masks.write(np.packbits(mask, bitorder="little").data)
            yield np.multiply(bits, mask, out=bits).data
