"""The best weights of a run."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from snnprune.runs.values import count, number, require_alike, require_names


class Best:
    """The weights after the epoch of the highest validation accuracy, the first of equals."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.accuracy: float | None = None
        self.tensors: Mapping[str, Tensor] = {}

    def offer(self, accuracy: float | None, epoch: int, module: nn.Module) -> None:
        """Copy the weights to the host if they are better; None is no accuracy."""
        if accuracy is None or (self.accuracy is not None and accuracy <= self.accuracy):
            return
        self.epoch, self.accuracy = epoch, accuracy
        self.tensors = copied(module)

    def position(self) -> dict[str, Any]:
        """What a state says of it beside the tensors."""
        return {"epoch": self.epoch, "accuracy": self.accuracy}

    def restore(
        self,
        position: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        module: nn.Module,
        epochs: int,
    ) -> None:
        """Take back what `position` gave after so many epochs, and the tensors.

        Raises:
            LookupError, ValueError: they cannot be so, or the tensors are not those of `module`.
        """
        require_names(position, ("epoch", "accuracy"))
        if position["epoch"] is None and position["accuracy"] is None:
            require_alike(tensors, {})
            return
        self.epoch = count(position, "epoch", most=epochs - 1)
        self.accuracy = number(position, "accuracy")
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy cannot be {self.accuracy}")
        require_alike(tensors, module.state_dict())
        self.tensors = tensors


def copied(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors as they are now, by key, on the CPU."""
    tensors = module.state_dict().items()
    return {key: tensor.detach().to("cpu", copy=True) for key, tensor in tensors}
