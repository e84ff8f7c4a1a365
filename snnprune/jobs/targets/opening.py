"""From what a command line says to a target: read, build, load, open.

And a second checkpoint of the same network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.checkpoint.checkpoint import Checkpoint, find_prunable_weights, fold_masks
from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.naming import STATES
from snnprune.data import DataOptions, DataSet, DataSpec, OtherData, open_data_with
from snnprune.data.batches import Pair, describe_batch, has_several_labels
from snnprune.data.images import ImageSplit
from snnprune.distributed.ranks import choose_device
from snnprune.errors import InputError, Note, format_names
from snnprune.graph.calls import describe_restless
from snnprune.graph.forward import (
    Forward,
    Readout,
    load_forward,
    load_reading,
    place_time_first,
    require_as_many,
)
from snnprune.graph.network import Network
from snnprune.graph.samples_and_steps import Placement, find_placement
from snnprune.graph.state import unwrap
from snnprune.graph.trace import trace
from snnprune.jobs.targets.binding import (
    bind_checkpoint,
    load_tensors,
    make_checkpoint,
    strip_network_prefix,
)
from snnprune.jobs.targets.options import TargetOptions, matches_pattern
from snnprune.jobs.targets.provenance import read_data_spec, read_model_spec
from snnprune.jobs.targets.stored import NO_MODEL
from snnprune.jobs.targets.target import Target
from snnprune.models import MODELS, ModelSpec, build_model, has_argument, read_argument
from snnprune.plugins.names import explain_text_argument, flag_of, is_own_function
from snnprune.plugins.user_code import guard_user_code, is_reference
from snnprune.pruning.structure import read_shapes
from snnprune.pruning.structure.compact import resize_module

ALL_LEARNT = "the network has learnt from all of them"


def open_target(options: TargetOptions) -> Target:
    """Read the checkpoint, build its network and open its data, as far as they are known.

    Raises:
        InputError: the checkpoint is unreadable, does not fit the model, or something that was
            asked for by name cannot be had.
        UsageError: there is no such device.
    """
    device, given = _choose_device(options), options.given
    reading = load_reading(options.readout, function=given.readout if given else None)
    checkpoint = read_target(options)
    spec = _choose_model_spec(options, checkpoint)
    data_spec = _choose_data_spec(options, checkpoint)
    data, no_data = _open_data(options, spec, data_spec, checkpoint)
    if data is not None and data_spec is not None and data.held_out:
        data_spec = replace(data_spec, validation=data.held_out)
    network, no_network = None, NO_MODEL
    forward = load_forward(
        options.forward,
        given.name if given else options.model,
        function=given.forward if given else None,
    )
    doubts = tuple[str, ...]()
    told = place_time_first(forward, options.forward, data)
    if spec is not None:
        module, checkpoint = _load_module(spec, checkpoint)
        example = read_example(spec, data, device)
        no_network = "the model cannot be traced without data"
        if example is not None:
            readout = Readout(reading, name=options.readout)
            with explain_text_argument(spec.args, flag=flag_of("--model")):
                network, ran = _trace_module(
                    module.to(device).eval(), example.x, forward, readout, options
                )
            require_as_many(ran, *example, reading)
            placed = _find_placement(network, example, ran, own=is_reference(spec.name))
            network, doubts = placed.network, placed.doubts
            if told is not forward:  # not before: where a network looks for samples is tried
                network = network.with_forward(told)
        notes = (
            *_note_picture_scale(spec, data),
            *_note_labels(example),
            *_note_derived_weights(network),
            *_note_eval_mode(network),
            *doubts,
        )
        checkpoint = replace(checkpoint, notes=(*checkpoint.notes, *notes))
    else:
        checkpoint = fold_masks(checkpoint)
    return Target(
        options=options,
        checkpoint=checkpoint,
        device=device,
        spec=spec,
        network=network,
        data_spec=data_spec,
        data=data,
        missing=no_network if network is None else no_data,
    )


def _choose_device(options: TargetOptions) -> torch.device:
    """The device that was asked for; a network of this process stays where it is."""
    if options.given is not None and options.device == "auto":
        device: torch.device = options.given.device
        return device
    return choose_device(options.device)


def _note_picture_scale(spec: ModelSpec, data: DataSet | None) -> list[str]:
    """A note where a network of the user's own gets pictures in another scale than raw ones."""
    split = data and (data.train or data.test)
    if not isinstance(split, ImageSplit) or not is_reference(spec.name) or not any(split.mean):
        return []
    mean, std = (", ".join(f"{v:.3f}" for v in values) for values in (split.mean, split.std))
    return [
        f"{data.name if data else ''} is fed as (v / 255 - {mean}) / {std}; a network that was "
        "trained on another scale needs a loader of its own"
    ]


