"""Early-Bird: a training ends when the mask that it leads to no longer changes.

You et al. 2020, arXiv 1909.11957; for SNNs Kim et al. 2022, arXiv 2207.01382. Theirs is the dense
training (`EarlyTickets`); a round of iterative pruning may be ended in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from snnprune.masks import Masks
from snnprune.measure import Natural, Share
from snnprune.training.runs import Groups
from snnprune.training.runs.state import read_count, read_number, require_names

WINDOW = 5  # masks that are compared, those of consecutive epochs
GROUP = "bird"
DRAWN, WEIGHTS = "drawn", "drawn-weights"


class EarlyBirdDetector:
    """Compares the masks that each epoch would give with those of the epochs before."""

    def __init__(self, distance: float, masks_now: Callable[[], Masks]) -> None:
        """`distance` is the share of weights in which no two masks of the window may differ."""
        self.distance, self.masks_now = distance, masks_now
        self.seen: list[Masks] = []

    def look(self) -> bool:
        """Look at the network after an epoch; whether the masks have been alike for long enough."""
        self.seen = [*self.seen[1 - WINDOW :], self.masks_now()]
        return len(self.seen) == WINDOW and self.compute_farthest() < self.distance

    def compute_farthest(self) -> float:
        """The largest distance of the newest mask to one of the window, in [0, 1]."""
        newest = self.seen[-1]
        return max(compute_hamming(newest, mask) for mask in self.seen)

    def groups(self, name: str = GROUP) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of a state, in groups that begin with `name`."""
        return {f"{name}-{place}": masks for place, masks in enumerate(self.seen)}

    def restore(self, groups: Groups, name: str = GROUP) -> None:
        """Take back what `groups` gave under that name."""
        names = (f"{name}-{place}" for place in range(WINDOW))
        self.seen = [groups[name] for name in names if name in groups]


@dataclass(frozen=True, kw_only=True)
class DrawnTicket:
    """A ticket as it was drawn from the dense network."""

    masks: Masks
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """Of the dense network as it was then; empty where the ticket goes back to others."""
    epochs: Natural
    """That the dense network had been trained for."""
    distance: Share
    """The largest between these masks and those of the epochs before, in [0, 1]."""
    settled: bool
    """Whether that was small enough; else the dense run was over."""

    @property
    def about(self) -> dict[str, Any]:
        """What a state, metrics and reports say of it."""
        return {"epochs": self.epochs, "distance": self.distance, "settled": self.settled}


class EarlyTickets:
    """Tickets that are drawn while the dense network trains, each when its own masks settle."""

    def __init__(
        self,
        distance: float,
        cuts: Mapping[int, Callable[[], Masks]],
        weights_now: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """`cuts` give the masks of each ticket, by its number, for the network as it is.

        `weights_now` gives the weights that go with a ticket, empty where it needs none.
        """
        self.waiting = {number: EarlyBirdDetector(distance, cut) for number, cut in cuts.items()}
        self.drawn: dict[int, DrawnTicket] = {}
        self.weights_now = weights_now

    def look(self, epochs: int, *, last: bool) -> bool:
        """Look at the network after so many epochs; whether every ticket is drawn.

        The `last` epoch draws those that have not settled.
        """
        for number, bird in list(self.waiting.items()):
            settled = bird.look()
            if settled or last:
                self.drawn[number] = DrawnTicket(
                    masks=bird.seen[-1],
                    weights=self.weights_now(),
                    epochs=epochs,
                    distance=bird.compute_farthest(),
                    settled=settled,
                )
                del self.waiting[number]
        return not self.waiting

    def position(self) -> dict[str, Any]:
        """What a state says of the drawn ones beside the tensors."""
        return {str(number): drawn.about for number, drawn in self.drawn.items()}

    def groups(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of a state."""
        found: dict[str, Mapping[str, Tensor]] = {}
        for number, bird in self.waiting.items():
            found |= bird.groups(f"{GROUP}-{number}")
        for number, drawn in self.drawn.items():
            found |= {f"{DRAWN}-{number}": drawn.masks, f"{WEIGHTS}-{number}": drawn.weights}
        return found

    def restore(self, position: Mapping[str, Any], groups: Groups) -> None:
        """Take back what `position` and `groups` gave."""
        for number in map(int, position):
            about = position[str(number)]
            require_names(about, ("epochs", "distance", "settled"))
            del self.waiting[number]
            self.drawn[number] = DrawnTicket(
                masks=groups[f"{DRAWN}-{number}"],
                weights=groups.get(f"{WEIGHTS}-{number}", {}),
                epochs=read_count(about, "epochs"),
                distance=read_number(about, "distance"),
                settled=bool(about["settled"]),
            )
        for number, bird in self.waiting.items():
            bird.restore(groups, f"{GROUP}-{number}")


def describe_early_tickets(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows of metrics say of tickets that were drawn early: lines for a report."""
    tickets = [row for row in rows if "early_bird" in row]
    lines = [
        f"{row['method']} at {row['sparsity_asked']:.0%}: masks did not settle, those after the "
        f"last epoch of the dense run were taken; distance {row['early_bird']['distance']:.3g}"
        + f" over {row['early_bird']['epochs']} epochs, of which {WINDOW} are compared"
        * (row["early_bird"]["epochs"] < WINDOW)
        for row in tickets
        if not row["early_bird"]["settled"]
    ]
    if tickets and not any(row["kind"] == "ticket" and row["round"] == 0 for row in rows):
        epochs = sum(row["kind"] == "epoch" and row["round"] == 0 for row in rows)
        lines.append(
            f"the dense run ended after epoch {epochs}, when all tickets were drawn: there is no "
            "dense accuracy to compare with; train gives one"
        )
    return lines


def compute_hamming(one: Masks, other: Masks) -> float:
    """The share of weights that one mask keeps and the other does not."""
    apart = sum(int((mask != other[key]).sum()) for key, mask in one.items())
    return apart / sum(mask.numel() for mask in one.values())
