"""ONNX files, as torch exports them, with the network's outputs and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from snnprune.errors import InputError, Note
from snnprune.export.exporters import (
    NEEDED,
    RecordedNetwork,
    convert_package_errors,
    copy_layer_values,
    import_package,
    require_weights,
)
from snnprune.files.writing import replace_file
from snnprune.graph.libraries import use_plain_operations

LARGEST = 2**31 - 2**20  # bytes of tensors: protobuf takes no file of 2 GiB
NOTICEABLE = 1e-3
SHARE = 0.01  # of the outputs' mean size, by which they may differ on the average
DRAWS = {
    *("Bernoulli", "Dropout", "Multinomial"),
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
}
"""Operators that draw at random, from numbers of their own; no Dropout is left in eval mode."""


@torch.no_grad()
def write_onnx(path: Path, seen: RecordedNetwork) -> tuple[str, ...]:
    """Write the network as ONNX, if ONNX Runtime then does what it does; notes on it.

    Raises:
        InputError: torch cannot export it, or something else came out.
        OutputError: the file cannot be written.
    """
    for package in NEEDED["onnx"]:
        import_package(package, to="onnx")
    _require_exportable(seen)
    layers = copy_layer_values(seen.network)
    wanted = _compute_outputs(seen, seen.sample)
    with replace_file(path) as temporary:
        try:
            _export(temporary, seen, any_size=True)
            notes = _check_outputs(temporary, seen, wanted)
        except InputError:  # a loop over the first dimension has been unrolled, for one
            _export(temporary, seen, any_size=False)
            notes = _check_outputs(temporary, seen, wanted)
        require_weights(_read_constants(temporary), layers, what="file")
    return notes


def _require_exportable(seen: RecordedNetwork) -> None:
    if seen.calls > 1:
        raise InputError(
            f"calls the model {seen.calls} times, and ONNX keeps no membrane from one to the next",
            field="--forward",
            hint="loop over time in the model's own forward",
        )
    if sum(tensor.nbytes for tensor in seen.module.state_dict().values()) > LARGEST:
        raise InputError("one ONNX file holds no more than 2 GiB", field="--to onnx")


def _compute_outputs(seen: RecordedNetwork, x: Tensor) -> list[Tensor]:
    """All tensors that the network puts out, from rest."""
    with use_plain_operations(seen.module), seen.network.reset_between_batches() as reset:
        reset()
        found = tree_leaves(seen.module(x.clone()))
        return [one.clone() for one in found if isinstance(one, Tensor)]


def _export(path: Path, seen: RecordedNetwork, *, any_size: bool) -> None:
    """Write it without optimisation, which would fold BatchNorms into the weights."""
    with (
        use_plain_operations(seen.module),
        seen.network.reset_between_batches() as reset,
        convert_package_errors("torch.onnx", to="onnx"),
    ):
        reset()
        program = torch.onnx.export(
            seen.module,
            (seen.sample.clone(),),
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=["input"],
            dynamic_shapes=({0: torch.export.Dim.AUTO},) if any_size else None,
        )
        assert program is not None
        program.save(str(path), external_data=False)
    _strip_traces(path)


def _strip_traces(path: Path) -> None:
    """Leave out where in whose source each operation was: paths and lines of this machine."""
    onnx = import_package("onnx", to="onnx")
    with convert_package_errors("onnx", to="onnx"):
        model = onnx.load(path)
        for graph in (model.graph, *model.functions):
            values = (
                [*graph.input, *graph.output, *graph.value_info] if graph is model.graph else []
            )
            for part in (graph, *graph.node, *values):
                part.ClearField("metadata_props")
                part.ClearField("doc_string")
        onnx.save(model, path)


def _read_constants(path: Path) -> dict[str, Tensor]:
    """What the file holds, by the names of the network."""
    onnx = import_package("onnx", to="onnx")
    helper = import_package("onnx.numpy_helper", to="onnx")
    with convert_package_errors("onnx", to="onnx"):
        held = onnx.load(path).graph.initializer
        return {one.name: torch.from_numpy(helper.to_array(one).copy()) for one in held}


def _require_no_draws(path: Path) -> None:
    """What happens to be drawn alike in one run is not in the next.

    Raises:
        InputError: the file draws at random.
    """
    onnx = import_package("onnx", to="onnx")
    with convert_package_errors("onnx", to="onnx"):
        model = onnx.load(path)
    graphs = [model.graph, *model.functions]
    for graph in graphs:  # grows by those of loops and branches
        for node in graph.node:
            if node.op_type in DRAWS:
                raise InputError(
                    f"the network draws at random ({node.op_type}), "
                    "and ONNX Runtime draws other numbers",
                    field="--to onnx",
                    hint="draw the input's spikes outside the network",
                )
            graphs += [held.g for held in node.attribute if held.HasField("g")]


def _check_outputs(path: Path, seen: RecordedNetwork, wanted: list[Tensor]) -> tuple[str, ...]:
    """Notes where rounding can be seen, or the size of a batch is fixed.

    Raises:
        InputError: the outputs are others, or would be another time.
    """
    _require_no_draws(path)
    runtime, x = import_package("onnxruntime", to="onnx"), seen.sample
    with convert_package_errors("ONNX Runtime", to="onnx"):
        runtime.set_default_logger_severity(3)  # errors; C++ prints past Python's stderr
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        notes = _note_difference(wanted, _run_session(session, x))
        if not isinstance(session.get_inputs()[0].shape[0], str):
            return (*notes, Note(f"the file takes inputs of shape {tuple(x.shape)} alone"))
        twice = torch.cat([x, x])
        return notes or _note_difference(
            _compute_outputs(seen, twice), _run_session(session, twice)
        )


def _run_session(session: Any, x: Tensor) -> list[Tensor]:
    entry = session.get_inputs()[0].name
    return [torch.as_tensor(one) for one in session.run(None, {entry: x.numpy()})]


def _note_difference(wanted: list[Tensor], found: list[Tensor]) -> tuple[str, ...]:
    if [one.shape for one in wanted] != [one.shape for one in found]:
        raise _mismatch_error("shapes")
    most = 0.0
    for one, other in zip(wanted, found, strict=True):
        apart = (one.double() - other.double()).abs()
        if not apart.mean() <= SHARE * one.double().abs().mean() + 1e-6:
            raise _mismatch_error("values")
        most = max(most, float(apart.max()))
    if most < NOTICEABLE:
        return ()
    return (f"rounding decided some spikes otherwise: outputs differ by up to {most:.2g}",)


def _mismatch_error(what: str) -> InputError:
    return InputError(
        f"ONNX Runtime puts out other {what} than the network",
        field="--to onnx",
        hint="the network does what torch.export does not see",
    )
