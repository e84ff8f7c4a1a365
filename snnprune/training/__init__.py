"""What every training loop is made of."""

from snnprune.training.best import Best
from snnprune.training.draws import drawing
from snnprune.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from snnprune.training.schedule import learning_rate
from snnprune.training.step import Trainer, require_finite

__all__ = [
    "Best",
    "Trainer",
    "build_optimizer",
    "drawing",
    "learning_rate",
    "optimizer_tensors",
    "require_finite",
    "restore_optimizer",
]
