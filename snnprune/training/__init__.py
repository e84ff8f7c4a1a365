"""What every training loop is made of."""

from snnprune.training.optimizer import build_optimizer
from snnprune.training.schedule import learning_rate
from snnprune.training.step import Trainer, require_finite

__all__ = ["Trainer", "build_optimizer", "learning_rate", "require_finite"]
