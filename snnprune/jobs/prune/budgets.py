"""Budgets: what the limits of a command line say of a network, and what a cut costs of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from snnprune.jobs.prune.pruned_model import PrunedModel
from snnprune.jobs.prune.work import PruneJob
from snnprune.masks import Masks, RowBounds, count_kept
from snnprune.measure import Energy, Natural, Share
from snnprune.measure.workload import LayerWork
from snnprune.pruning.budget import Budget, BudgetCutting, Cap
from snnprune.report.gates import count_most
from snnprune.report.verdicts import Limit

WEIGHTS, SYNOPS, ENERGY, SIZE = "weights", "synops", "energy", "size"
UNITS = {WEIGHTS: "weights", SYNOPS: "operations", ENERGY: "pJ", SIZE: "bytes"}
"""Of each price: those of synops and energy are of one sample."""
RUN = (SYNOPS, ENERGY)
"""What running the network tells."""
CAPS = {"max-weights": WEIGHTS, "max-synops": SYNOPS, "max-energy": ENERGY, "max-size": SIZE}


def make_budget(limits: Sequence[Limit], weights: Mapping[str, Tensor]) -> Budget:
    """What the limits of a command line say of a network with these weights."""
    given = {one.gate.name: one for one in limits}
    caps = [
        Cap(name=given[name].gate.flag, price=price, most=float(given[name].value))
        for name, price in CAPS.items()
        if name in given
    ]
    if (each := given.get("max-layer-synops")) is not None:
        most = float(each.value)
        caps += [Cap(name=each.gate.flag, price=SYNOPS, most=most, layer=key) for key in weights]
    widest, fewest = given.get("max-fan-in"), given.get("min-per-channel")
    bounds = RowBounds(
        least=0 if fewest is None else int(fewest.value),
        most=None if widest is None else int(widest.value),
    )
    sparsest = given.get("max-layer-sparsity")
    sizes = {key: weight.numel() for key, weight in weights.items()}
    return Budget(
        caps=tuple(caps),
        rows=dict.fromkeys(weights, bounds) if bounds != RowBounds() else {},
        least={}
        if sparsest is None
        else {key: size - count_most(sparsest.value, size) for key, size in sizes.items()},
    )


def make_keeping(job: PruneJob) -> tuple[Callable[[float], PrunedModel], float]:
    """What makes the network of a sparsity beside limits on what stays, and the highest it may be.

    Weights cost one each then, so that layers are shared out as by `lamp-magnitude`.
    """
    weights = job.target.find_weights()
    budget = make_budget(job.options.kept_by_layer, weights)
    total = sum(weight.numel() for weight in weights.values())
    prices = {WEIGHTS: dict.fromkeys(weights, torch.ones((), dtype=torch.float64))}
    layers = None if job.target.network is None else job.target.network.layers

    def cut(kept: int) -> BudgetCutting:
        cap = Cap(name="--sparsity", price=WEIGHTS, most=kept)
        return BudgetCutting(replace(budget, caps=(cap,)), prices, layers)

    def make(sparsity: float) -> PrunedModel:
        return job.prune_within(cut(total - round(sparsity * total)), budget.rows)

    least = count_kept(cut(0)(weights, job.scores, 0.0, None).masks)
    return make, 1 - least / total


@dataclass(frozen=True, kw_only=True)
class BudgetLimit:
    """A cap, and what became of it."""

    name: str
    """As `--max-synops`."""
    layer: str | None
    """Of which layer; None: of all."""
    unit: str
    most: float
    dense: float
    """Before pruning."""
    predicted: float | None
    """Before anything was run, of the first try: from the calibration alone; None of bytes."""
    measured: float
    bound: bool
    """Whether the cut would be smaller without it."""


@dataclass(frozen=True, kw_only=True)
class BudgetTry:
    """A cut that was made and measured."""

    kept: Natural
    sparsity: Share
    predicted: float | None
    """Synaptic operations of a sample, as corrected by the tries before; None: nothing is run."""
    measured: float | None
    met: bool


@dataclass(frozen=True, kw_only=True)
class LayerOperations:
    """Synaptic operations of a sample in one layer of what was written."""

    predicted: float
    """Of its masks, from the calibration of the dense network alone."""
    measured: float


@dataclass(frozen=True, kw_only=True)
class BudgetResult:
    """How the cut was found."""

    limits: tuple[BudgetLimit, ...]
    narrowed: tuple[str, ...]
    """Keys of layers that lost weights to `--max-fan-in`."""
    tries: tuple[BudgetTry, ...]
    """Empty where the network keeps within all limits as it is."""
    layers: Mapping[str, LayerOperations]
    """By weight key; empty where nothing is run."""
    tolerance: Share
    images: str | None
    """The split that was measured on."""

    @property
    def bound(self) -> tuple[str, ...]:
        """The names of the limits that decided, each once."""
        names = dict.fromkeys(one.name for one in self.limits if one.bound)
        return (*names, *(("--max-fan-in",) if self.narrowed else ()))

    def report(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What a network costs as it was measured."""

    masks: Masks
    work: Mapping[str, LayerWork] = field(default_factory=dict)
    """Over all samples, by weight key."""
    samples: int = 1
    size: int = 0
    """Bytes of its file."""

    def sum_spent(self, cap: Cap, energy: Energy) -> float:
        """Of a cap, in its unit."""
        if cap.price == SIZE:
            return float(self.size)
        found = self.masks if cap.price == WEIGHTS else self.work
        keys = [key for key in found if cap.layer in (None, key)]
        if cap.price == WEIGHTS:
            return float(sum(int(self.masks[key].sum()) for key in keys))
        if cap.price == ENERGY:
            return sum(energy.of(self.work[key]) for key in keys) / self.samples
        return sum(map(self.count_operations, keys)) / self.samples

    def count_operations(self, key: str) -> int:
        """Of one layer, over all samples."""
        return self.work[key].macs + self.work[key].acs
