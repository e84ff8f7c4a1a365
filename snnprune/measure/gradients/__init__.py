"""What a backward pass finds for each weight: all that gradient criteria know of the data."""

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.graph.network import Network
from snnprune.measure.gradients.flow import compute_flow
from snnprune.measure.gradients.passes import GradientPasses
from snnprune.measure.gradients.per_weight import (
    compute_absolute_gradient,
    compute_hessian_gradient,
    compute_mean_gradient,
    compute_squared_gradient,
)

Found = Literal["gradient", "squared-gradient", "absolute-gradient", "hessian-gradient", "flow"]
"""`gradient` E[dL/dw], `squared-gradient` E[(dL/dw)^2] with a square for each sample,
`absolute-gradient` E[sum over time and places of |x| |dL/dI|] with the layer's input x and output
I, `hessian-gradient` H g of the mean loss, `flow` dR/d|w| of SynFlow; E is the mean over samples.
"""
FINDERS: Mapping[Found, Callable[[GradientPasses], dict[str, Tensor]]] = {
    "gradient": compute_mean_gradient,
    "squared-gradient": compute_squared_gradient,
    "absolute-gradient": compute_absolute_gradient,
    "hessian-gradient": compute_hessian_gradient,
    "flow": compute_flow,
}


def compute_weight_gradients(
    network: Network,
    batches: Batches,
    need: Found,
    *,
    seed: int = 0,
) -> dict[str, Tensor]:
    """What `need` names for every layer, by weight key, in the weight's shape, float64 on the CPU.

    In eval mode, with the surrogate gradients of the network's own neurons. The loss of a sample is
    the mean over time of the cross-entropy, with its label or else with the class that the network
    itself chooses. They may be gone through several times; memory does not grow with
    their number, and their size matters to rounding alone. A weight that no gradient reaches is
    left out. Nothing in the network is changed afterwards. `seed` is for what the network draws.

    Raises:
        InputError: there is no sample, no gradient can be had, or samples cannot be told apart.
        NonFiniteError: the loss is NaN or infinite.
    """
    passes = GradientPasses(network=network, batches=batches, read=network.new_reader(), seed=seed)
    return FINDERS[need](passes)


__all__ = ["FINDERS", "Found", "GradientPasses", "compute_weight_gradients"]
