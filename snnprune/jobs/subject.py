"""What a command works on: a checkpoint, the network it belongs to, and data to run it on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.checkpoint import (
    Checkpoint,
    effective,
    parametrized,
    prunable_weights,
    tied_tensors,
    whole_name,
)
from snnprune.data import DataSet, Split
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError
from snnprune.jobs.excluding import excluded
from snnprune.jobs.options import SubjectOptions
from snnprune.jobs.running import Forward, called
from snnprune.jobs.unused import unused_weights
from snnprune.models import ModelSpec
from snnprune.network import Network
from snnprune.network.aliases import aliases
from snnprune.network.readout import Reading, Readout
from snnprune.provenance import DataSpec

Batches = Iterator[tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A checkpoint, and as much of its network and data as is at hand."""

    options: SubjectOptions
    checkpoint: Checkpoint
    device: torch.device
    spec: ModelSpec | None = None
    forward: Forward = called
    """How a batch is run; a failure of the user's own code is told as theirs."""
    reading: str | Reading = "auto"
    """How the network's output is read."""
    network: Network | None = None
    data_spec: DataSpec | None = None
    data: DataSet | None = None
    missing: str | None = None
    """Why the network or the data is not at hand."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that may be pruned, on the CPU, by key and in the file's order.

        Raises:
            InputError: there are none, or an `--exclude` fits none.
        """
        left_alone = set(self.excluded)
        return {k: weight for k, weight in self._prunable().items() if k not in left_alone}

    @property
    def excluded(self) -> tuple[str, ...]:
        """The keys that `--exclude` fits.

        Raises:
            InputError: a pattern fits none, or together they leave nothing to prune.
        """
        if not self.options.exclude:
            return ()
        keys = (*self._prunable(), *self.made, *self._unused())
        tied = self.tied
        left_alone = excluded({key: self._names(key, tied) for key in keys}, self.options.exclude)
        if not self._prunable().keys() - set(left_alone):
            raise InputError("leaves nothing to prune", field="--exclude")
        return left_alone

    @property
    def unused(self) -> tuple[str, ...]:
        """Weights that no convolution or linear layer of the pass used; they are not pruned."""
        left_alone = self.excluded
        return tuple(key for key in self._unused() if key not in left_alone)

    @property
    def made(self) -> Mapping[str, str]:
        """Weights that are made of other parameters as a whole, as by weight norm: by what."""
        return self.network.made if self.network else parametrized(self.checkpoint.tensors)

    def require_prunable(self) -> None:
        """Refuse weights that cannot be pruned one by one, unless `--exclude` leaves them out.

        Raises:
            InputError: there is one; it is named.
        """
        left_alone = self.excluded
        for key, how in self.made.items():
            if key not in left_alone:
                raise InputError(
                    f"is made by {how}: to prune one weight would change the others",
                    file=self.checkpoint.path,
                    field=key,
                    hint="save it with remove_parametrizations or remove_weight_norm applied, "
                    "or leave it out with --exclude",
                )

    @property
    def tied(self) -> Mapping[str, tuple[str, ...]]:
        """All names of each tensor: those of the network, or without one, of the same memory."""
        if self.network is None:
            return tied_tensors(self.checkpoint.tensors)
        return aliases(self.network.module)

    def _names(self, key: str, tied: Mapping[str, tuple[str, ...]]) -> list[str]:
        """Every name of a weight, in the network and in the file, and of what it is a part of."""
        names = [*tied.get(key, (key,)), self.checkpoint.names.get(key, key)]
        return [*names, *map(whole_name, names)]

    def _unused(self) -> tuple[str, ...]:
        return unused_weights(self.network, self.checkpoint.tensors) if self.network else ()

    def _prunable(self) -> dict[str, Tensor]:
        tensors = self.checkpoint.tensors
        keys = set(self.network.layers if self.network else prunable_weights(tensors))
        found = {
            key: effective(tensors, key) for key in tensors if key in keys and tensors[key].numel()
        }
        if not found:
            raise InputError(
                f"nothing to prune among {len(tensors)} tensors",
                file=self.checkpoint.path,
                hint="no layer was used in the forward pass"
                if self.network
                else "weights are float tensors of 2 to 5 dimensions named *weight",
            )
        return found

    def calibration_batches(self) -> Batches:
        """Training images without augmentation, a seeded sample of `options.samples`."""
        return self.batches("train", self.options.samples)

    def calibration_steps(self) -> int | None:
        """How many batches those are, where it is known before."""
        return self.steps("train", self.options.samples)

    def batches(self, split: str, limit: int | None = None) -> Batches:
        """The images of `train`, `validation` or `test`, or a seeded sample of `limit` of them."""
        images = self._split(split)
        if limit is not None and isinstance(images, ImageSplit):
            images = images.sample(self._whole(limit, images), self.options.seed)
        return images.batches(self.options.batch_size, limit=limit, device=self.device)

    def steps(self, split: str, limit: int | None = None) -> int | None:
        """How many batches those are, where it is known before."""
        images = self._split(split)
        if not isinstance(images, ImageSplit):
            return None
        return -(-self._whole(limit or len(images), images) // self.options.batch_size)

    def _whole(self, count: int, images: ImageSplit) -> int:
        """`count` or one less: a last batch of one image has no variance for a BatchNorm."""
        count = min(count, len(images))
        return count - 1 if count > 1 and count % self.options.batch_size == 1 else count

    def run(self, module: nn.Module, x: Tensor) -> Any:
        """The network's output."""
        return self.forward(module, x)

    def readout(self) -> Readout:
        """A reader of outputs, for one evaluation."""
        return Readout(self.reading, name=self.options.readout)

    def _split(self, name: str) -> Split:
        split: Split | None = getattr(self.data, name) if self.data else None
        if split is None:
            raise InputError(f"there are no {name} images", field="--data")
        return split

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
