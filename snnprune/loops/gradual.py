"""Pruning while training: a little after every so many steps, the network learning on."""

from __future__ import annotations

from snnprune.loops.ranking import all_alive, load_ranking, prunable_weights
from snnprune.loops.setup import Setup
from snnprune.mask import prunable, pruned
from snnprune.recipe import GradualSection
from snnprune.training import Trainer


class Gradual:
    """The cubic schedule of Zhu and Gupta 2017, arXiv 1710.01878, Eq. 1, called after every step.

    Prunes `steps` times at even distances, the i-th time to s + (s_0 - s) (1 - i / steps)^3; s_0 is
    what the trainer's masks prune already.
    """

    def __init__(self, section: GradualSection, setup: Setup, trainer: Trainer) -> None:
        self.setup, self.trainer = setup, trainer
        self.ranking = load_ranking(
            section.criterion,
            section.allocation,
            samples=section.samples,
            field="gradual.criterion",
        )
        if not trainer.masking.held:
            trainer.hold(all_alive(prunable_weights(setup.network)))
        masks, epochs = trainer.masking.copy_masks(), setup.recipe.training.epochs
        self.targets = targets(
            section, epochs, setup.steps_per_epoch, first=pruned(masks) / prunable(masks)
        )

    def __call__(self) -> None:
        """Prune if the batch that was just met is one of those."""
        sparsity = self.targets.get(self.trainer.batches)
        if sparsity is None:
            return
        weights = prunable_weights(self.setup.network)
        alive = self.trainer.masking.copy_masks()
        cut = self.ranking.cut(self.setup, sparsity, weights=weights, alive=alive)
        self.trainer.hold(cut.masks)

    @property
    def done(self) -> bool:
        """Whether the last pruning lies behind."""
        return self.trainer.batches >= max(self.targets)


def targets(
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
