"""Files that are bent a little, by bytes or by what they are made of."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from corpus.taken_apart import contents, state_with

from snnprune.errors import InputError
from snnprune.training.runs.state import POSITION

Mutate = Callable[[bytes, random.Random], bytes]

INTEGERS = (0, 1, -1, 2, 7, 255, 2**15, 2**31 - 1, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, 2**70)
LEAVES: tuple[Any, ...] = (
    *INTEGERS,
    *(None, True, False, 0.5, -0.0, math.nan, math.inf, 1e308, "", "0", "\x1b[31m", "::error::"),
    *("\ud800", "F32", "I64", "conv-snn", "os:system", [], {}, [[]], {"": {}}, ["a"], {"a": 1}),
)
TOKENS = (
    *("null", "true", "~", ".nan", ".inf", "-1", "0", "1e999", "1e-3", "010", "9" * 40, "1:30"),
    *("[]", "{}", "[1, 2]", "{a: b}", '""', '"\\e[31m"', "&a", "*a", "!!python/none x", "a: b"),
    *("- a", "---", "...", "|", ">", "#", "\t", "os:system", "conv-snn", "imp", "fashion-mnist"),
)


def by_bytes(data: bytes, draws: random.Random) -> bytes:
    """A few bytes changed, cut out, put in, doubled or taken for an integer."""
    found = bytearray(data)
    for _ in range(draws.choice((1, 1, 1, 2, 4, 16))):
        if not found:
            break
        draws.choice(BYTE_BENDS)(found, draws.randrange(len(found)), draws)
    return bytes(found)


def _flip(found: bytearray, at: int, draws: random.Random) -> None:
    found[at] ^= 1 << draws.randrange(8)


def _set(found: bytearray, at: int, draws: random.Random) -> None:
    found[at] = draws.choice((0, 1, 0x7F, 0x80, 0xFF, draws.randrange(256)))


def _cut(found: bytearray, at: int, draws: random.Random) -> None:
    del found[at : at + draws.choice((1, 4, 64))]


def _insert(found: bytearray, at: int, draws: random.Random) -> None:
    found[at:at] = draws.randbytes(draws.choice((1, 4, 8)))


def _double(found: bytearray, at: int, draws: random.Random) -> None:
    found[at:at] = found[at : at + draws.choice((1, 8, 64))]


def _move(found: bytearray, at: int, draws: random.Random) -> None:
    size, there = draws.choice((1, 8, 64)), draws.randrange(len(found))
    found[at : at + size] = found[there : there + size]


def _number(found: bytearray, at: int, draws: random.Random) -> None:
    size, order = draws.choice((1, 2, 4, 8)), draws.choice(("little", "big"))
    value = draws.choice(INTEGERS) % 2 ** (8 * size)
    found[at : at + size] = value.to_bytes(size, order)


def _truncate(found: bytearray, at: int, _: random.Random) -> None:
    del found[at:]


BYTE_BENDS = (_flip, _flip, _set, _set, _cut, _insert, _double, _move, _number, _number, _truncate)


def by_tree(value: Any, draws: random.Random) -> Any:
    """JSON with one value, name or member changed."""
    if isinstance(value, dict) and value and draws.random() < 0.9:
        return _table(dict(value), draws)
    if isinstance(value, list) and value and draws.random() < 0.9:
        return _list(list(value), draws)
    if isinstance(value, str) and draws.random() < 0.5:
        return _within_text(value, draws)
    if isinstance(value, int | float) and draws.random() < 0.3:
        return draws.choice((-value, value + 1, value - 1, value * 2, float(value)))
    return draws.choice(LEAVES)


def _table(value: dict[str, Any], draws: random.Random) -> dict[str, Any]:
    name = draws.choice(list(value))
    match draws.randrange(8):
        case 0:
            del value[name]
        case 1:
            value[draws.choice(list(value))] = value[name]
        case 2:
            value[draws.choice(("", "a", "\x1b[31m", f"{name}x", name.upper()))] = value.pop(name)
        case _:
            value[name] = by_tree(value[name], draws)
    return value


def _list(value: list[Any], draws: random.Random) -> list[Any]:
    at = draws.randrange(len(value))
    match draws.randrange(6):
        case 0:
            del value[at]
        case 1:
            value.insert(at, value[draws.randrange(len(value))])
        case _:
            value[at] = by_tree(value[at], draws)
    return value


def _within_text(text: str, draws: random.Random) -> str:
    """Text of JSON bent as that; other text by its characters."""
    with contextlib.suppress(ValueError):
        if text[:1] in ("{", "["):
            return json.dumps(by_tree(json.loads(text), draws))
    at = draws.randrange(len(text) + 1)
    return text[:at] + draws.choice(("", "x", "\0", "/", "..", ".", "\u202e")) + text[at + 1 :]


def as_json(data: bytes, draws: random.Random) -> bytes:
    """A file of JSON."""
    value = json.loads(data)
    for _ in range(draws.choice((1, 1, 2))):
        value = by_tree(value, draws)
    return _dumped(value)


def as_lines(data: bytes, draws: random.Random) -> bytes:
    """A file of a JSON value on each line."""
    lines = data.splitlines()
    at = draws.randrange(len(lines))
    lines[at] = as_json(lines[at], draws)
    return b"\n".join(lines) + b"\n"


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def as_yaml(data: bytes, draws: random.Random) -> bytes:
    """Words, lines and indentation of YAML swapped."""
    lines = data.decode().splitlines()
    for _ in range(draws.choice((1, 1, 2, 3))):
        at = draws.randrange(len(lines))
        match draws.randrange(5):
            case 0:
                lines.insert(at, draws.choice(lines))
            case 1:
                lines[at] = " " * draws.randrange(4) + lines[at].lstrip()
            case _:
                words = lines[at].split(" ")
                words[draws.randrange(len(words))] = draws.choice(TOKENS)
                lines[at] = " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def as_safetensors(data: bytes, draws: random.Random) -> bytes:
    """The header bent as JSON with a length that fits, or the values, or all by bytes."""
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    match draws.randrange(4):
        case 0:
            return by_bytes(data, draws)
        case 1:
            body = _values(body, draws)
        case 2 if body:  # in the words of snnprune, which are JSON in the metadata
            header = _of_metadata(header, draws)
        case _:
            header = as_json(header, draws)
    return len(header).to_bytes(8, "little") + header + body


def _of_metadata(header: bytes, draws: random.Random) -> bytes:
    found = json.loads(header)
    if isinstance(texts := found.get("__metadata__"), dict) and texts:
        name = draws.choice(list(texts))
        texts[name] = _within_text(texts[name], draws)
    return _dumped(found)


def _values(data: bytes, draws: random.Random) -> bytes:
    """Four bytes that are a float, as odd ones."""
    found = bytearray(data)
    for _ in range(draws.choice((1, 3, 30))):
        at = 4 * draws.randrange(max(1, len(found) // 4))
        value = draws.choice((math.nan, math.inf, -math.inf, 0.0, -1.0, 3e38, 1e-45, 2.0))
        found[at : at + 4] = struct.pack("<f", value)
    return bytes(found[: len(data)])


def as_state(data: bytes, draws: random.Random) -> bytes:
    """A state with a position or tensors bent, and mostly a hash that fits."""
    if draws.random() < 0.1:
        return as_safetensors(data, draws)
    tensors, texts = contents(data)
    if draws.random() < 0.75:
        return state_with(data, _within_text(texts[POSITION], draws))
    name = draws.choice(list(tensors))
    tensor = tensors[name]
    other = tensors[draws.choice(list(tensors))]
    bent = draws.choice(
        (None, other, tensor[:0] if tensor.dim() else tensor, tensor.double(), tensor.bool())
    )
    return state_with(data, None, {name: bent, f"{draws.choice('abx')}{name}": other})


def as_zip(data: bytes, draws: random.Random) -> bytes:
    """One part of an archive bent and all packed again with sums that fit; or all by bytes."""
    if draws.random() < 0.25:
        return by_bytes(data, draws)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        pickles = [name for name in names if name.endswith("data.pkl")]
        chosen = draws.choice(pickles if pickles and draws.random() < 0.8 else names)
        for name in names:
            part = old.read(name)
            new.writestr(name, as_pickle(part, draws) if name == chosen else part)
    return made.getvalue()


OPCODES = b"(.0123FIJKLMNPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x94"
WORDS = (
    *(b"ctorch\nFloatStorage\n", b"ctorch\nBFloat16Storage\n", b"cos\nsystem\n"),
    *(b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"K\x00", b"N"),
    *(b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"X\x01\x00\x00\x00w", b")", b"}"),
)


def as_pickle(data: bytes, draws: random.Random) -> bytes:
    """Instructions and words of a pickle swapped, or its bytes bent."""
    if draws.random() < 0.3:
        return by_bytes(data, draws)
    found = bytearray(data)
    for _ in range(draws.choice((1, 1, 2, 5))):
        at = draws.randrange(len(found) + 1)
        word = draws.choice((bytes([draws.choice(OPCODES)]), draws.choice(WORDS)))
        found[at : at + draws.choice((0, len(word)))] = word
    return bytes(found)


def as_gzip(data: bytes, draws: random.Random) -> bytes:
    """What is packed, bent and packed again."""
    if draws.random() < 0.3:
        return by_bytes(data, draws)
    return gzip.compress(by_bytes(gzip.decompress(data), draws), mtime=0)


def as_png(data: bytes, draws: random.Random) -> bytes:
    """The chunks of a PNG bent, with sums that fit; or all by bytes."""
    if not data.startswith(b"\x89PNG") or draws.random() < 0.3:
        return by_bytes(data, draws)
    made, at = bytearray(data[:8]), 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if draws.random() < 0.5:
            body = by_bytes(body, draws)
        sums = zlib.crc32(name + body).to_bytes(4, "big")
        made += len(body).to_bytes(4, "big") + name + body + sums
        at += 12 + size
    return bytes(made)


OF_ANOTHER_FORM = (
    *(ValueError, LookupError, OSError, RecursionError, zipfile.BadZipFile, InputError),
)
"""What a way raises that is not for this seed."""


def spliced(one: bytes, other: bytes, draws: random.Random) -> bytes:
    """The beginning of one and the end of another."""
    return one[: draws.randrange(len(one) + 1)] + other[draws.randrange(len(other) + 1) :]


def mutated(
    seeds: list[Mapping[str, bytes]], ways: Mapping[str, Mutate], draws: random.Random
) -> dict[str, bytes]:
    """One of the seeds, one of its files bent by the way for its name."""
    files = dict(draws.choice(seeds))
    names = [name for name in files if any(re.search(end, name) for end in ways)]
    name = draws.choice(names)
    way = next(way for end, way in ways.items() if re.search(end, name))
    if draws.random() < 0.05:
        other = draws.choice(list(draws.choice(seeds).values()))
        return {**files, name: spliced(files[name], other, draws)}
    try:
        bent = way(files[name], draws)
    except OF_ANOTHER_FORM:
        bent = by_bytes(files[name], draws)
    return {**files, name: bent}
