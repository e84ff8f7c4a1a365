"""Optimizers by the names that recipes use."""

from torch import nn, optim

from snnprune.recipe import TrainingSection


def build_optimizer(module: nn.Module, training: TrainingSection) -> optim.Optimizer:
    """SGD with momentum or AdamW over all parameters, with the recipe's weight decay."""
    if training.optimizer == "adamw":
        return optim.AdamW(
            module.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
    return optim.SGD(
        module.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
