"""Allocations: how a number of weights to prune is shared between layers.

To add one, write a function from `Candidates` and a count to masks, and name it in the table.
Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnprune.plugins.names import Registry, RegistryRow
from snnprune.plugins.user_code import guard_function

if TYPE_CHECKING:
    from snnprune.pruning.allocation.candidates import Allocation


RULES = "snnprune.pruning.allocation.rules"

ALLOCATIONS = Registry(
    kind="allocation",
    group="snnprune.allocations",
    rows={
        "global": RegistryRow(
            target=f"{RULES}:prune_globally", summary="one ranking over all layers"
        ),
        "local": RegistryRow(
            target=f"{RULES}:prune_locally", summary="the same sparsity in every layer"
        ),
        "pools": RegistryRow(
            target=f"{RULES}:prune_in_pools",
            summary="unscored layers as magnitude would prune them, the rest by score",
        ),
        "pools-alike": RegistryRow(
            target=f"{RULES}:prune_pools_alike",
            summary="the same sparsity in unscored and in scored layers",
        ),
        "pools-dense": RegistryRow(
            target=f"{RULES}:prune_scored_only", summary="unscored layers stay dense"
        ),
        "lamp": RegistryRow(
            target=f"{RULES}:prune_by_lamp",
            summary="one ranking of each score's part in what its layer would still have",
        ),
        "lamp-magnitude": RegistryRow(
            target=f"{RULES}:prune_by_lamp_of_magnitudes",
            summary="from each layer as many as lamp would by magnitude, chosen by score",
        ),
        "flips": RegistryRow(
            target=f"{RULES}:prune_by_flips",
            summary="the same predicted share of flipped spikes behind every layer",
        ),
        "erk": RegistryRow(
            target=f"{RULES}:prune_as_random_graphs",
            summary="density by shape, as Erdos-Renyi graphs with kernels",
        ),
        "uniform-plus": RegistryRow(
            target=f"{RULES}:prune_uniformly_plus",
            summary="local, but a dense first convolution and at most 80 % of the last layer",
        ),
    },
)


def load_allocation(name: str, *, field: str = "--allocation") -> Allocation:
    """The allocation of that name, or of a user's own file.

    Raises:
        InputError: there is none.
    """
    allocation: Allocation = ALLOCATIONS.load(name, field=field)
    return guard_function(allocation, name, field=field)
