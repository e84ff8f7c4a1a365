# lambdas that hold what a loop is at
# mypy: disable-error-code="misc"
"""Cases of safetensors files, of shards with their index, and of packed files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corpus.bench import MODEL, PRUNED, Bench
from corpus.case import READ, REFUSED, Files, add, bad, good
from corpus.spoilt import spoils
from corpus.taken_apart import changed, contents, header_of, like, raw, written
from snnprune.checkpoint.header import PACKED
from snnprune.checkpoint.packed import pack

WEIGHT, MEAN, VARIANCE = "encoder.conv.weight", "encoder.norm.running_mean", "running_var"
HOSTILE_NAMES = (
    "::error file=x::boom.weight",
    "\x1b[31mred\x1b[0m.weight",
    "\u202egnp.weight",
    "[bold]markup[/].weight",
    "<script>alert(1)</script>.weight",
    "../../etc/passwd.weight",
    "a\nb\r\0c.weight",
    "##[error]boom.weight",
    "n" * 70_000 + ".weight",
    ".weight",
)


@good("safetensors")
def as_train_writes_it(bench: Bench) -> Files:
    return {"model.safetensors": bench.bytes_of(MODEL)}


@good("safetensors")
def as_prune_writes_it(bench: Bench) -> Files:
    return {"model.safetensors": bench.bytes_of(PRUNED)}


@good("safetensors")
def without_metadata(bench: Bench) -> Files:
    return {"model.safetensors": written(contents(bench.bytes_of(MODEL))[0])}


@good("safetensors")
def of_half_precision(bench: Bench) -> Files:
    tensors = contents(bench.bytes_of(MODEL))[0]
    half = {k: t.bfloat16() if t.is_floating_point() else t for k, t in tensors.items()}
    return {"model.safetensors": written(half)}


@good("safetensors")
def names_that_are_hostile_to_whoever_shows_them(bench: Bench) -> Files:
    named = {name: torch.rand(3, 4) for name in HOSTILE_NAMES}
    shown = {"note": "::error::boom \x1b[2J", "::set-output name=a::b": "\u202e"}
    return {"model.safetensors": written(named, shown)}


@good("safetensors")
def metadata_that_lie_of_sparsity_and_version(bench: Bench) -> Files:
    lies = {"snnprune.sparsity": "0.99", "snnprune.version": "99.0", "snnprune.pruned": "-1"}
    return {"model.safetensors": changed(bench.bytes_of(PRUNED), metadata=lies)}


@good("safetensors")
def metadata_that_name_code_and_nonsense(bench: Bench) -> Files:
    lies = {
        "snnprune.model": json.dumps({"name": "os:system", "args": {"command": "touch hostile"}}),
        "snnprune.data": json.dumps({"name": "hostile.py:run"}),
        "snnprune.structure": "\x1b[31m",
        "snnprune.version": "\x1b[31m::error::",
    }
    return {"model.safetensors": changed(bench.bytes_of(MODEL), metadata=lies)}


@good("safetensors")
def a_header_of_three_hundred_tensors(bench: Bench) -> Files:
    entry = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
    header = {f"t{n}.weight": {**entry, "data_offsets": [4 * n, 4 * n + 4]} for n in range(300)}
    return {"model.safetensors": raw(header, b"\0\0\x80?" * 300)}


def _bends(bend: Callable[[dict[str, Any], bytes], bytes]) -> Callable[[Bench], Files]:
    """The files of a case in which a good header is bent."""
    return lambda bench: {"model.safetensors": bend(*header_of(bench.bytes_of(MODEL)))}


def _entry(**fields: Any) -> Callable[[Bench], Files]:
    """One tensor's line of the header with other fields."""
    return _bends(lambda header, data: raw({**header, WEIGHT: {**header[WEIGHT], **fields}}, data))


def _text(text: bytes) -> Callable[[Bench], Files]:
    """Another text of the header before the data of a good file."""
    return _bends(lambda header, data: raw(text, data))


