"""What an allocation chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.mask import Masks
from snnprune.ranking import lowest


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

    def zeros(self, keys: list[str]) -> int:
        """How many weights of these layers are pruned already."""
        return sum(int((~self.kept(key)).sum()) for key in keys)

    def size(self, keys: list[str]) -> int:
        """How many weights these layers have."""
        return sum(self.magnitudes[key].numel() for key in keys)

    def lowest(self, keys: list[str], count: int) -> dict[str, Tensor]:
        """Masks that prune the `count` lowest-scored weights of these layers together."""
        return self._masks({key: self.scores[key] for key in keys}, count)

    def lowest_magnitudes(self, count: int) -> dict[str, Tensor]:
        """Masks that prune the `count` smallest weights of all layers together."""
        return self._masks(self.magnitudes, count)

    def _masks(self, scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        if not scores:
            return {}
        flat = torch.cat([score.flatten() for score in scores.values()])
        # a weight that is alive and 0 goes after those that are not
        sizes = (self.magnitudes[key].masked_fill(~self.kept(key), -1.0) for key in scores)
        ties = torch.cat([size.flatten() for size in sizes])
        kept = ~lowest(flat, count, ties_by=ties)
        pieces = kept.split([score.numel() for score in scores.values()])
        return {
            key: piece.view(score.shape)
            for (key, score), piece in zip(scores.items(), pieces, strict=True)
        }


Allocation = Callable[[Candidates, int], dict[str, Tensor]]
"""From candidates and a number of weights to masks that prune exactly that many."""
