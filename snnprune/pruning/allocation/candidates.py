"""What an allocation chooses from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from snnprune.masks import Masks, select_lowest


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Everything that may be pruned; all by weight key."""

    scores: Mapping[str, Tensor]
    """Larger = keep; -inf for weights that are pruned already."""
    magnitudes: Mapping[str, Tensor]
    """|w| in float32 or float64, also the tie-break."""
    criterion: str
    by_magnitude: frozenset[str] = frozenset()
    """Layers that the criterion could not score and magnitude did."""
    alive: Masks | None = None
    """What is not pruned already; None: what is not 0."""
    scale: Literal["linear", "log"] = "linear"
    """Whether scores are logarithms, those of layers in `by_magnitude` too."""
    degree: int = 1
    """The power of |w| with which a score grows; 1 for layers in `by_magnitude`."""
    flips: Mapping[str, Tensor] = field(default_factory=dict)
    """e_ij of `compute_flip_energies`, (out, in / groups, *kernel), where it is known."""
    places: Mapping[str, Tensor] = field(default_factory=dict)
    """Where each value of a parameter is in its weight, flat, where it lies otherwise."""

    @property
    def keys(self) -> list[str]:
        """The layers."""
        return list(self.magnitudes)

    def pool(self, *, by_magnitude: bool) -> list[str]:
        """The layers that were scored by magnitude for want of better, or all others."""
        return [key for key in self.keys if (key in self.by_magnitude) == by_magnitude]

    def kept(self, key: str) -> Tensor:
        """The mask of what is not pruned already."""
        return self.magnitudes[key] != 0 if self.alive is None else self.alive[key]

    def count_pruned_already(self, keys: list[str]) -> int:
        """How many weights of these layers are pruned already."""
        return sum(int((~self.kept(key)).sum()) for key in keys)

    def zeros(self, keys: list[str]) -> int:
        """`count_pruned_already`, by its name of version 0.1, which works for one more release."""
        message = "Candidates.zeros is count_pruned_already now; the old name works for one release"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.count_pruned_already(keys)

    def size(self, keys: list[str]) -> int:
        """How many weights these layers have."""
        return sum(self.magnitudes[key].numel() for key in keys)

    def order_alive(self, key: str) -> Tensor:
        """Flat places of what is alive, in the order in which it goes, as `lowest` has it."""
        alive = self.kept(key).flatten().nonzero().squeeze(1)
        by_size = alive[self.magnitudes[key].flatten()[alive].argsort(stable=True)]
        return by_size[self.scores[key].flatten()[by_size].argsort(stable=True)]

    def map_to_weight(self, key: str, queue: Tensor) -> Tensor:
        """The same flat places in the weight (out, in / groups, *kernel)."""
        return self.places[key].to(queue.device)[queue] if key in self.places else queue

    def without(self, key: str, places: Tensor) -> Tensor:
        """The mask that also prunes these flat places."""
        kept = self.kept(key)
        mask = kept.flatten().clone()
        mask[places] = False
        return mask.view(kept.shape)

    def lowest(self, keys: list[str], count: int) -> dict[str, Tensor]:
        """Masks that prune the `count` lowest-scored weights of these layers together.

        Among them are those that are pruned already, which go first.
        """
        return self._make_masks({key: self.scores[key] for key in keys}, count)

    def prune_lowest_magnitudes(self, count: int) -> dict[str, Tensor]:
        """Masks that prune the `count` smallest weights of all layers together."""
        return self._make_masks({key: self._compute_magnitudes(key) for key in self.keys}, count)

    def _make_masks(self, scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        if not scores:
            return {}
        flat = torch.cat([score.flatten() for score in scores.values()])
        ties = torch.cat([self._compute_magnitudes(key).flatten() for key in scores])
        kept = ~select_lowest(flat, count, ties_by=ties)
        pieces = kept.split([score.numel() for score in scores.values()])
        return {
            key: piece.view(score.shape)
            for (key, score), piece in zip(scores.items(), pieces, strict=True)
        }

    def _compute_magnitudes(self, key: str) -> Tensor:
        """|w|, -1 for what is pruned already: what is alive and 0 goes after that."""
        return self.magnitudes[key].masked_fill(~self.kept(key), -1.0)


Allocation = Callable[[Candidates, int], dict[str, Tensor]]
"""From candidates and a number of weights to masks that prune exactly that many."""
