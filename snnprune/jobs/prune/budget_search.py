"""The smallest cut that keeps within all limits, predicted, made and measured in turn.

What the kept weights cost is predicted from one pass of the dense network over the calibration
images. Where less of a network is left its rates are others: so each layer's prediction is
corrected by what was measured of the last try. What is measured is measured on the images of the
gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from snnprune.checkpoint.containers import SAFETENSORS
from snnprune.errors import GateError, InputError, layer_name
from snnprune.jobs.check import count_rows
from snnprune.jobs.prune.budgets import (
    RUN,
    SIZE,
    SYNOPS,
    UNITS,
    WEIGHTS,
    BudgetLimit,
    BudgetResult,
    BudgetTry,
    LayerOperations,
    Spending,
)
from snnprune.jobs.prune.measuring import NetworkResult
from snnprune.jobs.prune.pruned_model import PrunedModel
from snnprune.jobs.prune.target_sparsity import choose_validation
from snnprune.jobs.prune.work import PruneJob
from snnprune.jobs.targets.binding import load_tensors
from snnprune.masks import Masks, count_kept, count_prunable
from snnprune.measure import Energy
from snnprune.measure.uses import WeightUses, measure_uses
from snnprune.pruning.budget import Budget, BudgetCutting, Cap
from snnprune.pruning.structure import UNSTRUCTURED

TOLERANCE = 0.01
"""Of a limit that is measured: what is written is no further below it, if tries suffice."""
TRIES, TUNED_TRIES = 12, 6
LEARNT = 2
"""Tries that layers' costs are learnt from."""


@dataclass(frozen=True, kw_only=True)
class _Try:
    """A try, and all that is known of it."""

    model: PrunedModel
    cutting: BudgetCutting
    spending: Spending
    aimed: float | None
    """Operations of a sample, as they were predicted."""
    met: bool

    def count_kept(self) -> int:
        """Weights."""
        return count_kept(self.model.cut.masks)


@dataclass(kw_only=True)
class _Aim:
    """What all measured caps are multiplied by, so that what is measured comes to `goal` of them.

    The greatest share that was measured is taken to rise with it; between one that was too much and
    one that was too little it is interpolated.
    """

    goal: float
    low: tuple[float, float] | None = None
    """What kept within the caps, and the share that was measured then."""
    high: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self.now = self.goal

    def move(self, share: float, *, met: bool) -> None:
        """Go on from the `share` that was measured."""
        if met:
            self.low = (self.now, share)
        else:
            self.high = (self.now, share)
        if self.low is None or self.high is None:
            self.now *= self.goal / share
            return
        (below, less), (above, more) = self.low, self.high
        way = (self.goal - less) / (more - less) if more > less else 0.5
        self.now = below + (above - below) * min(0.8, max(0.2, way))


