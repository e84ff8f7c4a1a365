"""Which weights of a network in training go, and when: ranking, gradual pruning, surgery."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.masks import Masks, count_prunable, count_pruned
from snnprune.pruning.allocation import Allocation, load_allocation
from snnprune.pruning.criteria import Criterion, load_criterion
from snnprune.pruning.prune import PruneResult, prune
from snnprune.pruning.score import EvidenceSource, score_network
from snnprune.recipe.sections import GradualSection
from snnprune.runtime import make_generator
from snnprune.training.setup import TrainingSetup
from snnprune.training.step import Trainer


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How weights are ranked: by a criterion, shared out by an allocation."""

    criterion: Criterion
    allocation: Allocation | None
    """None takes the one that fits the scores."""
    samples: int
    """Training images to calibrate on, where the criterion asks for it."""
    allocation_field: str
    """The setting that names the allocation, for errors."""

    def cut(
        self,
        setup: TrainingSetup,
        sparsity: float,
        *,
        weights: Mapping[str, Tensor],
        alive: Masks,
    ) -> PruneResult:
        """Masks of exactly that sparsity for the network of `setup` as it is now.

        `weights` are what is ranked, by key on the CPU; what is not `alive` stays pruned.

        Raises:
            InputError: criterion or allocation fail.
        """
        source = EvidenceSource(
            network=setup.network,
            batches=Batches(begin=lambda: setup.calibration_batches(self.samples)),
            calibrate=lambda: setup.calibrate(self.samples),
            seed=setup.recipe.seed,
        )
        scores = score_network(weights, self.criterion, source, alive=alive)
        with self._name_setting_in_errors():
            # scores may differ between ranks in their last bit, and masks must not
            return setup.ranks.by_first(
                lambda: prune(
                    weights, scores, sparsity=sparsity, allocation=self.allocation, alive=alive
                )
            )

    @contextlib.contextmanager
    def _name_setting_in_errors(self) -> Iterator[None]:
        """Name the setting where the commands on checkpoints have a flag."""
        try:
            yield
        except InputError as error:
            error.field = self.allocation_field
            raise


def load_ranking(criterion: str, allocation: str | None, *, samples: int, field: str) -> Ranking:
    """The ranking that these names stand for; `field` is the setting that names the criterion.

    Raises:
        InputError: criterion or allocation cannot be had, or do not go together.
    """
    loaded = load_criterion(criterion, field=field)
    allocation_field = f"{field.partition('.')[0]}.allocation"
    shared_out = None if allocation is None else load_allocation(allocation, field=allocation_field)
    # such a criterion leaves the encoding layer at least to magnitude
    if allocation == "global" and loaded.needs == "spikes":
        raise InputError(
            f"global cannot rank {criterion} and magnitude scores together",
            field=allocation_field,
            hint="choose pools or local",
        )
    return Ranking(
        criterion=loaded,
        allocation=shared_out,
        samples=samples,
        allocation_field=allocation_field,
    )


def copy_prunable_weights(network: Network) -> dict[str, Tensor]:
    """A copy of the weights of its layers, by key, on the CPU.

    Raises:
        InputError: there are none, or one is made of other parameters, as by weight norm.
    """
    for key, how in network.made.items():
        raise InputError(f"{key} is made by {how} and cannot be pruned", field="model.name")
    if not network.layers:
        raise InputError("has no layer that can be pruned", field="model.name")
    return {key: network.weight(key).to("cpu", copy=True) for key in network.layers}


def make_dense_masks(network: Network) -> dict[str, Tensor]:
    """Masks of its layers that prune nothing."""
    return make_full_masks({key: network.weight(key).cpu() for key in network.layers})


