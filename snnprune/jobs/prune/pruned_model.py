"""A network as `prune` has made it, before it is measured and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from snnprune.jobs.prune.compact_model import CompactModel
from snnprune.pruning.prune import PruneResult
from snnprune.pruning.repair.settings import TuneOutcome
from snnprune.pruning.structure.channels import RemovedChannels


@dataclass(frozen=True, kw_only=True)
class PrunedModel:
    """A pruned network: its masks and all tensors of its file."""

    cut: PruneResult
    tensors: dict[str, Tensor]
    tuned: TuneOutcome | None = None
    """What tuning was done."""
    removed: RemovedChannels | None = None
    """Whole channels that are gone, where they were to go."""
    small: CompactModel | None = None
    """The same without channels that are gone, which is written then."""
    notes: tuple[str, ...] = ()
    """Why there is none, where channels were to go."""

    @property
    def channels(self) -> Mapping[str, dict[str, int]]:
        """Of layers that lost whole channels: how many are kept of how many, by weight key."""
        return {} if self.removed is None else self.removed.counts()