def _lengths(length: int) -> Callable[[Bench], Files]:
    """A good file that says its header were so long."""
    return _bends(lambda header, data: length.to_bytes(8, "little") + raw(header, data)[8:])


def _values(name: str, value: float, at: int = 0) -> Callable[[Bench], Files]:
    """A good file with one value changed."""

    def made(bench: Bench) -> Files:
        tensor = contents(bench.bytes_of(MODEL))[0][name].clone()
        tensor.view(-1)[at] = value
        return {"model.safetensors": changed(bench.bytes_of(MODEL), {name: tensor})}

    return made


BAD: dict[str, Callable[[Bench], Files]] = {
    "a header of 2 ** 40 bytes": _lengths(2**40),
    "a header of 2 ** 63 bytes": _lengths(2**63),
    "a header of the whole file": _bends(
        lambda header, data: (
            (len(raw(header, data)) - 8).to_bytes(8, "little") + raw(header, data)[8:]
        )
    ),
    "a header of no bytes": _lengths(0),
    "extra bytes": _bends(lambda header, data: raw(header, data + b"\0")),
    "a shape of 2 ** 40": _entry(shape=[2**40]),
    "a shape that overflows": _entry(shape=[2**32, 2**32]),
    "a shape of 6000 digits": _text(b'{"w": {"dtype": "F32", "shape": [' + b"9" * 6000 + b"]}}"),
    "a negative shape": _entry(shape=[-2, 1, 3, 3]),
    "a shape of true": _entry(shape=[True, 2, 3, 3]),
    "a shape of fractions": _entry(shape=[2.0, 1, 3, 3]),
    "a shape that is text": _entry(shape="2133"),
    "a thousand dimensions": _entry(shape=[1] * 1000),
    "another shape than its bytes": _entry(shape=[2, 2, 3, 3]),
    "an unknown dtype": _entry(dtype="F4"),
    "a dtype that is a list": _entry(dtype=["F32"]),
    "a dtype of hostile text": _entry(dtype="\x1b[31m\n::error::"),
    "reversed offsets": _entry(data_offsets=[72, 0]),
    "negative offsets": _entry(data_offsets=[-72, 0]),
    "offsets of 2 ** 62": _entry(data_offsets=[2**62, 2**62 + 72]),
    "offsets that overlap": _entry(data_offsets=[8, 80]),
    "three offsets": _entry(data_offsets=[0, 72, 72]),
    "an entry that is a list": _bends(lambda header, data: raw({**header, WEIGHT: []}, data)),
    "metadata that are no text": _bends(
        lambda header, data: raw({**header, "__metadata__": {"a": 1}}, data)
    ),
    "a hundred thousand brackets": _text(b"[" * 100_000),
    "a hundred thousand tables": _text(b'{"a":' * 100_000),
    "a byte order mark": _text(b"\xef\xbb\xbf{}"),
    "no UTF-8": _text(b'{"\xff": {}}'),
    "half a surrogate": _text(b'{"\\ud800": {}}'),
    "a name twice": _text(b'{"w": {}, "w": {}}'),
    "a list": _text(b"[]"),
    "a number": _text(b"1e999"),
    "NaN": _text(b'{"w": NaN}'),
    "no tensors": lambda bench: {"model.safetensors": raw({"__metadata__": {}})},
    "nothing to prune": lambda bench: {"model.safetensors": written({"bias": torch.ones(3)})},
    "a weight of NaN": _values(WEIGHT, math.nan),
    "a weight of infinity": _values(WEIGHT, -math.inf, at=-1),
    "a running mean of NaN": _values(MEAN, math.nan),
    "a running variance of NaN": _values("encoder.norm.running_var", math.nan),
    "a negative running variance": _values("encoder.norm.running_var", -1e-30),
}
for _name, _make in BAD.items():
    add("safetensors", _name, _make)
spoils("safetensors", "model.safetensors", as_train_writes_it)


