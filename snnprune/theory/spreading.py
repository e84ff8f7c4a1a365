"""How far a difference has come in a network: from neuron to neuron and from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FlipSpread:
    """Of the neurons of one name, (T,) float64 each, over samples and space."""

    places: Tensor
    flips: Tensor
    """Places whose spike is another at this step."""
    samples: Tensor
    hit: Tensor
    """Samples in which at this step or before a spike was another, of this or of a neuron before.

    Neurons before it are those that ran before it: what it hears of is among them.
    """
    untouched: Tensor
    """Largest |du| in samples that nothing has hit before, (T, C)."""
    after: frozenset[str]
    """Changed layers that had run before it did for the first time."""


@dataclass
class _Steps:
    """Of the neurons of one name, during one batch: a row for each step."""

    places: list[int] = field(default_factory=list)
    flips: list[Tensor] = field(default_factory=list)
    hit: list[Tensor] = field(default_factory=list)
    """(N,) bool."""
    apart: list[Tensor] = field(default_factory=list)
    """Largest |du| of a sample and channel, (N, C)."""


class SpreadCollector:
    """Collects what two runs side by side show, a step of a neuron at a time."""

    def __init__(self) -> None:
        self._steps: dict[str, _Steps] = {}
        self._found: dict[str, FlipSpread] = {}
        self._even = True
        self._passed: set[str] = set()
        self._after: dict[str, frozenset[str]] = {}

    def note_layer(self, layer: str) -> None:
        """A changed layer has run."""
        self._passed.add(layer)

    def note_call(self, neuron: str, steps: int, calls: int) -> None:
        """A neuron is called for so many steps, for the so-many-th time in these samples."""
        self._after.setdefault(neuron, frozenset(self._passed))
        if steps > 1 and calls > 1:
            self._even = False  # it runs over all of time more than once

    def step(self, neuron: str, flipped: Tensor, apart: Tensor, axis: int | None) -> None:
        """`flipped` and |du| of a time step, (N, ...) each; `axis` is that of their channels."""
        steps = self._steps.setdefault(neuron, _Steps())
        steps.places.append(flipped.numel())
        steps.flips.append(flipped.sum(dtype=torch.float64))
        steps.hit.append(flipped.flatten(1).any(1))
        rows = apart.unsqueeze(1) if not axis else apart.movedim(axis, 1)
        steps.apart.append(rows.flatten(2).amax(2) if rows.dim() > 2 else rows)

    def end(self) -> None:
        """Nothing more comes of these samples."""
        steps, self._steps = self._steps, {}
        if len({len(one.hit) for one in steps.values()}) > 1:
            self._even = False  # a neuron that runs twice in a step has no row for each
            return
        touched: Tensor | None = None
        for neuron, one in steps.items():
            own = torch.stack(one.hit)
            above = torch.zeros_like(own) if touched is None else touched
            now = (own | above).cummax(0).values
            earlier = torch.cat([torch.zeros_like(now[:1]), now[:-1]])
            self._add(neuron, one, now, earlier | above)
            touched = now

    def _add(self, neuron: str, one: _Steps, hit: Tensor, before: Tensor) -> None:
        apart = torch.stack(one.apart)
        apart = apart.masked_fill(before.unsqueeze(2), 0).amax(1)
        found = FlipSpread(
            places=torch.tensor(one.places, dtype=torch.float64),
            flips=torch.stack(one.flips).cpu(),
            samples=torch.full((len(hit),), hit.shape[1], dtype=torch.float64),
            hit=hit.sum(1, dtype=torch.float64).cpu(),
            untouched=apart.double().cpu(),
            after=self._after[neuron],
        )
        known = self._found.get(neuron)
        self._found[neuron] = found if known is None else _add_spreads(known, found)

    @property
    def found(self) -> dict[str, FlipSpread]:
        """By neuron, in the order in which they ran; none where their steps cannot be paired."""
        return self._found if self._even else {}


def _add_spreads(one: FlipSpread, other: FlipSpread) -> FlipSpread:
    return FlipSpread(
        places=one.places + other.places,
        flips=one.flips + other.flips,
        samples=one.samples + other.samples,
        hit=one.hit + other.hit,
        untouched=torch.maximum(one.untouched, other.untouched),
        after=one.after,
    )
