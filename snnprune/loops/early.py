"""Early-Bird: a round ends when its mask no longer changes.

You et al. 2020, arXiv 1909.11957; for SNNs Kim et al. 2022, arXiv 2207.01382.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from snnprune.mask import Masks

WINDOW = 5  # masks that are compared, those of consecutive epochs
GROUP = "bird"


class EarlyBird:
    """Compares the masks that each epoch would give with those of the epochs before."""

    def __init__(self, distance: float, masks_now: Callable[[], Masks]) -> None:
        """`distance` is the share of weights in which no two masks of the window may differ."""
        self.distance, self.masks_now = distance, masks_now
        self.seen: list[Masks] = []

    def settled(self) -> bool:
        """Look at the network after an epoch; whether the masks have been alike for long enough."""
        self.seen = [*self.seen[1 - WINDOW :], self.masks_now()]
        newest = self.seen[-1]
        far = max(hamming(newest, mask) for mask in self.seen)
        return len(self.seen) == WINDOW and far < self.distance

    def groups(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of a state."""
        return {f"{GROUP}-{place}": masks for place, masks in enumerate(self.seen)}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take back what `groups` gave."""
        names = (f"{GROUP}-{place}" for place in range(WINDOW))
        self.seen = [groups[name] for name in names if name in groups]


def hamming(one: Masks, other: Masks) -> float:
    """The share of weights that one mask keeps and the other does not."""
    apart = sum(int((mask != other[key]).sum()) for key, mask in one.items())
    return apart / sum(mask.numel() for mask in one.values())
