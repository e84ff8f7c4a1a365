"""What is measured of a network before and after pruning, as far as somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from snnprune.checkpoint.packed import pack
from snnprune.checkpoint.safetensors import list_bytes
from snnprune.export import measure_sizes
from snnprune.jobs.targets.reporting import StageTimer
from snnprune.jobs.targets.target import Target
from snnprune.masks import Masks
from snnprune.measure import Energy
from snnprune.measure.agreement import Agreement
from snnprune.measure.agreement_pass import measure_agreements
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.measure.workload import Workload, describe_workload
from snnprune.pruning.effects import describe_membranes, make_score_histogram, predict_flips
from snnprune.pruning.score import Scores
from snnprune.report import describe_evaluation
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class WantedMeasures:
    """What is worth its time."""

    evaluation: bool = True
    workload: bool = False
    agreement: bool = False
    evidence: bool = False
    """Also statistics of the pruned network, and what the files weigh."""


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """A network on the images that it is measured on."""

    evaluation: Evaluation
    workload: Workload | None


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """Before and after; None where nothing could be run or nobody asked."""

    before: NetworkResult | None
    after: NetworkResult | None

    @property
    def evaluations(self) -> tuple[Evaluation | None, Evaluation | None]:
        """Before and after."""
        return _get_evaluation(self.before), _get_evaluation(self.after)

    def about(self, energy: Energy) -> dict[str, Any]:
        """For a report."""
        before, after = self.evaluations
        both = {"before": self.before, "after": self.after}
        work = {
            name: describe_workload(look.workload, look.evaluation.samples, energy)
            for name, look in both.items()
            if look is not None and look.workload is not None
        }
        return {
            "before": describe_evaluation(before),
            "after": describe_evaluation(after),
            "workload": work or None,
        }


def _get_evaluation(look: NetworkResult | None) -> Evaluation | None:
    return None if look is None else look.evaluation


class NetworkMeter:
    """Runs the target's network, with whatever weights it holds."""

    def __init__(
        self,
        target: Target,
        wanted: WantedMeasures,
        limit: int | None,
        progress: Progress,
        cost: StageTimer,
    ) -> None:
        """`limit` is the number of images; None takes all."""
        self.target, self.wanted, self.limit = target, wanted, limit
        self.progress, self.cost = progress, cost

    @property
    def missing(self) -> str | None:
        """Why nothing can be run, if so."""
        target = self.target
        if target.network is None or target.data is None:
            return target.missing or "there is no network"
        return None

    def measure(self, label: str) -> NetworkResult | None:
        """Accuracy, firing and work, where there are network and images."""
        if not self._runs:
            return None
        workload = Workload() if self.wanted.workload else None
        found = self._evaluate(self.target.measured, label, workload)
        return NetworkResult(evaluation=found, workload=workload)

    def evaluate_test(self) -> Evaluation | None:
        """On the test images, where there are some and the looks are at those of `--eval-data`."""
        target = self.target
        known = self._runs and target.data is not None and target.data.test is not None
        if not known or target.measured == "test":
            return None
        return self._evaluate("test", f"evaluating on test {target.noun}", None)

    @property
    def _runs(self) -> bool:
        return self.wanted.evaluation and self.target.runnable is not None and not self.missing

    def _evaluate(self, split: str, label: str, workload: Workload | None) -> Evaluation:
        with self.cost.stage("evaluation"):
            return evaluate(
                self.target.require_runnable(),
                self._open_batches(label, split),
                workload=workload,
                images=split,
            )

    def measure_agreement(self, tensors: Mapping[str, Tensor]) -> Agreement | None:
        """How alike the checkpoint and the network with `tensors` are, on the same images."""
        network = self.target.runnable
        if not self.wanted.agreement or network is None or self.missing:
            return None
        with self.cost.stage("evaluation"):
            batches = self._open_batches("comparing spikes", self.target.measured)
            return measure_agreements(network, self.target.checkpoint.tensors, [tensors], batches)[
                0
            ]

    def _open_batches(self, label: str, split: str) -> Iterator[Any]:
        return self.target.batches(split, self.limit).track(self.progress, label)

    def collect_evidence(
        self, masks: Masks, scores: Scores, before: Calibration | None
    ) -> dict[str, Any] | None:
        """Membranes, scores and predictions, layer by layer; the network holds what was pruned."""
        if not self.wanted.evidence:
            return None
        histograms = {
            key: asdict(make_score_histogram(values, masks[key], scores.scale))
            for key, values in scores.values.items()
        }
        network, weights = self.target.runnable, self.target.find_weights()
        if network is None or before is None:
            none: dict[str, Any] = {"before": {}, "after": {}, "crises": {}, "input_rates": {}}
            return {"samples": 0, "edges": [], **none, "scores": histograms}
        batches = self.target.calibration_batches().track(self.progress, "calibrating after")
        with self.cost.stage("calibration"):
            after = calibrate(network, batches)
        predicted = predict_flips(weights, masks, network, before)
        return {
            "samples": after.samples,
            "edges": before.histogram_edges.tolist(),
            "before": {name: asdict(found) for name, found in describe_membranes(before).items()},
            "after": {name: asdict(found) for name, found in describe_membranes(after).items()},
            "crises": {name: asdict(found) for name, found in predicted.items()},
            "input_rates": {
                key: {
                    "before": _read_input_rate(before, key),
                    "after": _read_input_rate(after, key),
                }
                for key in weights
                if key in before.layers and key in after.layers
            },
            "scores": histograms,
        }

    def sizes(self, after: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """What all tensors weigh, before and after."""
        if not self.wanted.evidence:
            return None
        source = self.target.checkpoint
        return {
            "before": _measure_sizes(source.in_file(source.tensors)),
            "after": _measure_sizes(source.in_file(after)),
        }


def _read_input_rate(calibration: Calibration, key: str) -> float:
    return float(calibration.layers[key].input_rate.mean())


def _measure_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return measure_sizes(list_bytes(tensors.values()), pack(tensors)).as_dict()
