# lambdas that hold what a loop is at
# mypy: disable-error-code="misc"
"""Cases of calibration, score and mask files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from corpus.bench import CALIBRATION, MASK, MODEL, SCORES, Bench
from corpus.case import Files, add, bad, good
from corpus.spoilt import spoils
from corpus.taken_apart import changed, contents, header_of, like, raw, with_value, written
from snnprune.checkpoint.header import SHAPES
from snnprune.jobs.targets import provenance
from snnprune.measure.calibration import FORMAT
from snnprune.models import NOTE

CONV = "blocks.0.conv.weight"  # between spikes and a neuron: what sf scores


def _calibrated(bench: Bench) -> Files:
    return {CALIBRATION: bench.bytes_of(CALIBRATION)}


@good("calibration")
def as_calibrate_writes_it(bench: Bench) -> Files:
    return _calibrated(bench)


LATER = ("membrane_mean_step", "membrane_var_step", "input_mean", "input_square", "weight")


@good("calibration")
def of_before_some_statistics_were_taken(bench: Bench) -> Files:
    tensors, texts = contents(bench.bytes_of(CALIBRATION))
    kept = {k: t for k, t in tensors.items() if k.split("/")[0] not in LATER}
    return {CALIBRATION: written(kept, texts)}


@good("calibration")
def warnings_that_are_hostile_to_whoever_shows_them(bench: Bench) -> Files:
    return _notes("warnings", ["::error file=x::boom", "\x1b[2J\u202e"])(bench)


def _notes(path: str, value: Any) -> Callable[[Bench], Files]:
    """A good calibration whose notes say something else at that place."""

    def made(bench: Bench) -> Files:
        data = bench.bytes_of(CALIBRATION)
        notes = json.loads(contents(data)[1][FORMAT])
        text = json.dumps(with_value(notes, path, value))
        return {CALIBRATION: changed(data, metadata={FORMAT: text})}

    return made


def _statistics(bend: Callable[[Tensor], Tensor | None], *names: str) -> Callable[[Bench], Files]:
    """A good calibration with these tensors of the convolution bent."""

    def made(bench: Bench) -> Files:
        data = bench.bytes_of(CALIBRATION)
        tensors, _ = contents(data)
        bent = {f"{n}/{CONV}": bend(tensors[f"{n}/{CONV}"]) for n in names}
        return {CALIBRATION: changed(data, bent)}

    return made


MEMBRANES = ("membrane_mean", "membrane_var", "threshold", "bn_scale", "input_rate")
for _statistic in MEMBRANES:
    for _name, _bend in {
        "that is NaN": lambda t: like(t, math.nan),
        "that is infinite": lambda t: like(t, math.inf),
        "that is missing": lambda t: None,
        "of another size": lambda t: torch.cat([t, t]),
        "of more dimensions": lambda t: t.unsqueeze(0).expand(3, *t.shape).clone(),
        "of whole numbers": lambda t: t.int(),
        "of nothing": lambda t: t[:0] if t.dim() else t.reshape(1)[:0],
    }.items():
        add("calibration", f"a {_statistic} {_name}", _statistics(_bend, _statistic))
for _name, _make in {
    "a negative variance": _statistics(lambda t: like(t, -1.0), "membrane_var"),
    "a negative input rate": _statistics(lambda t: like(t, -1.0), "input_rate"),
    "a step's mean of another size": _statistics(lambda t: t[..., :1], "membrane_mean_step"),
    "a step's mean of NaN": _statistics(lambda t: like(t, math.nan), "membrane_mean_step"),
    "a histogram of negative counts": _statistics(lambda t: like(t, -1), "membrane_histogram"),
    "a histogram of another size": _statistics(lambda t: t[:, :1], "membrane_histogram"),
    "an input square of another size": _statistics(lambda t: t[:1], "input_square"),
    "notes of -1 samples": _notes("samples", -1),
    "notes of no samples": _notes("samples", 0),
    "notes of 2 ** 70 time steps": _notes("time_steps", 2**70),
    "notes of -2 time steps": _notes("time_steps", -2),
    "notes of samples in words": _notes("samples", "many"),
    "notes of layers in a list": _notes("layers", []),
    "notes of a layer that is not there": _notes(
        "layers", {"\x1b[31mx": {"input_values": "spikes", "drives": []}}
    ),
    "notes of inputs of no kind": _notes(
        "layers", {CONV: {"input_values": "\x1b[31m", "drives": []}}
    ),
    "notes of a gain that is NaN": _notes("layers", {CONV: {
        "input_values": "spikes",
        "drives": [{"neuron": "blocks.0.neuron", "time_gain": math.nan}],
    }}),
    "notes of another neuron": _notes("layers", {CONV: {
        "input_values": "spikes", "drives": [{"neuron": "\x1b[31m", "time_gain": 1.0}],
    }}),
    "notes of a source that is a list": _notes("source", ["a"]),
    "a model": lambda bench: {CALIBRATION: bench.bytes_of(MODEL)},
    "a mask file": lambda bench: {CALIBRATION: bench.bytes_of(MASK)},
    "notes that are deep": lambda bench: {
        CALIBRATION: changed(bench.bytes_of(CALIBRATION), metadata={FORMAT: "[" * 100_000})
    },
    "edges that are NaN": lambda bench: _edges(bench, math.nan),
    "edges of one number": lambda bench: _edges(bench, 0.0, size=1),
}.items():  # fmt: skip
    add("calibration", _name, _make)


def _edges(bench: Bench, value: float, size: int = 65) -> Files:
    edges = torch.full((size,), value)
    return {CALIBRATION: changed(bench.bytes_of(CALIBRATION), {"histogram_edges": edges})}


@bad("calibration")
def of_a_wider_network(bench: Bench) -> Files:
    tensors, texts = contents(bench.bytes_of(CALIBRATION))
    wider = {k: torch.cat([t, t]) if t.dim() and "/" in k else t for k, t in tensors.items()}
    return {CALIBRATION: written(wider, texts)}


spoils("calibration", CALIBRATION, _calibrated)


@good("scores")
def as_score_writes_them(bench: Bench) -> Files:
    tensors, texts = contents(bench.bytes_of(SCORES))
    # as of a checkpoint that names no network: the scores of some layers do not fit a whole one
    kept = {key: text for key, text in texts.items() if key not in (NOTE, provenance.DATA_SET)}
    return {SCORES: written(tensors, kept)}


@bad("scores")
def scores_of_pruned_weights(bench: Bench) -> Files:
    data = as_score_writes_them(bench)[SCORES]
    tensor = contents(data)[0][CONV]
    return {SCORES: changed(data, {CONV: like(tensor, -math.inf)})}


spoils("scores", SCORES, as_score_writes_them)


def _masks(bench: Bench) -> Files:
    return {MASK: bench.bytes_of(MASK)}


@good("mask")
def as_prune_writes_it(bench: Bench) -> Files:
    return _masks(bench)


@good("mask")
def of_one_layer_alone(bench: Bench) -> Files:
    return _mask_of({CONV: [4, 2, 3, 3]}, {CONV: torch.full((9,), 255, dtype=torch.uint8)})


@good("mask")
def bits_after_the_last(bench: Bench) -> Files:
    ones = torch.full((3,), 255, dtype=torch.uint8)
    return _mask_of({"encoder.conv.weight": [2, 1, 3, 3]}, {"encoder.conv.weight": ones})


def _mask_of(shapes: Any, tensors: Mapping[str, Tensor]) -> Files:
    text = shapes if isinstance(shapes, str) else json.dumps(shapes)
    return {MASK: written(tensors, {SHAPES: text})}


NINE = torch.full((9,), 255, dtype=torch.uint8)
for _name, _shapes in {
    "a shape of 2 ** 40": {CONV: [2**40]},
    "a shape that overflows": {CONV: [2**32, 2**32]},
    "a shape below 0": {CONV: [-4, 2, 3, 3]},
    "a shape of fractions": {CONV: [4.0, 2, 3, 3]},
    "a shape of true": {CONV: [True, 72]},
    "a shape of text": {CONV: "4233"},
    "a shape of nothing": {CONV: [0]},
    "no shape": {},
    "a shape of no tensor": {CONV: [4, 2, 3, 3], "\x1b[31m": [1]},
    "shapes in a list": [[4, 2, 3, 3]],
    "shapes that are deep": "[" * 100_000,
    "shapes that are no JSON": "{\x1b[31m",
    "a layer twice": f'{{"{CONV}": [72], "{CONV}": [4, 2, 3, 3]}}',
    "another order of the same size": {CONV: [2, 4, 3, 3]},
    "a shape of too few": {CONV: [4, 2, 3, 2]},
}.items():
    add("mask", _name, lambda bench, shapes=_shapes: _mask_of(shapes, {CONV: NINE}))
for _name, _tensors in {
    "bits as booleans": {CONV: torch.ones(9, dtype=torch.bool)},
    "bits as numbers": {CONV: torch.ones(9)},
    "bits in a table": {CONV: NINE.reshape(3, 3)},
    "too few bits": {CONV: NINE[:8]},
    "too many bits": {CONV: torch.cat([NINE, NINE])},
}.items():
    add("mask", _name, lambda bench, held=_tensors: _mask_of({CONV: [4, 2, 3, 3]}, held))
for _name, _layer, _shape in (
    ("a layer of hostile text", "\x1b[31m::error::\u202e", [72]),
    ("a layer that is not there", "nowhere.weight", [72]),
    ("a buffer", "encoder.norm.running_var", [72]),
    ("a bias of another size", "classifier.bias", [72]),
):
    add("mask", _name, lambda bench, n=_layer, s=_shape: _mask_of({n: s}, {n: NINE}))


@bad("mask")
def a_model(bench: Bench) -> Files:
    return {MASK: bench.bytes_of(MODEL)}


@bad("mask")
def a_calibration(bench: Bench) -> Files:
    return {MASK: bench.bytes_of(CALIBRATION)}


@bad("mask")
def a_header_of_2_to_the_40(bench: Bench) -> Files:
    header, data = header_of(bench.bytes_of(MASK))
    return {MASK: (2**40).to_bytes(8, "little") + raw(header, data)[8:]}


spoils("mask", MASK, _masks)
