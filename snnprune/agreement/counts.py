"""What two networks were counted to have in common; shares are derived."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from snnprune.quantities import Natural

T = TypeVar("T")


def summed(one: T | None, another: T) -> T:
    """Two records of counts as one."""
    if one is None:
        return another
    return type(another)(
        **{name: value + getattr(one, name) for name, value in vars(another).items()}
    )


@dataclass(frozen=True, kw_only=True)
class Spikes:
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
    spikes: Mapping[str, Spikes] = field(default_factory=dict)
    """By neuron name."""
    outputs: Outputs | None = None
    """None where nobody said how they are read."""
    answers: Answers | None = None
    """None without labels."""
    classes: tuple[int, int] = (0, 0)
    """How many different classes have the highest score, in the first network and the other."""

    def share(self, neurons: Collection[str] | None = None) -> float | None:
        """Of the spikes of these neurons, or of all, that are the same; None where there are none.

        Each place counts once, so that large layers count for more.
        """
        chosen = [s for name, s in self.spikes.items() if neurons is None or name in neurons]
        places = sum(sum(one.places) for one in chosen)
        return sum(sum(one.same) for one in chosen) / places if places else None
