"""A sparsity that is looked for: the highest that holds an accuracy on validation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from snnprune.errors import GateError, UsageError
from snnprune.jobs.pruning.bisecting import Try, best, bisect
from snnprune.jobs.pruning.options import Target
from snnprune.jobs.pruning.smaller import Small
from snnprune.pruning import Cut
from snnprune.quantities import Natural, Share
from snnprune.structure.channels import Removed


@dataclass(frozen=True, kw_only=True)
class Made:
    """A pruned network: its masks and all tensors of its file."""

    cut: Cut
    tensors: dict[str, Tensor]
    removed: Removed | None = None
    """Whole channels that are gone, where they were to go."""
    small: Small | None = None
    """The same without channels that are gone, which is written then."""
    notes: tuple[str, ...] = ()
    """Why there is none, where channels were to go."""

    @property
    def channels(self) -> Mapping[str, dict[str, int]]:
        """Of layers that lost whole channels: how many are kept of how many, by weight key."""
        return {} if self.removed is None else self.removed.counts()


@dataclass(frozen=True, kw_only=True)
class Search:
    """What was tried, and on what."""

    split: str
    images: Natural
    dense: Share
    """Accuracy before pruning, in [0, 1], on the same images."""
    target: float
    resolution: Share
    tries: tuple[Try, ...]

    def report(self) -> dict[str, Any]:
        """For a report."""
        return {**asdict(self), "tries": [asdict(one) for one in self.tries]}


def look_for(
    target: Target,
    *,
    make: Callable[[float], Made],
    accuracy: Callable[[], tuple[float, int]],
    split: str,
) -> tuple[Search, float, Made]:
    """Measure the dense network, then bisect; the search, the sparsity found and its network.

    `accuracy` is that of what the network holds, with the number of images; `make` fills it.

    Raises:
        UsageError: every network holds the target.
        GateError: no sparsity that was tried holds it.
    """
    dense, images = accuracy()
    wanted, kept = target.below(dense), dict[float, Made]()
    if wanted <= 0:
        raise UsageError(
            f"leaves nothing to hold: the dense network has {dense:.2%} on {images:,} images",
            field=target.flag,
            hint="ask for more",
        )

    def accuracy_at(sparsity: float) -> float:
        made = make(sparsity)
        found, _ = accuracy()
        if found >= wanted - 1e-12:
            kept.clear()  # only the last that held is written
            kept[sparsity] = made
        return found

    tries = bisect(accuracy_at, target=wanted, resolution=target.resolution)
    found = best(tries)
    if found is None:
        lowest = min(tries, key=lambda one: one.sparsity)
        raise GateError(
            f"{wanted:.2%} is not held at {lowest.sparsity:g}, the lowest sparsity tried "
            f"({lowest.accuracy:.2%}); the dense network has {dense:.2%} on {images:,} images",
            field=target.flag,
        )
    search = Search(
        split=split,
        images=images,
        dense=dense,
        target=wanted,
        resolution=target.resolution,
        tries=tries,
    )
    return search, found.sparsity, kept[found.sparsity]
