"""The smallest cut that keeps within limits on what the kept weights cost.

A price says what each weight costs: 1 of a number of weights, its synaptic operations, their
energy, or its bytes. What goes is what is worth least for its cost, which a Lagrangian says: a
weight goes where it is worth less than its costs times the multipliers of the limits that bind.

To fit a network to a chip's cores, give a `Cap` for each layer and what is scarce there, beside
those of the whole network::

    budget = Budget(
        caps=(
            Cap(name="core memory", price="weights", layer="conv2.weight", most=16_384),
            Cap(name="core operations", price="synops", layer="conv2.weight", most=2e6),
            Cap(name="--max-synops", price="synops", most=5e6),
        ),
        rows={"fc.weight": RowBounds(most=64)},
        least={"conv1.weight": 100},
    )
    found = allocate(worth, prices, budget)

`BudgetCutting` does that with the scores and the weights of a network, in the place of an
allocation, and with whole channels where these are to go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from snnprune.graph.network import Layer
from snnprune.masks import Masks, RowBounds, rank_in_rows, select_in_rows
from snnprune.pruning.allocation import Candidates
from snnprune.pruning.allocation.rules import compute_lamp_levels
from snnprune.pruning.prune import PruneResult
from snnprune.pruning.score import Scores
from snnprune.pruning.structure.channels import ChannelCutting, ChannelGroup, normalise_worth

Prices = Mapping[str, Mapping[str, Tensor]]
"""By the name of a price and weight key: what each weight costs if it is kept, (rows, n) float64
and nowhere below 0. `rows` are output channels."""


Cutting = Callable[[Mapping[str, Tensor], Scores, float, Masks | None], PruneResult]
"""From weights, their scores, a share and what is alive to masks."""


@dataclass(frozen=True, kw_only=True)
class Cap:
    """The most that the kept weights of the network may cost, or of one layer."""

    name: str
    """What it is told as: mostly a flag."""
    price: str
    """Of `Prices`."""
    most: float
    """In the unit of the price."""
    layer: str | None = None
    """A weight key; None: all that is priced."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All limits that a cut has to keep within."""

    caps: tuple[Cap, ...] = ()
    rows: Mapping[str, RowBounds] = field(default_factory=dict)
    """Of the weights of each output channel, by weight key: at most its fan-in."""
    least: Mapping[str, int] = field(default_factory=dict)
    """How many weights of a layer stay, by weight key; without a number one does."""

    def replace_most(self, most: Sequence[float]) -> Budget:
        """The same with other numbers in its caps, in their order."""
        caps = tuple(replace(cap, most=one) for cap, one in zip(self.caps, most, strict=True))
        return replace(self, caps=caps)


@dataclass(frozen=True, kw_only=True)
class Allocated:
    """What a budget leaves."""

    masks: dict[str, Tensor]
    """(rows, n) by weight key."""
    spent: tuple[float, ...]
    """Of each cap, what the kept weights cost."""
    multipliers: tuple[float, ...]
    """Of each cap, the worth that one unit of it is sold for; 0 where it does not bind."""
    shortest: bool
    """Whether all is gone that may go and some cap is exceeded still."""
    narrowed: tuple[str, ...]
    """Keys of layers of which some output channels have as many weights as they may, and had more.
    """


def allocate(worth: Mapping[str, Tensor], prices: Prices, budget: Budget) -> Allocated:
    """Masks that keep within all limits and lose the least worth, to one weight of each limit.

    `worth` (rows, n) is what the loss of each weight costs the network, 0 or more, by weight key;
    -inf says that it is gone already. Each layer keeps one weight, or as many as `least` says.
    """
    problem = _Problem.of(worth, prices, budget)
    multipliers = problem.find_multipliers()
    kept = problem.give_back(problem.keep(multipliers), multipliers)
    spent = problem.sum_spent(kept)
    pieces = kept.split([one.numel() for one in worth.values()])
    masks = {
        key: piece.view(one.shape) for (key, one), piece in zip(worth.items(), pieces, strict=True)
    }
    over = any(one > cap.most for one, cap in zip(spent, budget.caps, strict=True))
    return Allocated(
        masks=masks,
        spent=tuple(spent),
        multipliers=tuple(multipliers),
        shortest=over,
        narrowed=tuple(
            key
            for key, bounds in budget.rows.items()
            if key in masks and _is_narrowed(worth[key], masks[key], bounds)
        ),
    )