def _note_derived_weights(network: Network | None) -> list[str]:
    """Notes on what the network does to what is in the file before it applies it."""
    if network is None:
        return []
    made, kept = list(network.made), list(network.kept)
    notes = []
    if made:
        how = network.made[made[0]]
        notes.append(
            f"{format_names(made)}: the network makes the weights that it applies of these, "
            f"by {how}: zeros in the file are not zeros in the network"
        )
    if kept:
        notes.append(Note(f"left alone: {format_names(kept)}, which kernels are made with"))
    return notes


def _note_eval_mode(network: Network | None) -> list[str]:
    """Notes on what the network does in eval mode as if it were trained."""
    if network is None:
        return []
    return [*describe_restless(network.restless, draws=network.draws is not None)]


def _note_labels(example: Pair | None) -> list[str]:
    """A note where the labels of a batch may be others than those that are taken."""
    if example is None or not has_several_labels(example.x):
        return []
    return ["the second part of a batch is taken for its labels; others could be labels too"]


def _trace_module(
    module: nn.Module, example: Any, forward: Forward, readout: Readout, options: TargetOptions
) -> tuple[Network, Any]:
    """The network of `module`, and what it put out; that it takes the data shows here first."""
    ran: Any = None

    def keeping(module: nn.Module, x: Any) -> Any:
        nonlocal ran
        ran = forward(module, x)
        return ran

    with guard_user_code(f"running the model on {describe_batch(example)}", field="--model"):
        network = trace(module, example, run=keeping, links=options.links)
    network = network.with_forward(forward).with_readout(readout)
    return (network if network.draws is None else replace(network, draws=options.seed)), ran


def _find_placement(network: Network, example: Pair, ran: Any, *, own: bool) -> Placement:
    """Where the samples of a batch lie: how a network of one's own has them is tried."""
    if not own:
        return Placement(network=network)
    with guard_user_code(f"running the model on {describe_batch(example.x)}", field="--model"):
        return find_placement(network, *example, ran=ran)


def _load_module(spec: ModelSpec, checkpoint: Checkpoint) -> tuple[nn.Module, Checkpoint]:
    """The module of `spec` with the checkpoint's tensors, and these by its keys."""
    if spec.name in MODELS.rows:  # without memory first: the file may have chosen the arguments
        with torch.device("meta"):
            bind_checkpoint(build_module(spec, checkpoint), checkpoint)
    module = build_module(spec, checkpoint)
    checkpoint = bind_checkpoint(module, checkpoint)
    load_tensors(module, checkpoint.tensors)
    return module, checkpoint


def build_module(spec: ModelSpec, checkpoint: Checkpoint) -> nn.Module:
    """The module of `spec`, without the channels that the file says were removed from it."""
    module = unwrap(build_model(spec))
    held = {key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()}
    try:
        shapes = read_shapes(checkpoint.metadata, held)
        return module if shapes is None else resize_module(module, shapes)
    except InputError as error:
        error.file = error.file or str(checkpoint.path)
        raise


def _choose_model_spec(options: TargetOptions, checkpoint: Checkpoint) -> ModelSpec | None:
    if options.given is not None:
        return ModelSpec(name=options.given.name, builder=options.given.build)
    in_file = read_model_spec(checkpoint.metadata, asked=options.model)
    name = options.model or (in_file.name if in_file else None)
    if name is None:
        return None
    known = in_file.args if in_file and in_file.name == name else {}
    return ModelSpec(name=name, args=_merge_settings(known, options.model_args))


