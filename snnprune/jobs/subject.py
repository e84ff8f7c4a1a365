"""What a command works on: a checkpoint, the network it belongs to, and data to run it on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.checkpoint import Checkpoint, prunable_weights, read_checkpoint
from snnprune.data import DataOptions, DataSet, Split, open_data
from snnprune.data.images import ImageSplit
from snnprune.device import choose_device
from snnprune.errors import InputError
from snnprune.models import MODELS, ModelSpec, build_model
from snnprune.network import Network, trace
from snnprune.provenance import DataSpec, data_in, model_in

Batches = Iterator[tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, kw_only=True)
class SubjectOptions:
    """What the command line says of the subject; None is left to the file's own metadata."""

    checkpoint: Path
    model: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    data_root: Path | None = None
    download: bool = False
    device: str = "auto"
    batch_size: int = 128
    samples: int = 1024
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A checkpoint, and as much of its network and data as is at hand."""

    options: SubjectOptions
    checkpoint: Checkpoint
    device: torch.device
    spec: ModelSpec | None = None
    network: Network | None = None
    data_spec: DataSpec | None = None
    data: DataSet | None = None
    missing: str | None = None
    """Why the network or the data is not at hand."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """The prunable weights, on the CPU, by key and in the file's order.

        Raises:
            InputError: there are none.
        """
        tensors = self.checkpoint.tensors
        keys = self.network.layers if self.network else prunable_weights(tensors)
        found = {key: tensors[key] for key in tensors if key in keys}
        if not found:
            raise InputError(
                f"nothing to prune among {len(tensors)} tensors",
                file=self.checkpoint.path,
                hint="weights are float tensors of 2 to 5 dimensions named *weight",
            )
        return found

    def calibration_batches(self) -> Batches:
        """Training images without augmentation, a seeded sample of `options.samples`."""
        split = self._split("train")
        if isinstance(split, ImageSplit):
            split = split.sample(self.options.samples, self.options.seed)
        return split.batches(
            self.options.batch_size, limit=self.options.samples, device=self.device
        )

    def calibration_steps(self) -> int | None:
        """How many batches those are, where it is known before."""
        split = self._split("train")
        if not isinstance(split, ImageSplit):
            return None
        return -(-min(self.options.samples, len(split)) // self.options.batch_size)

    def batches(self, split: str, limit: int | None = None) -> Batches:
        """The images of `train`, `validation` or `test` in order."""
        batches = self._split(split).batches(
            self.options.batch_size, limit=limit, device=self.device
        )
        return iter(batches)

    def steps(self, split: str, limit: int | None = None) -> int | None:
        """How many batches those are, where it is known before."""
        images = self._split(split)
        if not isinstance(images, ImageSplit):
            return None
        return -(-min(limit or len(images), len(images)) // self.options.batch_size)

    def _split(self, name: str) -> Split:
        split: Split | None = getattr(self.data, name) if self.data else None
        if split is None:
            raise InputError(f"there are no {name} images", field="--data")
        return split

    def require_runnable(self) -> Network:
        """The network, where there is data to run it on.

        Raises:
            InputError: one of them is missing; the message says which and why.
        """
        if self.network is None or self.data is None:
            raise InputError(
                self.missing or "no network",
                file=self.checkpoint.path,
                hint="give --model and --data",
            )
        return self.network


def open_subject(options: SubjectOptions) -> Subject:
    """Read the checkpoint, build its network and open its data, as far as they are known.

    Raises:
        InputError: the checkpoint is unreadable, does not fit the model, or something that was
            asked for by name cannot be had.
        UsageError: there is no such device.
    """
    device = choose_device(options.device)
    checkpoint = read_checkpoint(options.checkpoint)
    spec = _model_spec(options, checkpoint)
    data_spec = _data_spec(options, checkpoint)
    data, no_data = _open_data(options, spec, data_spec)
    network, no_network = None, "the file does not say which model it is of"
    if spec is not None:
        module = _loaded(spec, checkpoint).to(device).eval()
        example = _example(spec, data, device)
        no_network = "the model cannot be traced without data"
        network = trace(module, example) if example is not None else None
    return Subject(
        options=options,
        checkpoint=checkpoint,
        device=device,
        spec=spec,
        network=network,
        data_spec=data_spec,
        data=data,
        missing=no_network if network is None else no_data,
    )


def require_fit(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that is not of this module.

    Raises:
        InputError: keys or shapes do not fit; at most five are named.
    """
    wanted, given = module.state_dict(), checkpoint.tensors
    absent = [key for key in wanted if key not in given]
    extra = [key for key in given if key not in wanted]
    odd = [
        f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    for what, keys in (("missing", absent), ("unexpected", extra), ("of another shape", odd)):
        if keys:
            raise InputError(
                f"does not fit the model: {len(keys)} of {len(wanted)} tensors {what}: "
                + ", ".join(keys[:5]),
                file=checkpoint.path,
                hint="is it the right --model, with the right --model-arg?",
            )


def _loaded(spec: ModelSpec, checkpoint: Checkpoint) -> nn.Module:
    """The module of `spec` with the checkpoint's tensors."""
    if spec.name in MODELS.rows:  # without memory first: the file may have chosen the arguments
        with torch.device("meta"):
            require_fit(build_model(spec), checkpoint)
    module = build_model(spec)
    require_fit(module, checkpoint)
    module.load_state_dict(checkpoint.tensors)
    return module


def _model_spec(options: SubjectOptions, checkpoint: Checkpoint) -> ModelSpec | None:
    in_file = model_in(checkpoint.metadata)
    if options.model is None:
        return in_file and ModelSpec(name=in_file.name, args={**in_file.args, **options.model_args})
    args = in_file.args if in_file and in_file.name == options.model else {}
    return ModelSpec(name=options.model, args={**args, **options.model_args})


def _data_spec(options: SubjectOptions, checkpoint: Checkpoint) -> DataSpec | None:
    in_file = data_in(checkpoint.metadata)
    if options.data is None or (in_file and in_file.name == options.data):
        return in_file
    return DataSpec(name=options.data)


def _open_data(
    options: SubjectOptions, model: ModelSpec | None, data: DataSpec | None
) -> tuple[DataSet | None, str | None]:
    """The data set, or why there is none."""
    if data is None:
        return None, "the file does not say which data it was trained on"
    args = model.args if model else {}
    how = DataOptions(
        root=options.data_root,
        download=options.download,
        validation=data.validation,
        seed=data.seed,
        size=args.get("size"),
        channels=args.get("in_channels"),
    )
    try:
        return open_data(data.name, options=how), None
    except InputError as error:
        if options.data is not None:
            raise
        return None, f"{data.name}, which it was trained on, is not here ({error.message})"


def _example(spec: ModelSpec, data: DataSet | None, device: torch.device) -> Tensor | None:
    """A batch to trace the network with: of the data, or blank pictures for a built-in model."""
    split = data and (data.train or data.test)
    if split:
        return next(iter(split.batches(2, limit=2, device=device)))[0]
    channels, size = spec.args.get("in_channels"), spec.args.get("size")
    if channels is None or size is None:
        return None
    return torch.zeros(1, channels, size, size, device=device)
