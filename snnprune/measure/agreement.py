"""How far two networks agree in spikes, outputs and answers: the counts, and their JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snnprune.errors import NonFiniteError
from snnprune.measure import Change, Natural, Share
from snnprune.measure.evaluation import check_labels


@dataclass(frozen=True, kw_only=True)
class SpikeAgreement:
    """The spikes of one neuron layer in both networks, (T,) each; T = 1 where time is not told."""

    places: tuple[int, ...]
    """Neurons times samples."""
    same: tuple[int, ...]
    """Places where both spike alike; where spikes are counted, equally often."""
    first: tuple[float, ...]
    """Spikes of the first network."""
    other: tuple[float, ...]
    """Spikes of the other."""
    timed: bool = True
    """Whether the steps could be told apart."""

    @property
    def share(self) -> float:
        """Of places and steps with the same spike, in [0, 1]."""
        return sum(self.same) / sum(self.places)

    @property
    def shares(self) -> tuple[float, ...]:
        """The same by time step, (T,); empty where the steps could not be told apart."""
        both = zip(self.same, self.places, strict=True)
        return tuple(same / places for same, places in both) if self.timed else ()

    @property
    def rates(self) -> tuple[float, float]:
        """Spikes per neuron per time step in the first network and the other."""
        places = sum(self.places)
        return sum(self.first) / places, sum(self.other) / places


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Logits (N, classes), averaged over time."""

    samples: Natural
    values: Natural
    difference: float
    """Sum over values of their absolute difference."""
    cosine: float
    """Sum over samples."""
    divergence: float
    """Sum over samples of KL(softmax of the first || softmax of the other), in nats."""
    same_class: Natural
    """Samples for which both give one class the highest score."""

    @property
    def mean_difference(self) -> float:
        """Mean absolute difference of two logits."""
        return self.difference / self.values

    @property
    def mean_cosine(self) -> float:
        """Mean cosine of the logits of a sample, in [-1, 1]."""
        return self.cosine / self.samples

    @property
    def mean_divergence(self) -> float:
        """Mean divergence of a sample, in nats."""
        return self.divergence / self.samples

    @property
    def share(self) -> float:
        """Of samples with the same class, in [0, 1]."""
        return self.same_class / self.samples


@dataclass(frozen=True, kw_only=True)
class Answers:
    """How many labelled samples which network gets right, as McNemar's test counts them."""

    both: Natural = 0
    only_first: Natural = 0
    only_other: Natural = 0
    neither: Natural = 0

    @property
    def labelled(self) -> int:
        """All of them."""
        return self.both + self.only_first + self.only_other + self.neither

    @property
    def accuracies(self) -> tuple[float, float]:
        """Shares classified right by the first network and the other, in [0, 1]."""
        right = self.both + self.only_first, self.both + self.only_other
        return right[0] / self.labelled, right[1] / self.labelled


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What came of running both networks on the same samples."""

    samples: int
    spikes: Mapping[str, SpikeAgreement] = field(default_factory=dict)
    """By neuron name."""
    outputs: Outputs | None = None
    """None where nobody said how they are read."""
    answers: Answers | None = None
    """None without labels."""
    classes: tuple[int, int]
    """How many different classes have the highest score, in the first network and the other."""

    def share(self, neurons: Collection[str] | None = None) -> float | None:
        """Of the spikes of these neurons, or of all, that are the same; None where there are none.

        Each place counts once, so that large layers count for more.
        """
        chosen = [s for name, s in self.spikes.items() if neurons is None or name in neurons]
        places = sum(sum(one.places) for one in chosen)
        return sum(sum(one.same) for one in chosen) / places if places else None


def measure_change(first: Tensor, other: Tensor) -> Change:
    """From `first` to `other`, in float64; two NaN count as the same.

    Their types may differ: values are compared as the wider type holds them.
    """
    same = (first == other) | ((first != first) & (other != other))
    kept, still = first != 0, other != 0
    wide = torch.complex128 if first.is_complex() or other.is_complex() else torch.float64
    before = first.to(wide)
    return Change(
        values=first.numel(),
        changed=int((~same).sum()),
        zeros_first=int((~kept).sum()),
        zeros_other=int((~still).sum()),
        kept_by_both=int((kept & still).sum()),
        kept_by_either=int((kept | still).sum()),
        squared_change=_sum_squares(other.to(wide) - before),
        squared_norm=_sum_squares(before),
    )


def _sum_squares(values: Tensor) -> float:
    return float(values.abs().square().sum())


def compare_outputs(first: Tensor, other: Tensor) -> Outputs:
    """Of logits (N, classes), float64.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    if not bool((first.isfinite() & other.isfinite()).all()):
        raise NonFiniteError("a network puts out NaN or infinity", field="--data")
    cosines = functional.cosine_similarity(first, other, dim=1)
    cosines = torch.where((first == other).all(1), 1.0, cosines)  # also where both are 0
    log_p, log_q = first.log_softmax(1), other.log_softmax(1)
    return Outputs(
        samples=len(first),
        values=first.numel(),
        difference=float((first - other).abs().sum()),
        cosine=float(cosines.sum()),
        divergence=float((log_p.exp() * (log_p - log_q)).sum()),
        same_class=int((first.argmax(1) == other.argmax(1)).sum()),
    )