def _merge_settings(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, sections setting by setting."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge_settings(merged[name], value) if both else value
    return merged


def _choose_data_spec(options: TargetOptions, checkpoint: Checkpoint) -> DataSpec | None:
    in_file = read_data_spec(checkpoint.metadata, asked=options.data)
    if options.data is None or (in_file and in_file.name == options.data):
        return in_file
    return DataSpec(name=options.data)


def _open_data(
    options: TargetOptions, model: ModelSpec | None, data: DataSpec | None, file: Checkpoint
) -> tuple[DataSet | None, str | None]:
    """The data set, or why there is none."""
    if data is None:
        _require_use(options)
        return None, "the file does not say which data it was trained on"
    learnt = read_data_spec(file.metadata, asked=options.data) is not None
    args = model.args if model else {}
    how = DataOptions(
        root=options.data_root,
        download=options.download,
        validation=data.validation,
        hold_out=0.0 if learnt else options.hold_out,
        seed=data.seed,
        size=args.get("size"),
        channels=args.get("in_channels"),
        whole=is_own_function(options.forward),
    )
    others = {
        "test": OtherData(name=options.test_data, field="--test-data"),
        "validation": OtherData(name=options.eval_data, field="--eval-data"),
    }
    try:
        opened = open_data_with(
            data.name,
            others,
            options=how,
            field="--data",
            learnt_from=_list_training_sets(options, file),
            batches=options.given.batches if options.given else None,
        )
    except InputError as error:
        if options.data or options.test_data or options.eval_data:
            raise
        return None, f"{data.name}, which it was trained on, is not here ({error.message})"
    whole = learnt and not (data.validation or opened.validation or opened.test)
    return (replace(opened, undivided=ALL_LEARNT) if whole else opened), None


def _require_use(options: TargetOptions) -> None:
    """Refuse images that were named for a network that has no data beside them."""
    for field, name in (("--test-data", options.test_data), ("--eval-data", options.eval_data)):
        if name is not None:
            raise InputError(
                f"{name} is not used: the file does not say which data it was trained on",
                field=field,
                hint="give --data too",
            )


def _list_training_sets(options: TargetOptions, file: Checkpoint) -> list[str]:
    """The sets that statistics are of, and those that the file says it was trained on."""
    named = (options.test_data, options.eval_data)
    found = (read_data_spec(file.metadata, asked=name) for name in named if name is not None)
    return [*options.learnt_from, *(spec.name for spec in found if spec is not None)]


def read_example(
    spec: ModelSpec, data: DataSet | None, device: torch.device, *, count: int = 2
) -> Pair | None:
    """A batch to trace the network with: of the data, or blank pictures for a built-in model."""
    split = data and (data.train or data.test)
    if split:
        return Pair(*next(iter(split.batches(count, limit=count, device=device))))
    channels, size = read_argument(spec, "in_channels"), read_argument(spec, "size")
    if not isinstance(channels, int):
        return None
    if spec.name in MODELS.rows and not has_argument(spec, "size"):  # it takes no pictures
        return Pair(torch.zeros(2, count, channels, device=device), None)
    if not isinstance(size, int):
        return None
    return Pair(torch.zeros(count, channels, size, size, device=device), None)


def read_target(options: TargetOptions) -> Checkpoint:
    """Read the checkpoint of `options`.

    With `--allow-nonfinite`, a prunable weight that is NaN or infinite is taken for pruned: it is
    0 from here on, and a note says how many there were. Other tensors stay as they are.

    Raises:
        InputError: as `read_checkpoint`.
    """
    if options.given is not None:
        checkpoint = make_checkpoint(
            options.given.build(), options.checkpoint, allow_nonfinite=options.allow_nonfinite
        )
        checkpoint = replace(checkpoint, notes=(*options.given.notes, *checkpoint.notes))
    else:
        checkpoint = read_checkpoint(
            options.checkpoint,
            allow_nonfinite=options.allow_nonfinite,
            entry=options.state_dict,
        )
    if not options.allow_nonfinite:
        return checkpoint
    lost = {
        key: ~torch.isfinite(checkpoint.tensors[key])
        for key in find_prunable_weights(checkpoint.tensors)
        if not any(
            matches_pattern([key, checkpoint.names.get(key, key)], pattern)
            for pattern in options.exclude
        )
    }
    count = sum(int(wrong.sum()) for wrong in lost.values())
    if not count:
        return checkpoint
    note = Note(f"{count} weights that are NaN or infinite are taken for pruned")
    return replace(
        checkpoint,
        tensors={
            key: _zero_values(value, lost.get(key)) for key, value in checkpoint.tensors.items()
        },
        notes=(*checkpoint.notes, note),
    )


def _zero_values(tensor: Tensor, wrong: Tensor | None) -> Tensor:
    return tensor if wrong is None else torch.where(wrong, torch.zeros_like(tensor), tensor)


def read_other(target: Target, path: Path) -> Checkpoint:
    """The checkpoint at `path` by the keys of `target`, each of its tensors in the same shape.

    Raises:
        InputError: it is unreadable, or of another architecture; the first differences are named.
    """
    checkpoint = read_target(replace(target.options, checkpoint=path))
    mine = target.checkpoint.tensors
    if target.network is None:
        other = strip_network_prefix(fold_masks(checkpoint), mine, {})
        told = format_differences(mine, other.tensors)
    else:
        try:
            other = bind_checkpoint(target.network.module, checkpoint)
        except InputError as error:
            whole = strip_network_prefix(fold_masks(checkpoint), mine, {})
            told = format_differences(mine, whole.tensors) or error.message
        else:
            told = ""
    if told:
        raise InputError(
            f"is no checkpoint of the same network as {target.checkpoint.path.name}: {told}",
            file=path,
            hint="diff compares two checkpoints of one architecture",
        )
    return other


def format_differences(first: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """Which keys only one has, and which have another shape; nothing where none do.

    What neurons keep of a batch may be in either.
    """
    missing = [key for key in first if key not in other and not _is_state(key)]
    unexpected = [key for key in other if key not in first and not _is_state(key)]
    odd = [
        f"{key} {tuple(other[key].shape)} for {tuple(first[key].shape)}"
        for key in first
        if key in other and first[key].shape != other[key].shape and not _is_state(key)
    ]
    named = (("missing", missing), ("unexpected", unexpected), ("of another shape", odd))
    return "; ".join(f"{len(keys)} {what}: {format_names(keys, 3)}" for what, keys in named if keys)


def _is_state(key: str) -> bool:
    return key.rpartition(".")[2] in STATES
