"""Pruning while training: a little after every so many steps, the network learning on."""

from __future__ import annotations

import torch
from torch import Tensor

from snnprune.masks import count_prunable, count_pruned
from snnprune.recipe.methods import GradualSection
from snnprune.runtime import make_generator
from snnprune.training.ranking import copy_prunable_weights, load_ranking, make_full_masks
from snnprune.training.setup import TrainingSetup
from snnprune.training.step import Trainer

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