def compare_answers(first: Tensor, other: Tensor, y: Tensor) -> Answers:
    """Of scores (N, classes) against labels (N,).

    Raises:
        InputError: a label is no class.
    """
    y = check_labels(y, first)
    right, also = first.argmax(1) == y, other.argmax(1) == y
    return Answers(
        both=int((right & also).sum()),
        only_first=int((right & ~also).sum()),
        only_other=int((~right & also).sum()),
        neither=int((~right & ~also).sum()),
    )


@dataclass(frozen=True, kw_only=True)
class SpikeRow:
    """A `SpikeAgreement` for a report, with the shares that follow from it."""

    places: Sequence[Natural]
    same: Sequence[Natural]
    spikes: tuple[Sequence[float], Sequence[float]]
    timed: bool
    firing_rates: tuple[float, float]
    agreement: Share
    agreement_by_step: Sequence[Share]


@dataclass(frozen=True, kw_only=True)
class AgreementRow:
    """An `Agreement` for a report, with the shares that follow from it."""

    samples: Natural
    spike_agreement: Share | None
    neurons: Mapping[str, SpikeRow]
    outputs: Mapping[str, Any] | None
    answers: Mapping[str, Any] | None


def make_agreement_row(agreement: Agreement) -> AgreementRow:
    """Of what was counted."""
    outputs, answers = agreement.outputs, agreement.answers
    return AgreementRow(
        samples=agreement.samples,
        spike_agreement=agreement.share(),
        neurons={name: _make_spike_row(spikes) for name, spikes in agreement.spikes.items()},
        outputs=None if outputs is None else _describe_outputs(outputs),
        answers=None if answers is None else _describe_answers(answers),
    )


def _describe_outputs(outputs: Outputs) -> dict[str, float]:
    return {
        **asdict(outputs),
        "mean_difference": outputs.mean_difference,
        "mean_cosine": outputs.mean_cosine,
        "mean_divergence": outputs.mean_divergence,
        "same_class_share": outputs.share,
    }


def _describe_answers(answers: Answers) -> dict[str, Any]:
    return {
        **asdict(answers),
        "labelled": answers.labelled,
        "accuracies": list(answers.accuracies),
    }


def _make_spike_row(spikes: SpikeAgreement) -> SpikeRow:
    return SpikeRow(
        places=list(spikes.places),
        same=list(spikes.same),
        spikes=(list(spikes.first), list(spikes.other)),
        timed=spikes.timed,
        firing_rates=spikes.rates,
        agreement=spikes.share,
        agreement_by_step=list(spikes.shares),
    )


def describe_agreement(agreement: Agreement | None) -> dict[str, Any] | None:
    """For a report."""
    return None if agreement is None else asdict(make_agreement_row(agreement))
