"""From what a command line says to a subject: read, build, load, open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.weights import folded
from snnprune.data.batches import Pair, described, several_labels
from snnprune.data.dataset import DataOptions, DataSet
from snnprune.data.images import ImageSplit
from snnprune.data.others import Other, open_data_with
from snnprune.distributed.device import choose_device
from snnprune.errors import InputError
from snnprune.graph.forward import Forward, forward_of, reading_of, require_as_many
from snnprune.graph.mode import bare
from snnprune.graph.network import Network
from snnprune.graph.readout import Readout
from snnprune.graph.restless import told
from snnprune.graph.samples import Placement, place_samples
from snnprune.graph.trace import trace
from snnprune.jobs.targets.binding import bound, load
from snnprune.jobs.targets.options import SubjectOptions
from snnprune.jobs.targets.other import read_subject
from snnprune.jobs.targets.target import Subject
from snnprune.models import MODELS, ModelSpec, argument, build_model
from snnprune.plugins.forwards import is_own
from snnprune.plugins.references import flag_of, telling_of_text
from snnprune.plugins.user_code import calling_user_code, is_reference
from snnprune.pruning.structure.compact import resized
from snnprune.pruning.structure.structure import shapes_in
from snnprune.report.provenance import DataSpec, data_in, model_in
from snnprune.text import first_few

ALL_LEARNT = "the network has learnt from all of them"


def open_subject(options: SubjectOptions) -> Subject:
    """Read the checkpoint, build its network and open its data, as far as they are known.

    Raises:
        InputError: the checkpoint is unreadable, does not fit the model, or something that was
            asked for by name cannot be had.
        UsageError: there is no such device.
    """
    device = choose_device(options.device)
    reading = reading_of(options.readout)
    checkpoint = read_subject(options)
    spec = _model_spec(options, checkpoint)
    data_spec = _data_spec(options, checkpoint)
    data, no_data = _open_data(options, spec, data_spec, checkpoint)
    if data is not None and data_spec is not None and data.held_out:
        data_spec = replace(data_spec, validation=data.held_out)
    network, no_network = None, "the file does not say which model it is of"
    forward, doubts = forward_of(options.forward, options.model), tuple[str, ...]()
    if spec is not None:
        module, checkpoint = _loaded(spec, checkpoint)
        example = example_of(spec, data, device)
        no_network = "the model cannot be traced without data"
        if example is not None:
            readout = Readout(reading, name=options.readout)
            with telling_of_text(spec.args, flag=flag_of("--model")):
                network, ran = _traced(
                    module.to(device).eval(), example.x, forward, readout, options
                )
            require_as_many(ran, *example, reading)
            placed = _placed(network, example, ran, own=is_reference(spec.name))
            network, doubts = placed.network, placed.doubts
        notes = (
            *_standardised(spec, data),
            *_on_labels(example),
            *_made(network),
            *_in_eval(network),
            *doubts,
        )
        checkpoint = replace(checkpoint, notes=(*checkpoint.notes, *notes))
    else:
        checkpoint = folded(checkpoint)
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


def _standardised(spec: ModelSpec, data: DataSet | None) -> list[str]:
    """A note where a network of the user's own gets pictures in another scale than raw ones."""
    split = data and (data.train or data.test)
    if not isinstance(split, ImageSplit) or not is_reference(spec.name) or not any(split.mean):
        return []
    mean, std = (", ".join(f"{v:.3f}" for v in values) for values in (split.mean, split.std))
    return [
        f"{data.name if data else ''} is fed as (v / 255 - {mean}) / {std}; a network that was "
        "trained on another scale needs a loader of its own"
    ]


def _made(network: Network | None) -> list[str]:
    """Notes on what the network does to what is in the file before it applies it."""
    if network is None:
        return []
    made, kept = list(network.made), list(network.kept)
    notes = []
    if made:
        how = network.made[made[0]]
        notes.append(
            f"{first_few(made)}: the network makes the weights that it applies of these, by {how}: "
            "zeros in the file are not zeros in the network"
        )
    if kept:
        notes.append(f"left alone: {first_few(kept)}, which kernels are made with")
    return notes


def _in_eval(network: Network | None) -> list[str]:
    """Notes on what the network does in eval mode as if it were trained."""
    if network is None:
        return []
    return [*told(network.restless, draws=network.draws is not None)]


def _on_labels(example: Pair | None) -> list[str]:
    """A note where the labels of a batch may be others than those that are taken."""
    if example is None or not several_labels(example.x):
        return []
    return ["the second part of a batch is taken for its labels; others could be labels too"]


