"""What a command works on: a checkpoint, its network, its data, and what may be pruned of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import (
    Checkpoint,
    compute_effective_weight,
    find_prunable_weights,
    find_tied_tensors,
)
from snnprune.checkpoint.naming import (
    find_parametrized,
    find_tiny_weights,
    find_unprunable,
    strip_part_suffix,
)
from snnprune.data import GIVEN, IMAGES, DataSet, DataSpec, Split, name_samples
from snnprune.data.batches import Batches, Pair, SizedPair
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError, format_names, format_split
from snnprune.graph.forward import Readout
from snnprune.graph.libraries import library_of
from snnprune.graph.network import Network, find_aliases
from snnprune.jobs.targets.options import TargetOptions, find_excluded
from snnprune.jobs.targets.provenance import read_data_spec
from snnprune.measure.calibration import Calibration
from snnprune.models import ModelSpec
from snnprune.pruning.oneshot import OneShot
from snnprune.pruning.score import Scores
from snnprune.runtime import SILENT, Progress


def find_unused_weights(network: Network, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The keys of `tensors` that look like weights, and met no convolution or linear layer.

    Such are an Embedding, an LSTM, a transposed convolution and layers that the pass left out, but
    not what other weights are made of, and no parameter of a neuron.
    """
    same = find_aliases(network.module)
    met = {name for key in (*network.layers, *network.made) for name in same.get(key, (key,))}
    wholes = set(map(strip_part_suffix, met))
    parts = dict(network.module.named_modules(remove_duplicate=False))
    parameters = dict(network.module.named_parameters(remove_duplicate=False))
    return tuple(
        key
        for key, tensor in tensors.items()
        if key in parameters
        and key == next(name for name in same.get(key, (key,)) if name in tensors)
        and strip_part_suffix(key) not in wholes
        and _looks_like_a_weight(strip_part_suffix(key), tensor)
        and library_of(parts[key.rpartition(".")[0]]) is None
    )


def _looks_like_a_weight(name: str, tensor: Tensor) -> bool:
    """By its name, such as `weight_ih_l0`, and by the shape of a layer's weight."""
    named = "weight" in name.rpartition(".")[2]
    return named and tensor.is_floating_point() and 2 <= tensor.dim() <= 5


@dataclass(frozen=True, kw_only=True)
class PrunableWeights:
    """The weights of a checkpoint, seen by its network or, without one, by its file alone."""

    checkpoint: Checkpoint
    network: Network | None = None
    exclude: tuple[str, ...] = ()
    """Patterns of weights that are left alone."""

    def find_weights(self) -> dict[str, Tensor]:
        """Those that may be pruned, on the CPU, by key and in the file's order.

        Raises:
            InputError: there are none, or an `--exclude` fits none.
        """
        left_alone = set(self.find_excluded())
        return {
            key: weight for key, weight in self._find_prunable().items() if key not in left_alone
        }

    def find_excluded(self) -> tuple[str, ...]:
        """The keys that `--exclude` fits.

        Raises:
            InputError: a pattern fits none, or together they leave nothing to prune.
        """
        if not self.exclude:
            return ()
        keys, tied = (
            (*self._find_prunable(), *self.find_made(), *self._look_for_unused()),
            self.find_tied(),
        )
        left_alone = find_excluded({key: self._names(key, tied) for key in keys}, self.exclude)
        if not self._find_prunable().keys() - set(left_alone):
            raise InputError("leaves nothing to prune", field="--exclude")
        return left_alone

    def find_unused(self) -> tuple[str, ...]:
        """Weights that no convolution or linear layer of the pass used; they are not pruned."""
        left_alone = self.find_excluded()
        return tuple(key for key in self._look_for_unused() if key not in left_alone)

    def find_made(self) -> Mapping[str, str]:
        """Weights that are made of other parameters as a whole, as by weight norm: by what."""
        return self.network.made if self.network else find_parametrized(self.checkpoint.tensors)

    def find_tied(self) -> Mapping[str, tuple[str, ...]]:
        """All names of each tensor: those of the network, or without one, of the same memory."""
        if self.network is None:
            return find_tied_tensors(self.checkpoint.tensors)
        return find_aliases(self.network.module)

    def require_one_by_one(self) -> None:
        """Refuse weights that cannot be pruned one by one, unless `--exclude` leaves them out.

        Raises:
            InputError: there is one; it is named.
        """
        left_alone = self.find_excluded()
        for key, how in self.find_made().items():
            if key not in left_alone:
                raise InputError(
                    f"is made by {how}: a 0 in the file is no 0 in the weight that the network "
                    "applies, or changes others",
                    file=self.checkpoint.path,
                    field=key,
                    hint="save it with remove_parametrizations or remove_weight_norm applied, "
                    "as the network applies it, or leave it out with --exclude",
                )

    def _names(self, key: str, tied: Mapping[str, tuple[str, ...]]) -> list[str]:
        """Every name of a weight, in the network and in the file, and of what it is a part of."""
        names = [*tied.get(key, (key,)), self.checkpoint.names.get(key, key)]
        return [*names, *map(strip_part_suffix, names)]

    def _look_for_unused(self) -> tuple[str, ...]:
        return find_unused_weights(self.network, self.checkpoint.tensors) if self.network else ()

    def _find_prunable(self) -> dict[str, Tensor]:
        tensors = self.checkpoint.tensors
        keys = set(self.network.layers if self.network else find_prunable_weights(tensors))
        found = {
            key: compute_effective_weight(tensors, key)
            for key in tensors
            if key in keys and tensors[key].numel()
        }
        if not found:
            raise self._nothing_error()
        return found

    def _nothing_error(self) -> InputError:
        """There is nothing to prune: what was left alone, and why."""
        tensors = self.checkpoint.tensors
        others = {
            **find_unprunable(tensors),
            **dict.fromkeys(find_tiny_weights(tensors), "8-bit floats"),
        }
        skipped = format_names([f"{name} ({why})" for name, why in others.items()])
        return InputError(
            f"nothing to prune among {len(tensors)} tensors"
            + (f"; not taken for weights of layers: {skipped}" if others else ""),
            file=self.checkpoint.path,
            hint="no layer was used in the forward pass"
            if self.network
            else "weights are float tensors of 2 to 5 dimensions named *weight",
        )


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
        """As `PrunableWeights.find_weights`."""
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
                f"there are no {format_split(name)} {self.noun}",
                field="--data",
                hint=hints.get(name),
            )
        return split

    @property
    def noun(self) -> str:
        """What messages call the samples: `images` or `samples`."""
        return name_samples(self.data_spec.name) if self.data_spec else IMAGES

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


def make_one_shot(
    target: Target,
    calibration: Calibration | None,
    progress: Progress = SILENT,
    *,
    tuning_images: int | None = None,
) -> OneShot:
    """The target's network, ready to be scored and pruned.

    `tuning_images` is how many training images a repair may tune on, where it tunes.
    """
    tunes = target.runnable is not None and tuning_images is not None
    return OneShot(
        target.network,
        target.find_weights(),
        batches=target.calibration_batches if target.runnable is not None else None,
        tuning_batches=target.batches("train", tuning_images) if tunes else None,
        calibration=calibration,
        seed=target.options.seed,
        progress=progress,
    )


def warn_of_unused_criterion(scores: Scores) -> list[str]:
    """A warning where the criterion scored nothing."""
    if scores.by_criterion:
        return []
    return [f"no layer could be scored by {scores.criterion}: all went by magnitude"]
