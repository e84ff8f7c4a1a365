"""A chain as a C header: tables without zeros, and a function that goes one time step.

C99 with stdint.h, string.h and math.h alone, and no allocation: what changes is in one struct.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from snnprune import __version__
from snnprune.errors import InputError
from snnprune.export import Written
from snnprune.export.chain import (
    Chain,
    ChainError,
    ExtractedChain,
    Pool,
    Spiking,
    Stage,
    Weights,
)
from snnprune.export.chain_extraction import extract_chain
from snnprune.export.exporters import RecordedNetwork
from snnprune.files.writing import replace_file
from snnprune.runtime import UnavailableError, compile_c

if TYPE_CHECKING:
    from snnprune.export import IntegerTensors

COLUMNS = 100  # of a line
SHARE, NOTICEABLE = 0.01, 1e-3  # of the outputs' mean size, by which they may differ on the average


def write_c(path: Path, seen: RecordedNetwork, integers: IntegerTensors) -> Written:
    """Write the header, if the chain, and the compiled header, do what the network does.

    Raises:
        InputError: the network is no chain, or something else came out.
        OutputError: the file cannot be written.
    """
    found = extract_chain(seen)
    rows = read_integer_rows(found.chain, integers) if integers else {}
    source = _Header(found.chain, rows)
    with replace_file(path) as temporary:
        temporary.write_text(source.text(), encoding="ascii")
        notes = _run_compiled(source, found)
    tables, state = source.count_bytes()
    return Written(notes=notes, check=replace(found.check, table_bytes=tables, state_bytes=state))


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerRows:
    """The integers of a layer and what they are multiplied by, BatchNorm's factor too."""

    integers: Tensor
    """In the shape of the layer's weight."""
    scale: Tensor
    """(out,) float32"""


def read_integer_rows(chain: Chain, integers: IntegerTensors) -> dict[str, IntegerRows]:
    """The integers of each layer of the chain, by key.

    Raises:
        InputError: a layer has none, or they are not its weight.
    """
    found = {}
    for layer in chain.layers:
        if layer.key not in integers:
            raise InputError("has no integers", field=layer.key, hint="give --bits")
        whole, scale = integers[layer.key]
        if whole.shape != layer.weight.shape:
            raise ChainError("lies in its file in another form than it is used", where=layer.key)
        each = (scale.double().expand_as(whole).flatten(1)[:, 0] * layer.factor).float()
        rows = each.view(-1, *[1] * (whole.dim() - 1))
        if not torch.allclose(whole.double() * rows, layer.weight.double(), rtol=1e-5, atol=1e-9):
            raise ChainError("is not its integers times their scale", where=layer.key)
        found[layer.key] = IntegerRows(integers=whole, scale=each)
    return found