class BudgetSearch:
    """Looks for the smallest cut of a checkpoint that keeps within a budget."""

    def __init__(self, job: PruneJob, budget: Budget, before: NetworkResult | None) -> None:
        """`before` is what was measured of the dense network."""
        self.job, self.budget, self.before = job, budget, before
        self.network = job.target.network
        self.weights = job.target.find_weights()
        self.uses = self._measure_uses()
        self.corrections: dict[str, float] = {}
        """By layer: operations as measured over those that the calibration predicts."""
        self.around = 0.0
        """Bytes of the file beside the values of kept weights."""

    def run(self) -> tuple[BudgetResult, PrunedModel]:
        """How the cut was found, and the network.

        Raises:
            GateError: the limits cannot be met, or an accuracy that was asked for is not held.
            InputError: the file is to be smaller, and is of a kind that pruning makes no smaller.
        """
        masks = {key: weight != 0 for key, weight in self.weights.items()}
        dense = self._spend(masks, self.before, lambda: self.dense)
        if self._keeps(dense):
            return self._describe([], dense, dense), self.dense
        self.job.packs = self._would_pack(dense)
        tries = list(self._iter_tries(dense))
        best = max((one for one in tries if one.met), key=_Try.count_kept, default=None)
        if best is None:
            raise self._make_error(tries)
        self._require_accuracy(best.model)
        return self._describe(tries, dense, best.spending, best), best.model

    @cached_property
    def dense(self) -> PrunedModel:
        """The network as it is."""
        return self.job.leave_dense()

    def _iter_tries(self, dense: Spending) -> Iterator[_Try]:
        """Each by what those before measured, until one is tight or nothing more can go.

        What a layer costs is learnt from the first `LEARNT` of them. Where rates swing as weights
        go, that may swing too: so then it stays, and all caps are moved together between what was
        too much and what was too little.
        """
        measured = any(cap.price != WEIGHTS for cap in self.budget.caps)
        self._learn(dense, dense.masks)
        aim, seen = _Aim(goal=1 - TOLERANCE / 2 if measured else 1.0), list[Masks]()
        for number in range(TUNED_TRIES if self.job.choice.plan.tunes else TRIES):
            cutting = self._make_cutting(aim.now)
            masks = cutting(self.weights, self.job.scores, 0.0, None).masks
            if any(_are_alike(masks, other) for other in seen):
                return  # weights are too few to come any nearer
            seen.append(masks)
            one = self._try(cutting)
            yield one
            if not measured or (one.cutting.shortest and not one.met):
                return
            if one.met and self._is_tight(one, all_of_them=number < LEARNT):
                return
            if number < LEARNT:
                self._learn(one.spending, one.cutting.masks, share=1.0 if number == 0 else 0.5)
            else:
                aim.move(self._count_worst(one), met=one.met)

    def _try(self, cutting: BudgetCutting) -> _Try:
        """Cut, repair and measure."""
        model = self.job.prune_within(cutting, self.budget.rows)
        look = self.job.measuring.measure("measuring")
        found = self._spend(model.cut.masks, look, lambda: model)
        aimed = self._predict(cutting.masks, self.corrections)
        return _Try(
            model=model,
            cutting=cutting,
            spending=found,
            aimed=sum(aimed.values()) if aimed else None,
            met=self._keeps(found),
        )

    # what is known of costs

    def _measure_uses(self) -> WeightUses | None:
        """How often the dense network uses each weight; None where no cap asks for it."""
        job = self.job
        if all(cap.price not in RUN for cap in self.budget.caps):
            return None
        job.one_shot.restore()
        with job.cost.stage("calibration"):
            batches = job.target.calibration_batches().track(job.progress, "counting operations")
            return measure_uses(job.target.require_runnable(), batches)

    def _price(self, price: str, key: str) -> Tensor:
        """Of each weight of a layer by the dense network's rates; one number where it is alike."""
        if price not in RUN:
            size = 1 if price == WEIGHTS else self.weights[key].element_size()
            return torch.tensor(float(size), dtype=torch.float64)
        assert self.uses is not None
        assert self.network is not None
        if key not in self.uses.shapes:
            return torch.zeros((), dtype=torch.float64)
        energy = Energy(mac=1.0, ac=1.0) if price == SYNOPS else self.job.options.energy
        costs, shape = self.uses.price(key, energy), self.network.layers[key].shape
        # of a weight that is applied piece by piece nobody knows which piece is used how often
        return (
            costs if costs.shape == torch.Size(shape) else costs.sum() / torch.Size(shape).numel()
        )

    def _predict(
        self, masks: Masks, corrections: Mapping[str, float], price: str = SYNOPS
    ) -> dict[str, float]:
        """Of each layer and a sample; empty where nothing is run."""
        if self.uses is None or self.network is None:
            return {}
        found = {}
        for key in self.uses.shapes:
            layer = self.network.layers[key]
            alive = masks[key] if key in masks else self.network.weight(key).cpu() != 0
            cost = (self._price(price, key) * layer.weight_of(alive)).sum()
            found[key] = float(cost) * corrections.get(key, 1.0)
        return found

    def _learn(self, measured: Spending, masks: Masks, *, share: float = 1.0) -> None:
        """Correct the predictions for `masks` by what was measured of what became of them.

        By a `share` of what that asks for, in logarithms.
        """
        for key, one in self._predict(masks, {}).items():
            found = measured.count_operations(key) / measured.samples if key in measured.work else 0
            if one > 0 and found > 0:
                before = self.corrections.get(key, 1.0)
                self.corrections[key] = before * (found / one / before) ** share
        values = sum(int(mask.sum()) * self._price(SIZE, key) for key, mask in masks.items())
        self.around = measured.size - float(values)

    def _make_cutting(self, aim: float) -> BudgetCutting:
        """What cuts to `aim` times the caps, less what pruning does not change."""
        layers = None if self.network is None else self.network.layers
        prices = {
            price: {
                key: self._price(price, key)
                * (self.corrections.get(key, 1.0) if price in RUN else 1.0)
                for key in self.weights
            }
            for price in {cap.price for cap in self.budget.caps}
        }
        most = [self._count_left(cap, aim) for cap in self.budget.caps]
        return BudgetCutting(
            self.budget.replace_most(most), prices, layers, path=self.job.find_path()
        )

    def _count_left(self, cap: Cap, aim: float) -> float:
        """What a cap leaves to the weights that may be pruned."""
        if cap.price == WEIGHTS:
            return cap.most
        if cap.price == SIZE:
            return cap.most * aim - self.around
        others = self._predict({}, self.corrections, cap.price) if cap.layer is None else {}
        return cap.most * aim - sum(one for key, one in others.items() if key not in self.weights)

    # what was measured

    def _spend(
        self, masks: Masks, look: NetworkResult | None, model: Callable[[], PrunedModel]
    ) -> Spending:
        """What a network costs that was looked at; the `model` is asked for where its size is."""
        work = None if look is None else look.workload
        sized = any(cap.price == SIZE for cap in self.budget.caps)
        return Spending(
            masks=masks,
            work={} if work is None else work.layers,
            samples=1 if look is None else look.evaluation.samples,
            size=self.job.measure_size(model()) if sized else 0,
        )

    def _count_spent(self, spending: Spending) -> list[float]:
        energy = self.job.options.energy
        return [spending.sum_spent(cap, energy) for cap in self.budget.caps]

    def _would_pack(self, dense: Spending) -> bool:
        """Whether the file has to be packed: it is to be smaller, and zeros take room in it.

        Raises:
            InputError: it is of a kind that pruning makes no smaller.
        """
        structure, out = self.job.structure.name, self.job.options.out
        sizes = [cap for cap in self.budget.caps if cap.price == SIZE and cap.most < dense.size]
        if not sizes:
            return False
        if out.suffix.lower() not in SAFETENSORS:
            raise InputError(
                "zeros take as much room in it as weights, so that no pruning makes it smaller",
                field="--out",
                hint=f"name it {out.stem}.safetensors",
            )
        return structure == UNSTRUCTURED

    def _keeps(self, spending: Spending) -> bool:
        """Whether it is within all limits."""
        spent = zip(self._count_spent(spending), self.budget.caps, strict=True)
        return all(one <= cap.most for one, cap in spent) and not self._find_too_wide(spending)

    def _find_too_wide(self, spending: Spending) -> list[str]:
        """Layers of which an output channel has more weights than it may."""
        rows = count_rows(spending.masks, self.network)
        return [
            key
            for key, bounds in self.budget.rows.items()
            if bounds.most is not None and rows[key].most > bounds.most
        ]

    def _is_tight(self, one: _Try, *, all_of_them: bool) -> bool:
        """Whether the caps that bind and are measured are nearly used up, or the first of them."""
        used = self._find_used(one)
        return not used or (min(used) if all_of_them else max(used)) >= 1 - TOLERANCE

    def _find_used(self, one: _Try) -> list[float]:
        """The shares of the caps that bind and are measured, as far as they are used."""
        caps = zip(
            self._count_spent(one.spending), self.budget.caps, one.cutting.bound, strict=True
        )
        return [_share(spent, cap) for spent, cap, bound in caps if bound and cap.price != WEIGHTS]

    def _count_worst(self, one: _Try) -> float:
        """The greatest share of a measured cap that is used, bound or not."""
        caps = zip(self._count_spent(one.spending), self.budget.caps, strict=True)
        return max(_share(spent, cap) for spent, cap in caps if cap.price != WEIGHTS)

    def _require_accuracy(self, model: PrunedModel) -> None:
        """Refuse a cut that loses more than was allowed for, on the images of a search.

        Raises:
            GateError: it does.
        """
        job, wanted = self.job, self.job.options.accuracy_target
        if wanted is None:
            return
        validation = choose_validation(job.target, job.calibration, job.options.eval_samples)
        job.notes = [*job.notes, *validation.list_warnings(job.target.noun)]
        module = job.target.require_runnable().module
        load_tensors(module, self.dense.tensors)
        dense, images = job.measure_accuracy(validation)
        load_tensors(module, model.tensors)
        found, _ = job.measure_accuracy(validation)
        if found < wanted.below(dense) - 1e-12:
            raise GateError(
                f"{wanted.below(dense):.2%} is not held within the limits: the smallest cut has "
                f"{found:.2%}, the dense network {dense:.2%} on {images:,} {validation.split} "
                f"{job.target.noun}",
                field=wanted.flag,
            )

    def _make_error(self, tries: Sequence[_Try]) -> GateError:
        """By how much the limits are not met by the try that comes nearest."""
        caps = self.budget.caps

        def find_worst(one: _Try) -> tuple[float, float, Cap]:
            spent = zip(self._count_spent(one.spending), caps, strict=True)
            over = [(_share(part, cap), part, cap) for part, cap in spent]
            return max(over, key=lambda found: found[0])

        nearest = min(tries, key=lambda one: find_worst(one)[0])
        _, spent, cap = find_worst(nearest)
        if spent <= cap.most:
            names = ", ".join(map(layer_name, self._find_too_wide(nearest.spending)))
            return GateError(f"cannot be met in {names}", field="--max-fan-in")
        where = "" if cap.layer is None else f" of {layer_name(cap.layer)}"
        least = (
            "the least there is" if nearest.cutting.shortest else f"the best of {len(tries)} tries"
        )
        return GateError(
            f"cannot be met: {spent:,.0f} {UNITS[cap.price]}{where} are {least}, "
            f"{spent - cap.most:,.0f} too many",
            field=cap.name,
        )

    def _describe(
        self, tries: Sequence[_Try], dense: Spending, last: Spending, best: _Try | None = None
    ) -> BudgetResult:
        energy, caps = self.job.options.energy, self.budget.caps
        first = tries[0].cutting.masks if tries else dense.masks
        predicted = [self._foresee(cap, first) for cap in caps]
        bound = best.cutting.bound if best else (False,) * len(caps)
        operations = self._predict(last.masks, {})
        return BudgetResult(
            limits=tuple(
                BudgetLimit(
                    name=cap.name,
                    layer=cap.layer,
                    unit=UNITS[cap.price],
                    most=cap.most,
                    dense=dense.sum_spent(cap, energy),
                    predicted=foreseen,
                    measured=last.sum_spent(cap, energy),
                    bound=binds,
                )
                for cap, foreseen, binds in zip(caps, predicted, bound, strict=True)
            ),
            narrowed=best.cutting.narrowed if best else (),
            tries=tuple(map(_describe_try, tries)),
            layers={
                key: LayerOperations(
                    predicted=one, measured=last.count_operations(key) / last.samples
                )
                for key, one in operations.items()
                if key in last.work
            },
            tolerance=TOLERANCE,
            images=self.job.target.measured if last.work else None,
        )

    def _foresee(self, cap: Cap, masks: Masks) -> float | None:
        """What the calibration alone says that a cut costs; None of bytes."""
        if cap.price == SIZE:
            return None
        if cap.price == WEIGHTS:
            return Spending(masks=masks).sum_spent(cap, self.job.options.energy)
        found = self._predict(masks, {}, cap.price)
        return sum(one for key, one in found.items() if cap.layer in (None, key))


def _share(spent: float, cap: Cap) -> float:
    """How much of a cap is used."""
    return spent / cap.most if cap.most else 1.0 + spent


def _are_alike(one: Masks, other: Masks) -> bool:
    return all(torch.equal(mask, other[key]) for key, mask in one.items())


def _describe_try(one: _Try) -> BudgetTry:
    kept, of = one.count_kept(), count_prunable(one.model.cut.masks)
    work = one.spending
    operations = sum(map(work.count_operations, work.work)) / work.samples if work.work else None
    return BudgetTry(
        kept=kept,
        sparsity=(of - kept) / of,
        predicted=one.aimed,
        measured=operations,
        met=one.met,
    )
