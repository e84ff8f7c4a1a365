"""What a call gives back: the report of its command, shown by itself, and what it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from snnprune.api.options import name_options, speak_python
from snnprune.checkpoint.containers import SAFETENSORS, require_module_writable_as
from snnprune.errors import InputError, format_count, format_percent, make_printable
from snnprune.files.writing import format_json, require_free
from snnprune.jobs.prune.options import OutputPaths
from snnprune.masks import Masks

if TYPE_CHECKING:
    from snnprune.jobs.evaluate import EvaluateResult
    from snnprune.jobs.prune.filing import FinishedPruning
    from snnprune.jobs.score import ScoreResult


@dataclass(kw_only=True, eq=False, repr=False)
class ModelResult:
    """What all calls give back; in a notebook its last line shows tables."""

    report: dict[str, Any]
    """As the command's `--json` prints it; docs/reports.md says what is in it."""

    def __post_init__(self) -> None:
        self.report = json.loads(format_json(self.report))  # as it is read back from a file

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be known before the numbers are believed, a line each."""
        return tuple(map(name_options, self.report["warnings"]))

    def __repr__(self) -> str:
        told = [*self._tell()]
        if self.warnings:
            told.append(format_count(len(self.warnings), "warning"))
        return f"<{type(self).__name__}: {', '.join(map(make_printable, told))}>"

    def _repr_html_(self) -> str:
        from snnprune.report.pages import render_notebook  # with a template

        return render_notebook({**self.report, "warnings": self.warnings})

    def _tell(self) -> list[str]:
        raise NotImplementedError


@dataclass(kw_only=True, eq=False, repr=False)
class PruningResult(ModelResult):
    """A pruned network, its masks and the evidence."""

    model: nn.Module
    """Pruned and repaired, on the device and in the modes of the one that was given; after
    `structure="channels"` with smaller layers, where they can be had."""
    masks: Masks
    """Bool by weight key, True = kept, in the shapes of the weights in `model`, on the CPU."""
    integers: Mapping[str, tuple[Tensor, Tensor]]
    """With `bits`, of each weight its integers and the scales that they are multiplied with."""
    finished: FinishedPruning

    @property
    def sparsity(self) -> float:
        """The share of the prunable weights that is 0."""
        totals = self.report["totals"]
        return float(totals["pruned"] / totals["prunable"])

    @property
    def accuracy(self) -> float | None:
        """After pruning, in [0, 1]; None where nothing was measured or there are no labels."""
        return _read_accuracy(self.report["after"])

    @property
    def accuracy_before(self) -> float | None:
        """The same of the network that was given."""
        return _read_accuracy(self.report["before"])

    def save(self, path: str | Path, *, force: bool = False) -> tuple[Path, ...]:
        """Write what was made as `snnprune prune -o` does: the file, masks and report beside it.

        `model` may have been trained on since then: it is not looked at. With `bits` there is a
        file of integers too. `report` is the one that was written then.

        Args:
            path: .safetensors; or .pth and the like, for a state_dict of `torch.save`.
            force: whether existing files are replaced.

        Returns:
            The files, the pruned one first.

        Raises:
            UsageError: the network cannot be written to such a file.
            InputError: the smaller layers cannot.
            OutputError: a file exists already or cannot be written. Nothing is written then.
        """
        quantized = self.finished.made.quantized is not None
        place = OutputPaths(out=Path(path), quantized=quantized)
        with speak_python():
            require_module_writable_as(place.out)
            if self.finished.made.small and place.out.suffix.lower() not in SAFETENSORS:
                raise InputError(
                    "only a .safetensors file can say which channels are gone", file=place.out
                )
            for file in place.files:
                require_free(file, force=force)
            written = self.finished.write(place).report
            self.report = json.loads(format_json(written))
        return place.files

    def _tell(self) -> list[str]:
        counted = self.report["totals"]
        kept = f"{counted['kept']:,} of {counted['prunable']:,} weights kept"
        told = [f"{format_percent(self.sparsity)} sparse", kept]
        if self.accuracy is not None:
            before = format_percent(self.accuracy_before)
            told.append(f"accuracy {before} -> {format_percent(self.accuracy)}")
        told.append(f"{self.report['criterion']}, repair {self.report['repair']}")
        return told


def _read_accuracy(evaluation: Mapping[str, Any] | None) -> float | None:
    return None if evaluation is None else evaluation["accuracy"]


@dataclass(kw_only=True, eq=False, repr=False)
class ScoringResult(ModelResult):
    """A score for each weight."""

    scores: Mapping[str, Tensor]
    """By weight key, larger = keep, in the shapes of the weights, on the CPU."""

    @classmethod
    def of(cls, found: ScoreResult) -> ScoringResult:
        """What the job found."""
        return cls(report=found.report, scores=found.scores.values)

    def _tell(self) -> list[str]:
        weights = sum(values.numel() for values in self.scores.values())
        return [
            f"{weights:,} weights in {format_count(len(self.scores), 'layer')}",
            f"{self.report['criterion']} ({self.report['scale']})",
        ]


@dataclass(kw_only=True, eq=False, repr=False)
class EvaluationResult(ModelResult):
    """How well a network does, how much it fires, and what it takes."""

    accuracy: float | None
    """In [0, 1]; None without labels."""
    loss: float | None
    """Mean over labelled samples, in nats."""
    firing_rates: Mapping[str, float]
    """Spikes per neuron and time step, by neuron."""
    synops: float
    """Synaptic operations of a sample, multiply-accumulates and accumulates."""

    @classmethod
    def of(cls, found: EvaluateResult) -> EvaluationResult:
        """What the job found."""
        seen, done = found.evaluation, found.workload.sum_layers()
        return cls(
            report=found.report,
            accuracy=seen.accuracy,
            loss=seen.loss,
            firing_rates=seen.firing_rates,
            synops=(done.macs + done.acs) / seen.samples,
        )

    def _tell(self) -> list[str]:
        samples = format_count(self.report["evaluation"]["samples"], "sample")
        told = [] if self.accuracy is None else [f"accuracy {format_percent(self.accuracy)}"]
        return [*told, samples, f"{self.synops:,.0f} synaptic operations each"]