@dataclass(frozen=True, kw_only=True)
class _Buffer:
    """What lies between two stages."""

    name: str
    kind: str
    """`float`, `uint8_t` or `uint16_t`."""
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Of values."""
        return math.prod(self.shape)


SIZES = {"float": 4, "int32_t": 4, "uint32_t": 4, "uint16_t": 2, "int16_t": 2, "int8_t": 1}
SIZES |= {"uint8_t": 1}


@dataclass
class _Header:
    """The text of a header, stage by stage."""

    chain: Chain
    integers: dict[str, IntegerRows]
    tables: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    state: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Type and length of each array of the state, by name."""
    table_bytes: int = 0

    def __post_init__(self) -> None:
        buffers = self._lay_out()
        for number, (stage, x, y) in enumerate(
            zip(self.chain.stages, buffers[:-1], buffers[1:], strict=True)
        ):
            match stage:
                case Weights():
                    self._add_layer(number, stage, x, y)
                case Pool():
                    self._add_pool(number, stage, x, y)
                case Spiking():
                    self._add_neurons(number, stage, x, y)
        self.output = buffers[-1]

    def _lay_out(self) -> list[_Buffer]:
        """A buffer before and behind each stage: two of each type are used in turns."""
        kinds = ["float"]
        for stage in self.chain.stages:
            kinds.append(_choose_kind(stage, kinds[-1]))
        found = [_Buffer(name="input", kind="float", shape=self.chain.shapes[0])]
        for turn, kind in enumerate(kinds[1:-1], 1):
            shape = self.chain.shapes[turn]
            name = f"{kind.removesuffix('_t')}_{turn % 2}"
            self._reserve(name, kind, math.prod(shape))
            found.append(_Buffer(name=f"state->{name}", kind=kind, shape=shape))
        found.append(_Buffer(name="output", kind=kinds[-1], shape=self.chain.shapes[-1]))
        return found

    def _reserve(self, name: str, kind: str, count: int) -> None:
        before = self.state.get(name, (kind, 0))[1]
        self.state[name] = (kind, max(before, count))

    def _add_table(self, name: str, kind: str, values: np.ndarray) -> None:
        words = _format_floats(values) if kind == "float" else [*map(str, values.tolist())]
        self.table_bytes += len(values) * SIZES[kind]
        body = "\n".join(_wrap(words or ["0"]))  # C has no empty array
        self.tables.append(
            f"static const {kind} snn_{name}[{max(len(values), 1)}] = {{\n{body}\n}};\n"
        )

    def _add_layer(self, number: int, layer: Weights, x: _Buffer, y: _Buffer) -> None:
        rows = self.integers.get(layer.key)
        held = layer.weight if rows is None else rows.integers
        values = held.flatten(1).numpy()
        out, columns = values.nonzero()
        ends = np.bincount(out, minlength=len(values)).cumsum()
        kept, places = values[out, columns], _find_places(layer, out, columns)
        self._add_table(f"ends_{number}", "uint32_t", ends)
        kind = "uint16_t" if places.max(initial=0) < 2**16 else "uint32_t"
        self._add_table(f"places_{number}", kind, places)
        stored = "float" if rows is None else f"{held.dtype}".removeprefix("torch.") + "_t"
        self._add_table(f"values_{number}", stored, kept)
        scale = ""
        if rows is not None:
            self._add_table(f"scale_{number}", "float", rows.scale.numpy())
            scale = f"snn_scale_{number}[o] * "
        self._add_table(f"bias_{number}", "float", layer.bias.numpy())
        exact = rows is not None and x.kind != "float"
        if exact and int(np.abs(values.astype(np.int64)).sum(1).max()) * 255 >= 2**31:
            raise ChainError("its sums do not fit into 32 bits", where=layer.key)
        words = {
            "number": number,
            "key": _comment(layer.key),
            "x": x.kind,
            "sum": "int32_t" if exact else "float",
            "scale": scale,
            "outputs": y.shape[0],
        }
        if layer.is_linear:
            self.functions.append(_LINEAR % words)
            self.calls.append(f"snn_layer_{number}({x.name}, {y.name});")
            return
        words |= _describe_geometry(x, y, layer.stride, layer.padding)
        words |= {"kh": layer.weight.shape[2], "kw": layer.weight.shape[3]}
        words |= {"dh": layer.dilation[0], "dw": layer.dilation[1]}
        self.functions.append(_CONVOLUTION % words)
        sums = f"sums_{words['sum']}".removesuffix("_t")
        self._reserve(sums, str(words["sum"]), y.shape[1] * y.shape[2])
        self.calls.append(f"snn_layer_{number}({x.name}, state->{sums}, {y.name});")

    def _add_pool(self, number: int, pool: Pool, x: _Buffer, y: _Buffer) -> None:
        words = {"number": number, "x": x.kind, "y": y.kind, "channels": x.shape[0]}
        words |= _describe_geometry(x, y, pool.stride, pool.padding)
        words |= {"kh": pool.size[0], "kw": pool.size[1], "key": f"{pool.how} pool"}
        area = pool.size[0] * pool.size[1]
        larger = "now = !any || x[at] > now ? x[at] : now; any = 1;"
        words["each"] = larger if pool.how == "max" else "now += (float)x[at];"
        words["now"] = x.kind if pool.how == "max" else "float"
        words["any"] = " int any = 0;" if pool.how == "max" else ""
        words["made"] = f"now / {area}.0f" if pool.how == "avg" else "now"
        self.functions.append(_POOL % words)
        self.calls.append(f"snn_pool_{number}({x.name}, {y.name});")

    def _add_neurons(self, number: int, stage: Spiking, x: _Buffer, y: _Buffer) -> None:
        self._reserve(f"membrane_{number}", "float", y.count)
        arguments = f"state->membrane_{number}"
        held = stage.reset == "skip"
        if held:
            self._reserve(f"held_{number}", "uint8_t", y.count)
            arguments += f", state->held_{number}"
        above = ">=" if stage.inclusive else ">"
        threshold, amount = _float(stage.threshold), _float(stage.amount)
        fires = f"u {above} {threshold}"
        many = f"(uint16_t)fminf(floorf(u / {threshold}), 65535.0f)"
        after = f"{_float(stage.beta)} * u"
        by = f"{after} - {amount} * (float)fired"
        words = {
            "number": number,
            "key": _comment(stage.name),
            "count": y.count,
            "y": y.kind,
            "held": ", uint8_t *held" if held else "",
            "driven": f"carried[i] + {_float(stage.gain)} * x[i]",
            "fired": f"{fires} ? {many} : 0" if stage.several else fires,
            "left": by if stage.reset == "by" else f"fired ? {amount} : {after}",
            "keep": " held[i] = fired != 0;" if held else "",
        }
        if held:
            words["driven"] = f"held[i] ? carried[i] : {words['driven']}"
        self.functions.append(_NEURONS % words)
        self.calls.append(f"snn_neurons_{number}({x.name}, {arguments}, {y.name});")

    def count_bytes(self) -> tuple[int, int]:
        """Of the tables, which do not change, and of the state."""
        state = sum(SIZES[kind] * count for kind, count in self.state.values())
        return self.table_bytes, state

    def text(self) -> str:
        """The whole header."""
        shape = " x ".join(map(str, self.chain.shapes[0]))
        first, last = self.chain.stages[0], self.chain.stages[-1]
        assert isinstance(first, Weights)
        what = "spikes of" if isinstance(last, Spiking) else "currents of"
        where = last.name if isinstance(last, Spiking) else getattr(last, "key", "the last pool")
        members = [f"    {kind} {name}[{count}];" for name, (kind, count) in self.state.items()]
        body = "".join([*self.tables, *self.functions, *self.calls])
        return _WHOLE % {
            "digest": hashlib.sha256(body.encode("ascii")).hexdigest()[:16],
            "version": __version__,
            "inputs": math.prod(self.chain.shapes[0]),
            "outputs": self.output.count,
            "enters": f"{shape}, row by row: what enters {_comment(first.key)} at a time step",
            "leaves": f"{what} {_comment(where)} at a time step",
            "output": self.output.kind,
            "members": "\n".join(members or ["    uint8_t nothing;"]),
            "tables": "\n".join(self.tables),
            "functions": "\n".join(self.functions),
            "calls": "\n".join(f"    {call}" for call in self.calls),
        }


