"""A trained network that is pruned at once, as often as one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.errors import InputError
from snnprune.graph.forward import Batch, Forward
from snnprune.graph.network import Network
from snnprune.graph.state import copy_tensors
from snnprune.masks import Masks, RowBounds, apply_masks, count_prunable, count_pruned
from snnprune.measure.agreement_pass import measure_agreements
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration
from snnprune.pruning.allocation import load_allocation, require_sparsity, warn_of_zeros
from snnprune.pruning.allocation.rules import compute_flip_energies, find_weight_indices
from snnprune.pruning.criteria import Criterion, load_criterion
from snnprune.pruning.prune import PruneResult, prune
from snnprune.pruning.repair import (
    TUNE,
    WITHOUT_STATISTICS,
    CostEstimate,
    Pruned,
    TuneOutcome,
    TuneSettings,
    load_repairs,
    require_bits,
    silence,
)
from snnprune.pruning.repair.quantize import Per, Quantized, quantize, quantize_by_rounding
from snnprune.pruning.score import EvidenceSource, Scores, score_network
from snnprune.runtime import SILENT, Progress

if TYPE_CHECKING:
    from snnprune.pruning.allocation import Allocation
    from snnprune.pruning.repair import Repair


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Names of what does it."""

    criterion: str
    allocation: str | None = None
    """None takes the one that fits the scores."""
    repair: str = "none"
    """One, or several in turn as `obs+tune`."""
    steps: int = 1
    """From 2 on the network is ranked and repaired again on the way."""
    tuning: TuneSettings = field(default_factory=TuneSettings)
    bits: int | None = None
    """Of the grid that kept weights are put on at last; None leaves them as they are."""
    per: Per = "channel"
    """What has one scale on that grid."""

    @property
    def tunes(self) -> bool:
        """Whether `tune` takes the last weights."""
        return TUNE in self.repair.split("+")

    def path(self, sparsity: float, *, first: float = 0.0) -> list[float]:
        """The sparsity after each step, from what is pruned at `first`: the same share each time.

        What is left shrinks by the same factor at each step, as in iterative pruning.
        """
        kept, left = 1 - first, 1 - sparsity
        steps = range(1, self.steps)
        return [*(1 - kept * (left / kept) ** (n / self.steps) for n in steps), sparsity]

    def load(self) -> LoadedPlan:
        """What the names stand for, each loaded once.

        Raises:
            InputError: criterion, allocation or repair cannot be had.
        """
        return LoadedPlan(
            names=self,
            criterion=load_criterion(self.criterion),
            allocation=None if self.allocation is None else load_allocation(self.allocation),
            repairs=load_repairs(self.repair),
        )


@dataclass(frozen=True, kw_only=True)
class LoadedPlan:
    """What a `Plan` names, loaded."""

    names: Plan
    criterion: Criterion
    allocation: Allocation | None
    """None takes the one that fits the scores."""
    repairs: tuple[Repair, ...]

    @property
    def needs_statistics(self) -> bool:
        """Whether something of it looks at statistics of the dense network's neurons."""
        looking = {*self.names.repair.split("+")} - WITHOUT_STATISTICS
        return bool(looking) or self.criterion.needs != "weight" or self.names.allocation == "flips"

    def load(self) -> LoadedPlan:
        """The same: it is loaded already."""
        return self

    def change(self, names: Plan) -> LoadedPlan:
        """Another plan; where criterion, allocation and repair stay, they are not loaded again.

        Raises:
            InputError: as `Plan.load`.
        """
        alike = all(
            getattr(names, part) == getattr(self.names, part)
            for part in ("criterion", "allocation", "repair")
        )
        return replace(self, names=names) if alike else names.load()


BEGIN = 0.5
"""The sparsity from which `tune` goes on: up to there nothing is lost."""

Cutting = Callable[[Mapping[str, Tensor], Scores, float, Masks | None], PruneResult]
"""From weights, their scores, a sparsity and what is alive to masks."""