def make_full_masks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that prune nothing."""
    return {key: torch.ones_like(weight, dtype=torch.bool) for key, weight in weights.items()}


BELOW, ABOVE = 0.9, 1.1  # of the threshold: between them a weight stays what it is
DECAY = 1e-4  # of the probability of surgery after a step, 1 / (1 + DECAY * step)


class DynamicSurgery:
    """Prunes and revives weights whose masks act in the forward pass alone, after every step.

    The threshold t is the magnitude at which as many weights of these layers lie above it as the
    round began with: |w| < 0.9 t is pruned, |w| > 1.1 t revived. It happens with a probability
    that decays from 1, so that the masks settle; their number of weights may drift from the
    round's by what lies between the two.
    """

    def __init__(self, trainer: Trainer, kept: int, key: tuple[object, ...]) -> None:
        """`kept` is how many weights the round began with; `key` seeds the draws."""
        self.trainer, self.kept, self.key = trainer, kept, key

    def __call__(self) -> None:
        """Operate on the masks, or by chance do not."""
        step = self.trainer.step
        drawn = float(torch.rand((), generator=make_generator(*self.key, "surgery", step)))
        if drawn * (1 + DECAY * step) >= 1:
            return
        passing = self.trainer.masking.passing
        sizes = {
            key: self.trainer.module.get_parameter(key).detach().abs().float() for key in passing
        }
        threshold = _find_threshold(list(sizes.values()), self.kept)
        for key, size in sizes.items():
            alive = torch.where(passing[key], size >= BELOW * threshold, size > ABOVE * threshold)
            passing[key] = alive


def _find_threshold(sizes: list[Tensor], kept: int) -> float:
    """The size that `kept` of all are at least as large as."""
    flat = torch.cat([size.flatten() for size in sizes])
    if not 0 < kept <= len(flat):
        return 0.0 if kept else float("inf")
    return float(flat.kthvalue(len(flat) - kept + 1).values)


class GradualPruning:
    """The cubic schedule of Zhu and Gupta 2017, arXiv 1710.01878, Eq. 1, called after every step.

    Prunes `steps` times at even distances, the i-th time to s + (s_0 - s) (1 - i / steps)^3; s_0 is
    what the trainer's masks prune already.
    """

    def __init__(self, section: GradualSection, setup: TrainingSetup, trainer: Trainer) -> None:
        self.setup, self.trainer = setup, trainer
        self.ranking = load_ranking(
            section.criterion,
            section.allocation,
            samples=section.samples,
            field="gradual.criterion",
        )
        if not trainer.masking.held:
            trainer.hold(make_full_masks(copy_prunable_weights(setup.network)))
        masks, epochs = trainer.masking.copy_masks(), setup.recipe.training.epochs
        self.targets = compute_targets(
            section,
            epochs,
            setup.steps_per_epoch,
            first=count_pruned(masks) / count_prunable(masks),
        )

    def __call__(self) -> None:
        """Prune if the batch that was just met is one of those."""
        sparsity = self.targets.get(self.trainer.batches)
        if sparsity is None:
            return
        weights = copy_prunable_weights(self.setup.network)
        alive = self.trainer.masking.copy_masks()
        cut = self.ranking.cut(self.setup, sparsity, weights=weights, alive=alive)
        self.trainer.hold(cut.masks)

    @property
    def done(self) -> bool:
        """Whether the last pruning lies behind."""
        return self.trainer.batches >= max(self.targets)


def compute_targets(
    section: GradualSection, epochs: int, steps_per_epoch: int, *, first: float = 0.0
) -> dict[int, float]:
    """The sparsity after each batch (from 1) that is followed by pruning; `first` is that before.

    Batches, as steps may be fewer: in fp16 some are skipped, and the last pruning must be met.
    """
    begin = section.start_epoch * steps_per_epoch
    end = (section.end_epoch or max(3 * epochs // 4, section.start_epoch + 1)) * steps_per_epoch
    count, last = min(section.steps, end - begin), section.sparsity
    return {
        begin + max(1, round((end - begin) * i / count)): last
        + (first - last) * (1 - i / count) ** 3
        for i in range(1, count + 1)
    }