def _traced(
    module: nn.Module, example: Any, forward: Forward, readout: Readout, options: SubjectOptions
) -> tuple[Network, Any]:
    """The network of `module`, and what it put out; that it takes the data shows here first."""
    ran: Any = None

    def keeping(module: nn.Module, x: Any) -> Any:
        nonlocal ran
        ran = forward(module, x)
        return ran

    with calling_user_code(f"running the model on {described(example)}", field="--model"):
        network = trace(module, example, run=keeping, links=options.links)
    network = network.with_forward(forward).with_readout(readout)
    return (network if network.draws is None else replace(network, draws=options.seed)), ran


def _placed(network: Network, example: Pair, ran: Any, *, own: bool) -> Placement:
    """Where the samples of a batch lie: how a network of one's own has them is tried."""
    if not own:
        return Placement(network=network)
    with calling_user_code(f"running the model on {described(example.x)}", field="--model"):
        return place_samples(network, *example, ran=ran)


def _loaded(spec: ModelSpec, checkpoint: Checkpoint) -> tuple[nn.Module, Checkpoint]:
    """The module of `spec` with the checkpoint's tensors, and these by its keys."""
    if spec.name in MODELS.rows:  # without memory first: the file may have chosen the arguments
        with torch.device("meta"):
            bound(built(spec, checkpoint), checkpoint)
    module = built(spec, checkpoint)
    checkpoint = bound(module, checkpoint)
    load(module, checkpoint.tensors)
    return module, checkpoint


def built(spec: ModelSpec, checkpoint: Checkpoint) -> nn.Module:
    """The module of `spec`, without the channels that the file says were removed from it."""
    module = bare(build_model(spec))
    held = {key: tuple(tensor.shape) for key, tensor in checkpoint.tensors.items()}
    try:
        shapes = shapes_in(checkpoint.metadata, held)
        return module if shapes is None else resized(module, shapes)
    except InputError as error:
        error.file = error.file or str(checkpoint.path)
        raise


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
    options: SubjectOptions, model: ModelSpec | None, data: DataSpec | None, file: Checkpoint
) -> tuple[DataSet | None, str | None]:
    """The data set, or why there is none."""
    if data is None:
        _require_use(options)
        return None, "the file does not say which data it was trained on"
    learnt = data_in(file.metadata, asked=options.data) is not None
    args = model.args if model else {}
    how = DataOptions(
        root=options.data_root,
        download=options.download,
        validation=data.validation,
        hold_out=0.0 if learnt else options.hold_out,
        seed=data.seed,
        size=args.get("size"),
        channels=args.get("in_channels"),
        whole=is_own(options.forward),
    )
    others = {
        "test": Other(name=options.test_data, field="--test-data"),
        "validation": Other(name=options.eval_data, field="--eval-data"),
    }
    try:
        opened = open_data_with(
            data.name, others, options=how, field="--data", learnt_from=_learnt_from(options, file)
        )
    except InputError as error:
        if options.data or options.test_data or options.eval_data:
            raise
        return None, f"{data.name}, which it was trained on, is not here ({error.message})"
    whole = learnt and not (data.validation or opened.validation or opened.test)
    return (replace(opened, undivided=ALL_LEARNT) if whole else opened), None


def _require_use(options: SubjectOptions) -> None:
    """Refuse images that were named for a network that has no data beside them."""
    for field, name in (("--test-data", options.test_data), ("--eval-data", options.eval_data)):
        if name is not None:
            raise InputError(
                f"{name} is not used: the file does not say which data it was trained on",
                field=field,
                hint="give --data too",
            )


def _learnt_from(options: SubjectOptions, file: Checkpoint) -> list[str]:
    """The sets that statistics are of, and those that the file says it was trained on."""
    named = (options.test_data, options.eval_data)
    found = (data_in(file.metadata, asked=name) for name in named if name is not None)
    return [*options.learnt_from, *(spec.name for spec in found if spec is not None)]


def example_of(
    spec: ModelSpec, data: DataSet | None, device: torch.device, *, count: int = 2
) -> Pair | None:
    """A batch to trace the network with: of the data, or blank pictures for a built-in model."""
    split = data and (data.train or data.test)
    if split:
        return Pair(*next(iter(split.batches(count, limit=count, device=device))))
    channels, size = argument(spec, "in_channels"), argument(spec, "size")
    if not isinstance(channels, int) or not isinstance(size, int):
        return None
    return Pair(torch.zeros(count, channels, size, size, device=device), None)
