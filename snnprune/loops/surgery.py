"""Masks that change while a round trains; Guo et al. 2016, arXiv 1608.04493."""

from __future__ import annotations

import torch
from torch import Tensor

from snnprune.randomness import generator
from snnprune.training import Trainer

BELOW, ABOVE = 0.9, 1.1  # of the threshold: between them a weight stays what it is
DECAY = 1e-4  # of the probability of surgery after a step, 1 / (1 + DECAY * step)


class Surgery:
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
        drawn = float(torch.rand((), generator=generator(*self.key, "surgery", step)))
        if drawn * (1 + DECAY * step) >= 1:
            return
        passing = self.trainer.masking.passing
        sizes = {
            key: self.trainer.module.get_parameter(key).detach().abs().float() for key in passing
        }
        threshold = _threshold(list(sizes.values()), self.kept)
        for key, size in sizes.items():
            alive = torch.where(passing[key], size >= BELOW * threshold, size > ABOVE * threshold)
            passing[key] = alive


def _threshold(sizes: list[Tensor], kept: int) -> float:
    """The size that `kept` of all are at least as large as."""
    flat = torch.cat([size.flatten() for size in sizes])
    if not 0 < kept <= len(flat):
        return 0.0 if kept else float("inf")
    return float(flat.kthvalue(len(flat) - kept + 1).values)