class OneShot:
    """A dense network, what is known of it, and what pruning makes of it.

    The network's module holds what was pruned last; `restore` puts the dense tensors back.
    """

    def __init__(
        self,
        network: Network | None,
        weights: Mapping[str, Tensor],
        *,
        batches: Callable[[], Iterable[Batch]] | None = None,
        tuning_batches: Batches | None = None,
        run: Forward | None = None,
        calibration: Calibration | None = None,
        seed: int = 0,
        progress: Progress = SILENT,
    ) -> None:
        """`weights` are those that may be pruned, by key on the CPU; `batches` gives calibration
        images anew at each call. Without network or batches only the weights themselves count.
        `tuning_batches` are to tune on, where these are others. `run` is how a batch is run,
        where it is not run as the network was traced.
        """
        self.network = None if network is None else network.with_forward(run)
        self.weights = dict(weights)
        self.batches = None if batches is None else Batches(begin=batches)
        self.tuning_batches = tuning_batches
        self.tuned: TuneOutcome | None = None
        """What `tune` did to what the module holds, where it did."""
        self.quantized: Quantized | None = None
        """The integers of what the module holds, where it was quantized."""
        self.estimates: list[CostEstimate] = []
        """What each closed form was going to take, in the order in which that was told."""
        self.seed, self.progress = seed, progress
        self._calibration = calibration
        self._scores: dict[str, Scores] = {}
        self._dense = {} if network is None else copy_tensors(network.module)
        self._rows: Mapping[str, RowBounds] = {}
        self._masked: dict[str, Tensor] = {}
        """What takes the place of a module's tensors where there is no network."""

    def calibrate(self) -> Calibration | None:
        """Statistics of the dense network, taken once; None without network or batches."""
        if self._calibration is None and self.network is not None and self.batches is not None:
            self.restore()
            self._calibration = self._calibrate()
        return self._calibration

    def scores(self, plan: Plan | LoadedPlan) -> Scores:
        """Of the dense network's weights.

        Raises:
            InputError: see `snnprune.pruning.score.score`.
        """
        criterion = plan.load().criterion
        if criterion.name not in self._scores:
            self.restore()
            self._scores[criterion.name] = self._compute_scores(criterion, self.weights, alive=None)
        return self._scores[criterion.name]

    def prune(
        self,
        plan: Plan | LoadedPlan,
        sparsity: float,
        cutting: Cutting | None = None,
        *,
        structured: bool = False,
        rows: Mapping[str, RowBounds] | None = None,
    ) -> PruneResult:
        """Prune the dense network to `sparsity` and repair it; the module holds the result.

        `cutting` cuts in place of the plan's allocation; no repair chooses other weights where its
        masks are `structured`, and none leaves the bounds of output channels in `rows`, by weight
        key. With `bits` in the plan the kept weights are quantized at last.

        Raises:
            UsageError: `sparsity` is outside [0, 1), or `bits` outside 2 to 16.
            InputError: criterion, allocation or repair cannot be had or do not fit.
            NonFiniteError: a repair left the finite numbers.
        """
        require_sparsity(sparsity)
        plan = plan.load()
        bits, self._rows = plan.names.bits, rows or {}
        if bits is not None:
            require_bits(bits)
        cut = self._run_steps(plan, sparsity, cutting, structured=structured)
        if bits is not None:
            self.quantized = self._quantize(bits, plan.names.per, cut)
        return cut

    def _run_steps(
        self, plan: LoadedPlan, sparsity: float, cutting: Cutting | None, *, structured: bool
    ) -> PruneResult:
        """Score, cut and repair the dense network, step by step to `sparsity`."""
        scores, path = self.scores(plan), plan.names.path(sparsity)
        if plan.needs_statistics:
            self.calibrate()  # of the dense network, before anything is cut
        self.restore()
        cut = self._cut(plan, self.weights, scores, cutting, path[0], None)
        alive: Masks = {key: weight != 0 for key, weight in self.weights.items()}
        new = any(bool((alive[key] & ~mask).any()) for key, mask in cut.masks.items())
        beyond = new and count_pruned(cut.masks) > BEGIN * count_prunable(cut.masks)
        if plan.names.tunes and not structured and len(path) == 1 and beyond:
            return self._prune_gradually(plan, cut, alive, own=cutting is not None)
        masks = self._repair(plan, cut, alive, fixed=structured)
        for target in path[1:]:
            weights = self._weights()
            scores = self._compute_scores(plan.criterion, weights, alive=masks)
            again = self._cut(plan, weights, scores, cutting, target, masks)
            masks = self._repair(plan, again, masks, fixed=structured)
            of = count_prunable(masks)
            zeros = warn_of_zeros(cut.already_zero, round(target * of), weights=of)
            warnings = (*zeros, *again.warnings)
            cut = replace(again, already_zero=cut.already_zero, warnings=warnings)
        return replace(cut, masks=masks)

    def _prune_gradually(
        self, plan: LoadedPlan, goal: PruneResult, alive: Masks, *, own: bool
    ) -> PruneResult:
        """Prune and repair as far as `BEGIN`, and let `tune` take what `goal` asks for beyond.

        Where layers have a sparsity of their `own`, each is pruned by half first.
        """
        half = replace(plan, allocation=load_allocation("local")) if own else plan
        cut = self._cut(half, self.weights, self.scores(plan), None, BEGIN, None)
        begin = {key: mask | goal.masks[key] for key, mask in cut.masks.items()}
        counts = {key: int(mask.sum()) for key, mask in goal.masks.items()}
        masks = self._repair(plan, replace(cut, masks=begin), alive, fixed=False, counts=counts)
        return replace(goal, masks=masks)

    def measure_same_decisions(self) -> float:
        """The share of calibration images that the module, as it is, decides on as the dense one.

        Raises:
            InputError: its output fits no readout.
            NonFiniteError: an output is NaN or infinite.
        """
        assert self.network is not None
        assert self.batches is not None
        made = copy_tensors(self.network.module)
        batches = self.batches.track(self.progress, "comparing")
        outputs = measure_agreements(self.network, self._dense, [made], batches)[0].outputs
        assert outputs is not None
        return outputs.share

    def restore(self) -> None:
        """Put the dense tensors back."""
        self._masked, self.tuned, self.quantized = {}, None, None
        if self.network is not None:
            held = self.network.module.state_dict(keep_vars=True)
            with torch.no_grad():
                for key, tensor in self._dense.items():
                    if held[key].shape != tensor.shape:  # a membrane, of whatever batch was last
                        held[key].data = torch.empty_like(tensor)
                    held[key].copy_(tensor)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are not as in the dense network, by state-dict key, on the CPU."""
        if self.network is None:
            return dict(self._masked)
        held = self.network.module.state_dict()
        return {
            key: held[key].to("cpu", copy=True)
            for key, before in self._dense.items()
            if not torch.equal(held[key], before)
        }

    def _cut(
        self,
        plan: LoadedPlan,
        weights: Mapping[str, Tensor],
        scores: Scores,
        cutting: Cutting | None,
        sparsity: float,
        alive: Masks | None,
    ) -> PruneResult:
        if cutting is not None:
            return cutting(weights, scores, sparsity, alive)
        return prune(
            weights,
            scores,
            sparsity=sparsity,
            allocation=plan.allocation,
            alive=alive,
            flips=self._compute_flips(weights) if plan.names.allocation == "flips" else None,
            places=find_weight_indices(self.network) if self.network is not None else None,
        )

    def _compute_scores(
        self, criterion: Criterion, weights: Mapping[str, Tensor], alive: Masks | None
    ) -> Scores:
        """Of the network as it is now, which is the dense one unless it says what is `alive`."""
        runs = self.network is not None and self.batches is not None
        source = EvidenceSource(
            network=self.network,
            batches=self.batches,
            calibrate=self._calibrate if runs and alive is not None else self.calibrate,
            seed=self.seed,
        )
        return score_network(weights, criterion, source, alive=alive)

    def _repair(
        self,
        plan: LoadedPlan,
        cut: PruneResult,
        choosable: Masks,
        *,
        fixed: bool,
        counts: Mapping[str, int] | None = None,
    ) -> Masks:
        """Mask the module and repair it; the masks that hold then, of what is `choosable`."""
        masks = cut.masks
        self._apply(masks)
        if self.network is not None:
            silence(self.network.module, cut.silenced)
        if not plan.repairs:
            return masks
        if self.network is None or self.batches is None:
            raise InputError(
                f"{plan.names.repair} needs the network and data",
                field="--repair",
                hint="choose none",
            )
        if counts is None and not self.tensors():  # what is pruned was 0: nothing is to be mended
            return masks
        for repair in plan.repairs:
            masks = repair(
                Pruned(
                    network=self.network,
                    dense=self._dense,
                    masks=masks,
                    batches=self.batches,
                    calibration=self._calibration,
                    choosable=choosable,
                    silenced=cut.silenced,
                    fixed=fixed,
                    counts=counts or {},
                    rows=self._rows,
                    tuning=plan.names.tuning,
                    tuning_batches=self.tuning_batches,
                    tell=self._note_tuning,
                    tell_estimate=self.estimates.append,
                    seed=self.seed,
                    progress=self.progress,
                )
            )
        return masks

    def _quantize(self, bits: int, per: Per, cut: PruneResult) -> Quantized:
        """Put the kept weights on their grids, in the module where there is one."""
        if self.network is None or self.batches is None:
            return self._quantize_by_rounding(bits, per, cut.masks)
        return quantize(
            Pruned(
                network=self.network,
                dense=self._dense,
                masks=cut.masks,
                batches=self.batches,
                silenced=cut.silenced,
                seed=self.seed,
                progress=self.progress,
            ),
            bits,
            per,
        )

    @torch.no_grad()
    def _quantize_by_rounding(self, bits: int, per: Per, masks: Masks) -> Quantized:
        why = "there is no network" if self.network is None else "there are no samples"
        found = quantize_by_rounding(
            self._weights(),
            masks,
            bits,
            reasons=dict.fromkeys(masks, why),
            network=self.network,
            per=per,
        )
        for key, held in found.weights.items():
            if self.network is None:
                weight = self._masked[key]
                self._masked[key] = held.multiply().to(weight.dtype)
            else:
                self.network.module.get_parameter(key).copy_(held.multiply())
        return found

    def _note_tuning(self, outcome: TuneOutcome) -> None:
        self.tuned = outcome

    def _compute_flips(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        """The predicted flips of each weight, where there are statistics of the dense network."""
        calibration = self.calibrate()
        if self.network is None or calibration is None:
            return None
        return compute_flip_energies(weights, self.network, calibration)

    def _apply(self, masks: Masks) -> None:
        """Put 0 where weights are pruned."""
        if self.network is None:
            self._masked = apply_masks(self.weights, masks)
            return
        with torch.no_grad():
            for key, mask in masks.items():
                weight = self.network.module.get_parameter(key)
                weight.mul_(mask.to(weight.device))

    def _weights(self) -> dict[str, Tensor]:
        """Those that the module has now, by key on the CPU."""
        if self.network is None:
            return {**self.weights, **self._masked}
        return {key: self.network.weight(key).to("cpu", copy=True) for key in self.weights}

    def _calibrate(self) -> Calibration:
        """Statistics of the network as it is now."""
        assert self.network is not None
        assert self.batches is not None
        return calibrate(self.network, self.batches.track(self.progress, "calibrating"))
