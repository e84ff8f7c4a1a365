"""From what a command line says to a subject: read, build, load, open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.checkpoint import Checkpoint, read_checkpoint
from snnprune.data import DataOptions, DataSet, open_data
from snnprune.device import choose_device
from snnprune.errors import InputError
from snnprune.jobs.subject import Subject, SubjectOptions
from snnprune.models import MODELS, ModelSpec, argument, build_model
from snnprune.network import Network, trace
from snnprune.provenance import DataSpec, data_in, model_in
from snnprune.user_code import calling_user_code


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
        network = _traced(module, example) if example is not None else None
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


def _traced(module: nn.Module, example: Tensor) -> Network:
    """The links of `module`; that it takes the data at all shows here first."""
    what = f"running the model on a batch of shape {tuple(example.shape)}"
    with calling_user_code(what, field="--model"):
        return trace(module, example)


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
    in_file = model_in(checkpoint.metadata, asked=options.model)
    name = options.model or (in_file.name if in_file else None)
    if name is None:
        return None
    known = in_file.args if in_file and in_file.name == name else {}
    return ModelSpec(name=name, args=_merged(known, options.model_args))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, sections setting by setting."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _data_spec(options: SubjectOptions, checkpoint: Checkpoint) -> DataSpec | None:
    in_file = data_in(checkpoint.metadata, asked=options.data)
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
    channels, size = argument(spec, "in_channels"), argument(spec, "size")
    if not isinstance(channels, int) or not isinstance(size, int):
        return None
    return torch.zeros(1, channels, size, size, device=device)