def _is_narrowed(worth: Tensor, mask: Tensor, bounds: RowBounds) -> bool:
    """Whether a channel would have more weights without its bound."""
    if bounds.most is None:
        return False
    full = (mask.sum(1) == bounds.most) & ((worth > -torch.inf).sum(1) > bounds.most)
    return bool(full.any())


SWEEPS = 40
"""Over all caps, until their multipliers stand still."""
STILL = 1e-7
"""Relative change of a multiplier that is none."""


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """All weights in one row: min over what goes of its worth, within caps on what stays."""

    worth: Tensor
    """(n,) float64, 0 or more."""
    may_go: Tensor
    """(n,) bool: neither gone for good nor protected."""
    stays: Tensor
    """(n,) bool: protected."""
    costs: tuple[Tensor, ...]
    """Of each cap, of the weights in its place, (m,) float64."""
    places: tuple[slice, ...]
    """Of each cap, where its weights are."""
    most: tuple[float, ...]

    @classmethod
    def of(cls, worth: Mapping[str, Tensor], prices: Prices, budget: Budget) -> _Problem:
        """Bounds of rows and the least of layers settled: what stays, what goes, what may."""
        stays, may_go, places, start = [], [], dict[str | None, slice](), 0
        for key, one in worth.items():
            bounds = budget.rows.get(key, RowBounds())
            first = select_in_rows(one, budget.least.get(key, 1), bounds)
            alive = one > -torch.inf
            if bounds.most is not None:
                alive &= rank_in_rows(one) < bounds.most
            stays.append(first.flatten())
            may_go.append((alive & ~first).flatten())
            places[key] = slice(start, start + one.numel())
            start += one.numel()
        places[None] = slice(0, start)
        return cls(
            worth=torch.cat([one.double().clamp(min=0).flatten() for one in worth.values()]),
            may_go=torch.cat(may_go),
            stays=torch.cat(stays),
            costs=tuple(
                torch.cat(
                    [
                        prices[cap.price][key].double().expand(one.shape).flatten()
                        for key, one in worth.items()
                        if cap.layer in (None, key)
                    ]
                )
                for cap in budget.caps
            ),
            places=tuple(places[cap.layer] for cap in budget.caps),
            most=tuple(cap.most for cap in budget.caps),
        )

    def find_multipliers(self) -> list[float]:
        """Of each cap the least that keeps within it beside the others, found in turn.

        At last they are only raised, so that every cap holds then.
        """
        found = [0.0] * len(self.costs)
        sweeps = 1 if len(found) == 1 else SWEEPS
        for sweep in range(sweeps):
            before = list(found)
            for index in range(len(found)):
                found[index] = self._find_multiplier(found, index)
            moved = max(
                (abs(a - b) / max(a, b) for a, b in zip(found, before, strict=True) if a != b),
                default=0.0,
            )
            if moved < STILL and sweep:
                break
        for index in range(len(found)):
            found[index] = max(found[index], self._find_multiplier(found, index))
        return found

    def _find_multiplier(self, multipliers: Sequence[float], index: int) -> float:
        """The least of one cap with which it holds, given those of the others."""
        place, cost = self.places[index], self.costs[index]
        others = [m if number != index else 0.0 for number, m in enumerate(multipliers)]
        worth, load = self.worth[place], self._sum_load(others, place)
        there = self.may_go[place] & ((worth > load) | (load == 0))
        spent = float(cost[there | self.stays[place]].sum())
        if spent <= self.most[index]:
            return 0.0
        going = there & (cost > 0)
        sold = (worth[going] - load[going]) / cost[going]
        order = sold.argsort(stable=True)
        left = spent - cost[going][order].cumsum(0)
        enough = int((left > self.most[index]).sum())  # places in the order that do not do
        if enough >= len(order):
            return float(sold[order[-1]]) * (1 + 1e-9) + 1e-300 if len(order) else 0.0
        return float(sold[order[enough]]) * (1 + 1e-12) + 1e-300

    def _sum_load(self, multipliers: Sequence[float], place: slice | None = None) -> Tensor:
        """What the costs of each weight in a place, of all, come to in units of worth."""
        place = slice(0, len(self.worth)) if place is None else place
        load = torch.zeros_like(self.worth[place])
        for multiplier, cost, other in zip(multipliers, self.costs, self.places, strict=True):
            start, stop = max(place.start, other.start), min(place.stop, other.stop)
            if multiplier and start < stop:
                part = cost[start - other.start : stop - other.start]
                load[start - place.start : stop - place.start] += multiplier * part
        return load

    def keep(self, multipliers: Sequence[float]) -> Tensor:
        """What stays where weights go that are worth no more than their load, (n,) bool."""
        load = self._sum_load(multipliers)
        return self.stays | (self.may_go & ((self.worth > load) | (load == 0)))

    def give_back(self, kept: Tensor, multipliers: Sequence[float]) -> Tensor:
        """`kept` with what fits in again, from what is worth most for its load.

        Of equals, which all go at one multiplier, the later ones come back.
        """
        load = self._sum_load(multipliers)
        waiting = (self.may_go & ~kept).nonzero().squeeze(1).flip(0)
        order = waiting[(self.worth[waiting] / load[waiting]).argsort(descending=True, stable=True)]
        rooms = [most - one for most, one in zip(self.most, self.sum_spent(kept), strict=True)]
        whole = slice(0, len(self.worth))
        fits = torch.ones_like(order, dtype=torch.bool)
        for cost, place, room in zip(self.costs, self.places, rooms, strict=True):
            if place != whole:
                there = (order >= place.start) & (order < place.stop)
                fits[there] &= cost[order[there] - place.start].cumsum(0) <= max(room, 0.0)
        order = order[fits]
        for cost, place, room in zip(self.costs, self.places, rooms, strict=True):
            if place == whole:
                order = order[: int((cost[order].cumsum(0) <= max(room, 0.0)).sum())]
        kept = kept.clone()
        kept[order] = True
        return kept

    def sum_spent(self, kept: Tensor) -> list[float]:
        """What the kept weights cost, of each cap."""
        return [
            float(cost[kept[place]].sum())
            for cost, place in zip(self.costs, self.places, strict=True)
        ]


