"""Pruning one layer at a time, all others dense."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.jobs.prune.cutting import cut_alone
from snnprune.jobs.targets.target import Target
from snnprune.measure.agreement import Agreement, Answers, Outputs
from snnprune.measure.agreement_pass import measure_agreements
from snnprune.measure.quantities import Natural, Share
from snnprune.pruning.oneshot import OneShot, PrunePlan
from snnprune.pruning.prune import PruneResult
from snnprune.runtime import Progress


@dataclass(frozen=True, kw_only=True)
class LayerTrial:
    """One layer at one sparsity, held against the dense network."""

    weight: str
    sparsity: float
    """As asked."""
    pruned: int
    weights: int
    agreement: Agreement
    behind: tuple[str, ...] = ()
    """The neurons that the layer drives."""

    @property
    def accuracy(self) -> float | None:
        """In [0, 1]; None without labels."""
        answers = self.agreement.answers
        return answers.accuracies[1] if answers else None

    def compute_spike_agreement(self) -> float | None:
        """Share of the spikes behind the layer that stay; None where it drives none."""
        return self.agreement.share(self.behind) if self.behind else None

    @property
    def same_class(self) -> float:
        """Share of samples whose class stays."""
        return self.agreement.outputs.share if self.agreement.outputs else 0.0

    @property
    def divergence(self) -> float:
        """Mean KL divergence of the output from the dense network's, in nats."""
        return self.agreement.outputs.mean_divergence if self.agreement.outputs else 0.0


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A `LayerTrial` for a report, with what follows from it."""

    weight: str
    sparsity: Share
    pruned: Natural
    weights: Natural
    accuracy: Share | None
    same_class: Share
    divergence: float
    spike_agreement: Share | None
    behind: Sequence[str]
    spikes_same: Natural
    spikes_places: Natural
    outputs: Outputs | None
    answers: Answers | None


def make_trial_row(trial: LayerTrial) -> TrialRow:
    """Of one trial."""
    behind = [trial.agreement.spikes[name] for name in trial.behind]
    return TrialRow(
        weight=trial.weight,
        sparsity=trial.sparsity,
        pruned=trial.pruned,
        weights=trial.weights,
        accuracy=trial.accuracy,
        same_class=trial.same_class,
        divergence=trial.divergence,
        spike_agreement=trial.compute_spike_agreement(),
        behind=list(trial.behind),
        spikes_same=sum(sum(spikes.same) for spikes in behind),
        spikes_places=sum(sum(spikes.places) for spikes in behind),
        outputs=trial.agreement.outputs,
        answers=trial.agreement.answers,
    )


@dataclass(frozen=True, kw_only=True)
class TrialBench:
    """What every trial is made with."""

    target: Target
    work: OneShot
    plan: PrunePlan
    images: Batches
    """To compare on."""

    def try_each_layer(
        self, sparsities: Sequence[float], progress: Progress
    ) -> Iterator[LayerTrial]:
        """All trials, layer by layer; the network is dense again after each."""
        keys = list(self.work.weights)
        with progress.within("one layer alone", total=len(keys) * len(sparsities)):
            for key in keys:
                yield from self._layer(key, sparsities, progress)

    def try_together(
        self, cutting: Callable[..., PruneResult], sparsity: float
    ) -> tuple[PruneResult, Agreement]:
        """The whole network, cut in one piece."""
        try:
            cut = self.work.prune(self.plan, sparsity, cutting)
            tensors = self.work.tensors()
        finally:
            self.work.restore()
        return cut, self._compare([tensors])[0]

    def _layer(
        self, key: str, sparsities: Sequence[float], progress: Progress
    ) -> Iterator[LayerTrial]:
        counts, pruned = [], []
        for sparsity in progress.track(sparsities, label=key, total=len(sparsities)):
            try:
                cut = self.work.prune(self.plan, sparsity, functools.partial(cut_alone, key))
                counts.append(int((~cut.masks[key]).sum()))
                pruned.append(self.work.tensors())
            finally:
                self.work.restore()
        links = self.target.require_runnable().layers[key].links
        for sparsity, count, found in zip(sparsities, counts, self._compare(pruned), strict=True):
            yield LayerTrial(
                weight=key,
                sparsity=sparsity,
                pruned=count,
                weights=self.work.weights[key].numel(),
                agreement=found,
                behind=tuple(dict.fromkeys(link.neuron for link in links)),
            )

    def _compare(self, pruned: Sequence[Mapping[str, Tensor]]) -> list[Agreement]:
        """Each of `pruned` with the dense network, which the module holds."""
        return measure_agreements(
            self.target.require_runnable(),
            {},
            pruned,
            self.images,
        )
