"""What a command works on: a checkpoint, the network it belongs to, and data to run it on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.data.batches import Batches, Pair, SizedPair
from snnprune.data.dataset import GIVEN, DataSet, Split, format_split
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.graph.readout import Readout
from snnprune.jobs.targets.options import TargetOptions
from snnprune.jobs.targets.prunable import PrunableWeights
from snnprune.models import ModelSpec
from snnprune.report.provenance import DataSpec, read_data_spec


@dataclass(frozen=True, kw_only=True)
class Target:
    """A checkpoint, and as much of its network and data as is at hand."""

    options: TargetOptions
    checkpoint: Checkpoint
    device: torch.device
    spec: ModelSpec | None = None
    network: Network | None = None
    """Run and read as the options say; a failure of the user's own code is told as theirs."""
    data_spec: DataSpec | None = None
    data: DataSet | None = None
    missing: str | None = None
    """Why the network or the data is not at hand."""

    @property
    def prunable(self) -> PrunableWeights:
        """Which of its weights may be pruned."""
        return PrunableWeights(
            checkpoint=self.checkpoint, network=self.network, exclude=self.options.exclude
        )

    def find_weights(self) -> dict[str, Tensor]:
        """As `PrunableWeights.weights`."""
        return self.prunable.find_weights()

    def calibration_batches(self) -> Batches:
        """Training images without augmentation, a seeded sample of `options.samples`."""
        return self.batches("train", self.options.samples)

    def batches(self, split: str, limit: int | None = None) -> Batches:
        """The images of a split (see `DataSet.of`), or a seeded sample of `limit` of them."""
        images, size = self._get_split(split), self.options.batch_size
        if not isinstance(images, ImageSplit):
            given = images.batches(size, device=self.device)
            return Batches(begin=lambda: self._limit_samples(limit, given))
        if limit is not None:
            images = images.sample(self._whole(limit, images), self.options.seed)
        return images.batches(size, limit=limit, device=self.device)

    def _whole(self, count: int, images: ImageSplit) -> int:
        """`count` or one less: a last batch of one image has no variance for a BatchNorm."""
        count = min(count, len(images))
        return count - 1 if count > 1 and count % self.options.batch_size == 1 else count

    def _limit_samples(self, limit: int | None, batches: Batches) -> Iterator[Pair]:
        """Batches until `limit` samples are reached; where these lie is known here."""
        samples, network = 0, self.require_runnable()
        for x, y in batches:
            plain = limit is None and not isinstance(x, Tensor)
            count = 0 if plain else network.count_samples(x, y)
            yield SizedPair.of(Pair(x, y), count) if count else Pair(x, y)
            samples += count
            if limit is not None and samples >= limit:
                return

    def readout(self) -> Readout:
        """How the network's output is read; as any, where there is no network."""
        return self.network.readout if self.network is not None else Readout()

    def _get_split(self, name: str) -> Split:
        split = self.data.of(name) if self.data else None
        if split is None:
            hints = {"test": "--test-data names some", "validation": "--eval-data names some"}
            raise InputError(
                f"there are no {format_split(name)} images", field="--data", hint=hints.get(name)
            )
        return split

    @property
    def measured(self) -> str:
        """The split that a network is measured on, where what is done to it may learn of others.

        That of `--eval-data`, else test images, else validation images, else training images.
        """
        assert self.data is not None
        return "validation" if self.options.eval_data is not None else self.data.measured

    def choose_split(self) -> str:
        """The split that a network is measured on where nothing is learnt: all that was given."""
        assert self.data is not None
        learnt_of = read_data_spec(self.checkpoint.metadata, asked=self.options.data) is not None
        plain = self.options.eval_data is None and self.data.test is None
        return GIVEN if plain and not learnt_of and self.data.given else self.measured

    @property
    def doubts(self) -> list[str]:
        """What accuracies do not tell, where there are no test images."""
        if self.data is None:
            return []
        return list(self.data.overlaps) if self.options.eval_data else self.data.doubts

    @property
    def runnable(self) -> Network | None:
        """The network, where there is data to run it on."""
        return self.network if self.data is not None else None

    def require_runnable(self) -> Network:
        """The network, where there is data to run it on.

        Raises:
            InputError: one of them is missing; the message says which and why.
        """
        if self.runnable is None:
            raise InputError(
                self.missing or "no network",
                file=self.checkpoint.path,
                hint="give --data" if self.spec else "give --model and --data",
            )
        return self.runnable