def compute_worth(candidates: Candidates) -> dict[str, Tensor]:
    """What the loss of each weight costs, in its parameter's form, float64; -inf where it is gone.

    The share of w^2 that it has in its layer's, of what does not go before it (Lee et al. 2021,
    arXiv 2010.07611): to lose it takes that much off the logarithm of the layer's energy, so that
    the least loss keeps most of the product of all layers' energies. Which weights of a layer go
    first, the scores say, and what they are worth then, the magnitudes.
    """
    found = {}
    for key, size in candidates.magnitudes.items():
        queue = candidates.order_alive(key)
        rising = size.flatten().double()[queue].sort().values
        worth = torch.full((size.numel(),), -torch.inf, dtype=torch.float64)
        worth[queue] = compute_lamp_levels(2 * rising.log()).exp()
        found[key] = worth.view(size.shape)
    return found


class BudgetCutting:
    """Cuts to a budget, in the place of an allocation; a `Cutting` of `snnprune.pruning.oneshot`.

    Without a `path` by `allocate`. With a `ChannelCutting` by `allocate` too, of whole channels and
    not of weights, each of which costs what goes with it: the weights that make its current and
    those that read its spikes. With any other path, which is a `Cutting` too, as little as does it
    along that: to the lowest of a thousand shares at which all caps hold and no channel has more
    weights than it may. The least that layers and channels keep is not looked at along a path.
    """

    def __init__(
        self,
        budget: Budget,
        prices: Prices,
        layers: Mapping[str, Layer] | None = None,
        *,
        path: Cutting | None = None,
    ) -> None:
        """`prices` are of weights (out, in / groups, *kernel) or broadcast to them.

        `layers` say how parameters lie to weights; without them each is its weight.
        """
        self.budget, self.prices, self.layers, self.path = budget, prices, layers or {}, path
        self.bound: tuple[bool, ...] = ()
        """Of each cap, whether it made the last cut larger."""
        self.narrowed: tuple[str, ...] = ()
        """Keys of layers that bounds of their channels took weights from."""
        self.masks: Masks = {}
        """What the last cut was, before any repair."""
        self.shortest = False
        """Whether all went that may go, and a cap is exceeded still."""

    def __call__(
        self, weights: Mapping[str, Tensor], scores: Scores, _: float, alive: Masks | None
    ) -> PruneResult:
        """The masks that the budget leaves."""
        if isinstance(self.path, ChannelCutting):
            cut = self._cut_channels(self.path, weights, scores, alive)
        elif self.path is not None:
            cut = self._cut_along(self.path, weights, scores, alive)
        else:
            cut = self._cut_by_worth(weights, scores, alive)
        self.masks = cut.masks
        return cut

    def _cut_by_worth(
        self, weights: Mapping[str, Tensor], scores: Scores, alive: Masks | None
    ) -> PruneResult:
        candidates = Candidates(
            scores=scores.of(weights).values,
            magnitudes={key: weight.detach().double().abs() for key, weight in weights.items()},
            criterion=scores.criterion,
            alive=None if alive is None else {key: alive[key] for key in weights},
        )
        worth = {key: self._weight(key, one) for key, one in compute_worth(candidates).items()}
        found = allocate(
            {key: one.flatten(1) for key, one in worth.items()},
            self._price_rows({key: one.shape for key, one in worth.items()}),
            self.budget,
        )
        self.bound = tuple(one > 0 for one in found.multipliers)
        self.narrowed, self.shortest = found.narrowed, found.shortest
        masks = {
            key: self._parameter(key, found.masks[key].view(one.shape))
            for key, one in worth.items()
        }
        zeros = candidates.count_pruned_already(candidates.keys)
        return PruneResult(masks=masks, already_zero=zeros)

    def _cut_channels(
        self,
        channels: ChannelCutting,
        weights: Mapping[str, Tensor],
        scores: Scores,
        alive: Masks | None,
    ) -> PruneResult:
        """Cut as few channels as do it.

        Where what makes a current and what it comes from both go, its weights are counted twice:
        so the caps are drawn tighter by what they are exceeded by, until they hold.
        """
        layers = channels.network.layers
        masks = {k: w != 0 if alive is None else alive[k] for k, w in weights.items()}
        groups = channels.find_groups(weights)
        worth = channels.score_groups(weights, scores)
        ranked = {key: normalise_worth(one).unsqueeze(1) for key, one in worth.items()}
        least = {key: int(one.isinf().sum()) for key, one in ranked.items()}
        whole = self._price_rows({key: layers[key].weight_of(m).shape for key, m in masks.items()})
        caps = [*self.budget.caps, *self._cap_widths()]
        units = {
            str(number): {
                group.layers[0]: _price_channels(group, layers, masks, cap, whole).unsqueeze(1)
                for group in groups
            }
            for number, cap in enumerate(caps)
        }
        spent = [_sum_cap(cap, whole, layers, masks) for cap in caps]
        fixed = [
            one - sum(float(part.sum()) for part in units[str(number)].values())
            for number, one in enumerate(spent)
        ]
        tight = [0.0] * len(caps)
        for _ in range(TIGHTENED):
            problem = Budget(
                caps=tuple(
                    Cap(name=cap.name, price=str(n), most=cap.most - fixed[n] - tight[n])
                    for n, cap in enumerate(caps)
                ),
                least=least,
            )
            found = allocate(ranked, units, problem)
            kept = {key: mask.squeeze(1) for key, mask in found.masks.items()}
            cut = channels.remove(kept, weights, alive)
            over = [max(0.0, _sum_cap(cap, whole, layers, cut.masks) - cap.most) for cap in caps]
            if not any(over) or found.shortest:
                break
            tight = [a + b for a, b in zip(tight, over, strict=True)]
        self.shortest = any(over)
        bound = [one > 0 for one in found.multipliers]
        self.bound = tuple(bound[: len(self.budget.caps)])
        self.narrowed = tuple(
            cap.layer or ""
            for cap, one in zip(caps, bound, strict=True)
            if one and cap.price == WIDTH
        )
        return cut

    def _cap_widths(self) -> list[Cap]:
        """The bounds of rows as caps on the widest of each layer."""
        return [
            Cap(name=WIDTH, price=WIDTH, layer=key, most=bounds.most)
            for key, bounds in self.budget.rows.items()
            if bounds.most is not None
        ]

    def _cut_along(
        self, path: Cutting, weights: Mapping[str, Tensor], scores: Scores, alive: Masks | None
    ) -> PruneResult:
        """Cut to the lowest share that does it, by bisection."""
        shapes = {key: self._weight(key, weight).shape for key, weight in weights.items()}
        prices = self._price_rows(shapes)

        def find_exceeded(share: int) -> tuple[bool, ...]:
            masks = path(weights, scores, share / SHARES, alive).masks
            rows = {key: self._weight(key, mask).flatten(1) for key, mask in masks.items()}
            over = (cap.most < sum_spent(cap, prices, rows) for cap in self.budget.caps)
            wide = (is_too_wide(one, self.budget.rows.get(key)) for key, one in rows.items())
            return (*over, any(wide))

        holds, fails, exceeded = SHARES, -1, (False,) * (len(self.budget.caps) + 1)
        while holds - fails > 1:
            middle = (holds + fails) // 2
            if any(found := find_exceeded(middle)):
                fails, exceeded = middle, found
            else:
                holds = middle
        self.shortest = holds == SHARES
        self.bound = exceeded[:-1]
        self.narrowed = tuple(self.budget.rows) if exceeded[-1] else ()
        return path(weights, scores, min(holds, SHARES - 1) / SHARES, alive)

    def _price_rows(self, shapes: Mapping[str, Sequence[int]]) -> Prices:
        return {
            name: {key: by_key[key].expand(*shape).flatten(1) for key, shape in shapes.items()}
            for name, by_key in self.prices.items()
        }

    def _weight(self, key: str, held: Tensor) -> Tensor:
        layer = self.layers.get(key)
        return held if layer is None else layer.weight_of(held)

    def _parameter(self, key: str, weight: Tensor) -> Tensor:
        layer = self.layers.get(key)
        return weight if layer is None else layer.parameter_of(weight)


