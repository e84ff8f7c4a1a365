"""Which weights of a network in training go next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.masks import Masks
from snnprune.pruning.allocation import load_allocation
from snnprune.pruning.allocation.candidates import Allocation
from snnprune.pruning.criteria import load_criterion
from snnprune.pruning.criteria.criterion import Criterion
from snnprune.pruning.criteria.evidence import EvidenceSource
from snnprune.pruning.prune import PruneResult, prune
from snnprune.pruning.score import score_network
from snnprune.training.setup import TrainingSetup


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How weights are ranked: by a criterion, shared out by an allocation."""

    criterion: Criterion
    allocation: Allocation | None
    """None takes the one that fits the scores."""
    samples: int
    """Training images to calibrate on, where the criterion asks for it."""
    allocation_field: str
    """The setting that names the allocation, for errors."""

    def cut(
        self,
        setup: TrainingSetup,
        sparsity: float,
        *,
        weights: Mapping[str, Tensor],
        alive: Masks,
    ) -> PruneResult:
        """Masks of exactly that sparsity for the network of `setup` as it is now.

        `weights` are what is ranked, by key on the CPU; what is not `alive` stays pruned.

        Raises:
            InputError: criterion or allocation fail.
        """
        source = EvidenceSource(
            network=setup.network,
            batches=Batches(begin=lambda: setup.calibration_batches(self.samples)),
            calibrate=lambda: setup.calibrate(self.samples),
            seed=setup.recipe.seed,
        )
        scores = score_network(weights, self.criterion, source, alive=alive)
        with self._name_setting_in_errors():
            # scores may differ between ranks in their last bit, and masks must not
            return setup.ranks.by_first(
                lambda: prune(
                    weights, scores, sparsity=sparsity, allocation=self.allocation, alive=alive
                )
            )

    @contextlib.contextmanager
    def _name_setting_in_errors(self) -> Iterator[None]:
        """Name the setting where the commands on checkpoints have a flag."""
        try:
            yield
        except InputError as error:
            error.field = self.allocation_field
            raise


def load_ranking(criterion: str, allocation: str | None, *, samples: int, field: str) -> Ranking:
    """The ranking that these names stand for; `field` is the setting that names the criterion.

    Raises:
        InputError: criterion or allocation cannot be had, or do not go together.
    """
    loaded = load_criterion(criterion, field=field)
    allocation_field = f"{field.partition('.')[0]}.allocation"
    shared_out = None if allocation is None else load_allocation(allocation, field=allocation_field)
    # such a criterion leaves the encoding layer at least to magnitude
    if allocation == "global" and loaded.needs == "spikes":
        raise InputError(
            f"global cannot rank {criterion} and magnitude scores together",
            field=allocation_field,
            hint="choose pools or local",
        )
    return Ranking(
        criterion=loaded,
        allocation=shared_out,
        samples=samples,
        allocation_field=allocation_field,
    )


def copy_prunable_weights(network: Network) -> dict[str, Tensor]:
    """A copy of the weights of its layers, by key, on the CPU.

    Raises:
        InputError: there are none, or one is made of other parameters, as by weight norm.
    """
    for key, how in network.made.items():
        raise InputError(f"{key} is made by {how} and cannot be pruned", field="model.name")
    if not network.layers:
        raise InputError("has no layer that can be pruned", field="model.name")
    return {key: network.weight(key).to("cpu", copy=True) for key in network.layers}


def make_dense_masks(network: Network) -> dict[str, Tensor]:
    """Masks of its layers that prune nothing."""
    return make_full_masks({key: network.weight(key).cpu() for key in network.layers})


def make_full_masks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that prune nothing."""
    return {key: torch.ones_like(weight, dtype=torch.bool) for key, weight in weights.items()}
