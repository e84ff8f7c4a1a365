"""Optimizers by the names that recipes use, and their state by the names of the parameters."""

from collections.abc import Mapping

from torch import Tensor, nn, optim

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


def optimizer_tensors(optimizer: optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """What the optimizer remembers of each parameter, as `momentum_buffer/conv.weight`."""
    return {
        f"{what}/{name}": value
        for name, parameter in module.named_parameters()
        for what, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Give a fresh optimizer over parameters of `module` what `optimizer_tensors` gave.

    Raises:
        KeyError: a tensor belongs to no parameter.
        ValueError: a tensor has another shape than its parameter.
    """
    parameters = dict(module.named_parameters())
    saved = optimizer.state_dict()
    places = {id(p): place for place, p in enumerate(_parameters_of(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        what, _, name = key.partition("/")
        parameter = parameters[name]
        of_a_step = what == "step"  # AdamW counts them in a number; all else is of each weight
        if tensor.shape != (() if of_a_step else parameter.shape):
            raise ValueError(f"{key} has shape {list(tensor.shape)}")
        state.setdefault(places[id(parameter)], {})[what] = tensor
    optimizer.load_state_dict({**saved, "state": state})


def _parameters_of(optimizer: optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