WIDTH = "width"
"""Price of a cap on the most weights of any output channel of a layer."""
TIGHTENED = 30
"""Tries of a cut of channels."""


def _price_channels(
    group: ChannelGroup, layers: Mapping[str, Layer], masks: Masks, cap: Cap, prices: Prices
) -> Tensor:
    """What goes of a cap with each channel of a group alone, (channels,) float64."""
    found = torch.zeros(group.channels, dtype=torch.float64)
    for key in {*group.layers, *group.readers} & masks.keys():
        if cap.layer not in (None, key):
            continue
        weight = layers[key].weight_of(masks[key])
        if cap.price == WIDTH:
            costs = weight.double()
        else:
            costs = prices[cap.price][key].view(weight.shape) * weight
        if key in group.layers and cap.price != WIDTH:
            found += costs.flatten(1).sum(1)
        if key in group.readers and weight.shape[1] % group.channels == 0:
            by_channel = costs.unflatten(1, (group.channels, -1)).flatten(2)
            each = by_channel.sum(2)
            found += each.amax(0) if cap.price == WIDTH else each.sum(0)
    return found


def _sum_cap(cap: Cap, prices: Prices, layers: Mapping[str, Layer], masks: Masks) -> float:
    """What the kept weights cost of a cap, which may be one on the width of a layer."""
    keys = [key for key in masks if cap.layer in (None, key)]
    rows = {key: layers[key].weight_of(masks[key]).flatten(1) for key in keys}
    if cap.price == WIDTH:
        return float(max((int(one.sum(1).max()) for one in rows.values()), default=0))
    return sum_spent(cap, prices, rows)


SHARES = 1000
"""Steps of a path between nothing and all."""


def sum_spent(cap: Cap, prices: Prices, rows: Masks) -> float:
    """What the kept weights of `rows` (rows, n) cost of one cap."""
    return sum(
        float(prices[cap.price][key][mask].sum())
        for key, mask in rows.items()
        if cap.layer in (None, key)
    )


def is_too_wide(rows: Tensor, bounds: RowBounds | None) -> bool:
    """Whether a channel of a mask (rows, n) has more weights than it may."""
    most = None if bounds is None else bounds.most
    return most is not None and bool((rows.sum(1) > most).any())