def index(where: Any, **files: bytes) -> Files:
    """An index and the shards beside it."""
    text = where if isinstance(where, bytes) else json.dumps({"weight_map": where}).encode()
    named = {name.replace("_", "."): data for name, data in files.items()}
    return {"model.safetensors.index.json": text, **named}


def _sharded(bench: Bench) -> tuple[dict[str, str], dict[str, bytes]]:
    tensors, _ = contents(bench.bytes_of(MODEL))
    names = list(tensors)
    parts = {"a_safetensors": names[:5], "b_safetensors": names[5:]}
    where = {name: part.replace("_", ".") for part, held in parts.items() for name in held}
    return where, {p: written({k: tensors[k] for k in held}) for p, held in parts.items()}


@good("shards")
def two_shards(bench: Bench) -> Files:
    where, files = _sharded(bench)
    return index(where, **files)


@good("shards")
def a_shard_in_a_folder_below(bench: Bench) -> Files:
    where, files = _sharded(bench)
    below = {name: f"below/{part}" for name, part in where.items()}
    shards = {f"below/{name.replace('_', '.')}": data for name, data in files.items()}
    return {**index(below), **shards}


def _names(shard: str) -> Callable[[Bench], Files]:
    """One tensor in another shard, by the index."""

    def made(bench: Bench) -> Files:
        where, files = _sharded(bench)
        return index({**where, WEIGHT: shard}, **files)

    return made


for _shard in (
    *("/etc/passwd", "../outside.safetensors", "https://example.org/a.safetensors", "c:\\a"),
    *("missing.safetensors", ".", "", "a\0b", "a.safetensors/../../x", "b.safetensors", "x" * 300),
    "\x1b[31m::error::",
):
    add("shards", f"a shard at {_shard!r:.40}", _names(_shard))
for _name, _where in {
    "a map that is a list": [],
    "a map of numbers": {WEIGHT: 1},
    "an empty map": {},
    "a map of maps": {WEIGHT: {"a.safetensors": "b.safetensors"}},
}.items():
    add("shards", _name, lambda bench, where=_where: index(where, **_sharded(bench)[1]))
for _name, _index in {
    "a deep index": b'{"weight_map": ' + b"[" * 100_000,
    "an index with a name twice": b'{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}',
}.items():
    add("shards", _name, lambda bench, text=_index: index(text, **_sharded(bench)[1]))


@bad("shards")
def a_tensor_in_two_shards(bench: Bench) -> Files:
    where, files = _sharded(bench)
    return index(where, **{**files, "b_safetensors": files["a_safetensors"]})


@bad("shards")
def a_shard_that_is_cut(bench: Bench) -> Files:
    where, files = _sharded(bench)
    return index(where, **{**files, "b_safetensors": files["b_safetensors"][:-1]})


@bad("shards")
def an_index_in_the_place_of_a_shard(bench: Bench) -> Files:
    where, files = _sharded(bench)
    return index(where, **{**files, "b_safetensors": json.dumps({"weight_map": where}).encode()})


spoils("shards", "model.safetensors.index.json", two_shards)


def sparse_weights() -> dict[str, Tensor]:
    """Large enough that packing them makes a smaller file."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 64, generator=draws)
    weight[torch.rand(32, 64, generator=draws) < 0.9] = 0
    return {"fc.weight": weight, "fc.bias": torch.rand(32, generator=draws)}


def packed(precision: str = "exact") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What is stored, and the table."""
    found = pack(sparse_weights(), precision=precision, lossy=["fc.weight"])
    assert set(found.table) == {"fc.weight"}
    entry = found.table["fc.weight"]
    table = {"dtype": entry.dtype, "shape": list(entry.shape), "kept": entry.kept}
    return found.stored, {**table, "low": entry.low, "values": entry.values}


def packed_file(stored: dict[str, Tensor], table: Any) -> Files:
    text = table if isinstance(table, str) else json.dumps(table)
    return {"packed.safetensors": written(stored, {PACKED: text})}


