"""A network whose spikes can be told by hand."""

import torch
from torch import Tensor, nn

from snnprune.models.lif import LIF, Dynamics


class OneToOne(nn.Module):
    """Two inputs, two neurons, two steps; half of what is left stays."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)
        self.layer.weight = nn.Parameter(torch.eye(2))
        self.neuron = LIF(Dynamics(beta=0.5, threshold=1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(torch.stack([self.layer(x)] * 2))