def _choose_kind(stage: Stage, before: str) -> str:
    """The type of what a stage puts out."""
    if isinstance(stage, Spiking):
        return "uint16_t" if stage.several else "uint8_t"
    return before if isinstance(stage, Pool) and stage.how == "max" else "float"


def _find_places(layer: Weights, out: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where each kept weight takes its input from: of a convolution channel * kernel + place."""
    if layer.groups == 1:
        return columns
    area = math.prod(layer.weight.shape[2:])
    inputs, outputs = layer.weight.shape[1], len(layer.weight) // layer.groups
    return columns + out // outputs * inputs * area


def _describe_geometry(
    x: _Buffer, y: _Buffer, stride: tuple[int, int], padding: tuple[int, int]
) -> dict[str, int]:
    sizes = {"h": x.shape[1], "w": x.shape[2], "oh": y.shape[1], "ow": y.shape[2]}
    return sizes | {"sh": stride[0], "sw": stride[1], "ph": padding[0], "pw": padding[1]}


def _float(value: float) -> str:
    """A float32 in C, which reads it as the same."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(mark in text for mark in ".en") else f"{text}.0f"


def _format_floats(values: np.ndarray) -> list[str]:
    return [_float(value) for value in values.tolist()]


def _comment(name: str) -> str:
    """A name in a comment: what could end it, or is no ASCII, is left out."""
    kept = name.encode("ascii", "replace").decode()
    return "".join(one if one.isalnum() or one in "._-" else "?" for one in kept)


def _wrap(words: Iterator[str] | Sequence[str]) -> Iterator[str]:
    line = "   "
    for word in words:
        if len(line) + len(word) + 2 > COLUMNS:
            yield line
            line = "   "
        line += f" {word},"
    yield line


_WHOLE = """\
/* A spiking network, written by snnprune %(version)s. Make one snn_state for each that runs:

       static snn_state state;
       snn_reset(&state);
       for each time step: snn_step(&state, input, output);
*/
#ifndef SNN_%(digest)s
#define SNN_%(digest)s

#ifdef SNN_INPUTS
#error "two networks in one source file, where their names are the same"
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>

#define SNN_INPUTS %(inputs)d  /* %(enters)s */
#define SNN_OUTPUTS %(outputs)d  /* %(leaves)s */

typedef %(output)s snn_output;

typedef struct {
%(members)s
} snn_state;

%(tables)s
%(functions)s
/* Rest, as before the first time step of a sample. */
static void snn_reset(snn_state *state) {
    memset(state, 0, sizeof *state);
}

/* One time step: SNN_INPUTS values to SNN_OUTPUTS. */
static void snn_step(snn_state *state, const float *input, snn_output *output) {
%(calls)s
    (void)state;
}

#endif
"""

_LINEAR = """\
/* %(key)s */
static void snn_layer_%(number)d(const %(x)s *x, float *y) {
    uint32_t at = 0;
    for (int o = 0; o < %(outputs)d; o++) {
        %(sum)s sum = 0;
        for (; at < snn_ends_%(number)d[o]; at++)
            sum += snn_values_%(number)d[at] * x[snn_places_%(number)d[at]];
        y[o] = %(scale)s(float)sum + snn_bias_%(number)d[o];
    }
}
"""

_CONVOLUTION = """\
/* %(key)s */
static void snn_layer_%(number)d(const %(x)s *x, %(sum)s *sums, float *y) {
    uint32_t at = 0;
    for (int o = 0; o < %(outputs)d; o++) {
        memset(sums, 0, %(oh)d * %(ow)d * sizeof *sums);
        for (; at < snn_ends_%(number)d[o]; at++) {
            const int place = (int)snn_places_%(number)d[at] %% (%(kh)d * %(kw)d);
            const int channel = (int)snn_places_%(number)d[at] / (%(kh)d * %(kw)d);
            const int down = place / %(kw)d * %(dh)d - %(ph)d;
            const int right = place %% %(kw)d * %(dw)d - %(pw)d;
            for (int i = 0; i < %(oh)d; i++) {
                const int row = i * %(sh)d + down;
                if (row < 0 || row >= %(h)d) continue;
                for (int j = 0; j < %(ow)d; j++) {
                    const int column = j * %(sw)d + right;
                    if (column < 0 || column >= %(w)d) continue;
                    sums[i * %(ow)d + j] += snn_values_%(number)d[at]
                        * x[(channel * %(h)d + row) * %(w)d + column];
                }
            }
        }
        for (int i = 0; i < %(oh)d * %(ow)d; i++)
            y[o * %(oh)d * %(ow)d + i] = %(scale)s(float)sums[i] + snn_bias_%(number)d[o];
    }
}
"""

_POOL = """\
/* %(key)s */
static void snn_pool_%(number)d(const %(x)s *x, %(y)s *y) {
    for (int c = 0; c < %(channels)d; c++)
        for (int i = 0; i < %(oh)d; i++)
            for (int j = 0; j < %(ow)d; j++) {
                %(now)s now = 0;%(any)s
                for (int k = 0; k < %(kh)d * %(kw)d; k++) {
                    const int row = i * %(sh)d - %(ph)d + k / %(kw)d;
                    const int column = j * %(sw)d - %(pw)d + k %% %(kw)d;
                    const int at = (c * %(h)d + row) * %(w)d + column;
                    if (row < 0 || row >= %(h)d || column < 0 || column >= %(w)d) continue;
                    %(each)s
                }
                y[(c * %(oh)d + i) * %(ow)d + j] = %(made)s;
            }
}
"""

_NEURONS = """\
/* %(key)s */
static void snn_neurons_%(number)d(const float *x, float *carried%(held)s, %(y)s *y) {
    for (int i = 0; i < %(count)d; i++) {
        const float u = %(driven)s;
        const %(y)s fired = %(fired)s;
        y[i] = fired;
        carried[i] = %(left)s;%(keep)s
    }
}
"""

_RUN = """\
#include "%s"

void run(const float *input, float *output, int samples, int steps);

void run(const float *input, float *output, int samples, int steps) {
    static snn_state state;
    static snn_output made[SNN_OUTPUTS];
    for (int n = 0; n < samples; n++) {
        snn_reset(&state);
        for (int t = 0; t < steps; t++) {
            const int at = t * samples + n;
            snn_step(&state, input + (size_t)at * SNN_INPUTS, made);
            for (int i = 0; i < SNN_OUTPUTS; i++)
                output[(size_t)at * SNN_OUTPUTS + i] = (float)made[i];
        }
    }
}
"""


def _run_compiled(source: _Header, found: ExtractedChain) -> tuple[str, ...]:
    """A note where no compiler is here, or rounding can be seen.

    Raises:
        InputError: what was compiled puts out something else.
    """
    try:
        outputs = run_header(source.text(), found.inputs, source.output.count)
    except UnavailableError as error:
        return (f"the header was not compiled and run here: {error}",)
    wanted = found.chain.run(found.inputs)[len(found.chain.stages) - 1].flatten(2)
    apart = (outputs - wanted).abs()
    if not float(apart.mean()) <= SHARE * float(wanted.abs().mean()) + 1e-6:
        raise InputError(
            "the compiled header puts out other values than the network", field="--to c"
        )
    if float(apart.max()) < NOTICEABLE:
        return ()
    return (f"rounding decided some spikes otherwise: outputs differ by up to {apart.max():.2g}",)


def run_header(text: str, inputs: Tensor, count: int) -> Tensor:
    """What a header, compiled, puts out for inputs (T, N, ...): (T, N, count).

    Raises:
        UnavailableError: no compiler is here, or it fails.
    """
    x = inputs.flatten(2).contiguous().float()
    found = torch.empty(x.shape[0], x.shape[1], count)
    with tempfile.TemporaryDirectory(prefix="snnprune-") as name:
        folder = Path(name)
        (folder / "network.h").write_text(text, encoding="ascii")
        (folder / "run.c").write_text(_RUN % "network.h", encoding="ascii")
        library = ctypes.CDLL(str(compile_c(folder / "run.c")))
        library.run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
        library.run.restype = None
        library.run(x.data_ptr(), found.data_ptr(), x.shape[1], x.shape[0])
    return found
