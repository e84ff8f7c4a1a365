"""What every training loop is made of."""

from snnprune.training.best import Best, copied
from snnprune.training.distillation import Distillation, Teacher
from snnprune.training.fitting import Epoch, Hooks, Position, Stretch, fit, taken_up
from snnprune.training.masking import Masking
from snnprune.training.objective import LabelLoss, Objective
from snnprune.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from snnprune.training.schedule import learning_rate
from snnprune.training.step import Trainer, require_finite

__all__ = [
    "Best",
    "Distillation",
    "Epoch",
    "Hooks",
    "LabelLoss",
    "Masking",
    "Objective",
    "Position",
    "Stretch",
    "Teacher",
    "Trainer",
    "build_optimizer",
    "copied",
    "fit",
    "learning_rate",
    "optimizer_tensors",
    "require_finite",
    "restore_optimizer",
    "taken_up",
]