for _precision in ("exact", "float16", "bfloat16", "int8"):

    def _packed_to(bench: Bench, precision: str = _precision) -> Files:
        stored, entry = packed(precision)
        return packed_file(stored, {"format": 1, "tensors": {"fc.weight": entry}})

    add("packed", f"values as {_precision}", _packed_to, codes=(READ,))


def _lies(**fields: Any) -> Callable[[Bench], Files]:
    """The entry of a packed tensor with other fields."""

    def made(bench: Bench) -> Files:
        stored, entry = packed()
        tensors = {"fc.weight": {k: v for k, v in {**entry, **fields}.items() if v is not ...}}
        return packed_file(stored, {"format": 1, "tensors": tensors})

    return made


for _name, _make in {
    "more kept than there are": _lies(kept=204),
    "fewer kept than there are": _lies(kept=1),
    "none kept": _lies(kept=0),
    "2 ** 40 kept": _lies(kept=2**40, shape=[2**40]),
    "kept below 0": _lies(kept=-1),
    "kept is true": _lies(kept=True),
    "low bits of 41": _lies(low=41),
    "low bits of 2 ** 40": _lies(low=2**40),
    "low bits below 0": _lies(low=-1),
    "fewer low bits": _lies(low=0),
    "a bomb of 2 ** 40": _lies(shape=[2**20, 2**20]),
    "a shape that is smaller": _lies(shape=[2, 2]),
    "a shape that overflows": _lies(shape=[2**31, 2**31]),
    "a shape of no dimensions": _lies(shape=[]),
    "a shape of nothing": _lies(shape=[0, 64]),
    "another dtype": _lies(dtype="F64"),
    "a dtype of integers": _lies(dtype="I32"),
    "a dtype of 8 bits": _lies(dtype="F8_E4M3"),
    "an unknown dtype": _lies(dtype="\x1b[31m"),
    "unknown values": _lies(values="\u202eint4"),
    "scales that are not there": _lies(values="int8", shape=[2048, 1]),
    "a field too few": _lies(low=...),
    "a field too many": _lies(more=1),
}.items():
    add("packed", _name, _make)


def _tables(table: Any) -> Callable[[Bench], Files]:
    return lambda bench: packed_file(packed()[0], table)


for _name, _table in {
    "a format of the future": {"format": 2, "tensors": {}},
    "a format that is text": {"format": "\x1b[31m::error::", "tensors": {}},
    "a table that is a list": [],
    "tensors that are a list": {"format": 1, "tensors": []},
    "an entry that is a number": {"format": 1, "tensors": {"fc.weight": 1}},
    "an entry of a tensor that is not there": {"format": 1, "tensors": {"\x1b[31m": packed()[1]}},
    "an entry of a tensor of floats": {"format": 1, "tensors": {"fc.bias": packed()[1]}},
    "a table that is cut": '{"format": 1, "tensors": {',
    "a deep table": "[" * 100_000,
}.items():
    add("packed", _name, _tables(_table))


def _streams(bend: Callable[[Tensor], Tensor]) -> Callable[[Bench], Files]:
    """The bytes of the packed tensor bent."""

    def made(bench: Bench) -> Files:
        stored, entry = packed()
        stored = {**stored, "fc.weight": bend(stored["fc.weight"].clone())}
        return packed_file(stored, {"format": 1, "tensors": {"fc.weight": entry}})

    return made


add("packed", "no bytes at all", _streams(lambda raw_bytes: raw_bytes[:0]))
add("packed", "fewer bytes", _streams(lambda raw_bytes: raw_bytes[:-9]))
add(
    "packed", "more bytes", _streams(lambda raw_bytes: torch.cat([raw_bytes, like(raw_bytes, 255)]))
)
add("packed", "positions of only ones", _streams(lambda b: torch.cat([b[:-64], like(b[:64], 255)])))
add(
    "packed",
    "values of NaN",
    _streams(lambda b: torch.cat([like(b[:4], 255), b[4:]])),
    codes=(REFUSED,),
)
spoils("packed", "packed.safetensors", lambda bench: _packed_to(bench, "exact"))
