"""More torch files that are made to take memory, time or code, in both formats."""

from __future__ import annotations

import functools
import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator

import torch

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3)}
PROTO = b"\x80\x02"
END = b"."


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(name: str) -> bytes:
    module, _, own = name.rpartition(".")
    return f"c{module}\n{own}\n".encode()


def several(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def called(name: str, *arguments: bytes) -> bytes:
    return named(name) + several(*arguments) + b"R"


def dictionary(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def storage(
    key: bytes = text("0"), count: int = 6, kind: bytes = b"ctorch\nFloatStorage\n", *more: bytes
) -> bytes:
    return several(text("storage"), kind, key, text("cpu"), integer(count), *more) + b"Q"


def tensor(
    view: bytes | None = None,
    offset: int = 0,
    size: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
) -> bytes:
    return called(
        "torch._utils._rebuild_tensor_v2",
        storage() if view is None else view,
        integer(offset),
        several(*map(integer, size)),
        several(*map(integer, stride)),
        b"\x89",
        called("collections.OrderedDict"),
    )


def program(body: bytes) -> bytes:
    return PROTO + body + END


def zipped(body: bytes, *, order: bytes = b"little", data: bytes | None = None) -> bytes:
    """A torch file of the zip format around a program."""
    buffer = io.BytesIO()
    values = torch.arange(6.0).numpy().tobytes() if data is None else data
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", program(body))
        archive.writestr("a/byteorder", order)
        archive.writestr("a/data/0", values)
        archive.writestr("a/version", "3\n")
    return buffer.getvalue()


def old(body: bytes) -> bytes:
    """The same of the format before 1.6."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    before = b"".join(pickle.dumps(value, 2) for value in head)
    data = torch.arange(6.0).numpy().tobytes()
    return before + program(body) + pickle.dumps(["0"], 2) + struct.pack("<q", 6) + data


def beside(value: bytes, key: bytes = text("x")) -> bytes:
    """A state_dict, and under a key of its own a value."""
    weights = dictionary(**{"fc.weight": tensor()})
    return b"}(" + text("model") + weights + key + value + b"u"


def doubling(levels: int) -> bytes:
    """A tuple of two tuples that are one, and so on: 2 to the levels when it is hashed."""
    return b")" + b"".join(b"q%c(h%ch%ct" % (i, i, i) for i in range(levels))


HUGE = integer(8 << 30)
MODULE = dictionary(_parameters=b"}", _buffers=b"}", _modules=b"}")

# Of each of these the weights can be read: what is odd lies beside them and is never made.
BESIDE: dict[str, bytes] = {
    "a bytearray of 8 GB": beside(called("builtins.bytearray", HUGE)),
    "bytes of 8 GB": beside(called("builtins.bytes", HUGE)),
    "a range as a list": beside(called("builtins.list", called("builtins.range", HUGE))),
    "a set of bytearrays": beside(
        b"\x8f(" + b"".join(called("builtins.bytearray", HUGE) for _ in range(9)) + b"\x90"
    ),
    "a tensor of 40,000 by 40,000": beside(
        called("torch.Tensor", integer(40_000), integer(40_000))
    ),
    "a storage of a size": beside(called("torch.storage.TypedStorage", integer(64))),
    "an untyped storage of 8 GB": beside(called("torch.storage.UntypedStorage", HUGE)),
    "a power of powers": beside(called("builtins.pow", integer(9**9), integer(9**9))),
    "text times a number": beside(called("operator.mul", text("x"), HUGE)),
    "200,000 characters of punycode": beside(
        called("_codecs.encode", text("\xe4\xf6" * 100_000), text("punycode"))
    ),
    "punycode the other way": beside(
        called("_codecs.decode", text("a-" + "b" * 200_000), text("punycode"))
    ),
    "shared tuples as a key": beside(b"N", key=doubling(60)),
    "shared tuples in a set": beside(b"\x8f(" + doubling(60) + b"\x90"),
    "shared tuples in a frozenset": beside(b"(" + doubling(60) + b"\x91"),
    "a dict as a key": beside(b"N", key=b"}"),
    "a class as a key": beside(b"N", key=b"cos\npath\n"),
    "what is in itself": beside(b"]q\x00h\x00a"),
    "a tuple in its own list": beside(b"]q\x01h\x01\x85a"),
    "an integer of a megabyte": beside(b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20),
    "an integer of many digits": beside(b"I" + b"9" * 100_000 + b"\n"),
    "a long of many digits": beside(b"L" + b"9" * 100_000 + b"L\n"),
    "an integer as a key": beside(b"N", key=b"\x8a\xff" + b"\x7f" * 255),
    "nested lists": beside(b"]" * 100_000 + b"a" * 99_999),
    "nested tuples": beside(b")" + b"\x85" * 100_000),
    "nested calls": beside(b"cq\nw\n" + b")R" * 50_000),
    "ten thousand marks": beside(b"(" * 10_000 + b"1" * 9_999 + b"t"),
    "a state that shadows methods": beside(
        called("collections.deque")
        + dictionary(detach=b"N", storage=b"N", __class__=b"N", __reduce__=b"N", shape=b"N")
        + b"b"
    ),
    "an extension": beside(b"\x82\x01"),
    "a large extension": beside(b"\x84\xff\xff\xff\x7f"),
    "a frame that lies": beside(b"\x95" + b"\xff" * 8 + b"N"),
    "half a surrogate as a key": beside(b"N", key=text("\ud800")),
    "a key of ten megabytes": beside(b"N", key=text("k" * 10_000_000)),
    "a getattr of getattr": beside(
        called("builtins.getattr", called("builtins.getattr", b"N", text("a")), text("b"))
    ),
    "a class by its dotted name": beside(b"\x8c\x05torch\x8c\x13_utils.__builtins__\x93)R"),
}  # fmt: skip


def module_tree(levels: int) -> bytes:
    """A module with two names for one module, and so on: 2 to the levels when it is walked."""
    body = called("n.N") + MODULE + b"b"
    for level in range(levels):
        inner = b"q%c" % level
        body += inner + b"0"
        pair = dictionary(a=b"h%c" % level, b=b"h%c" % level)
        body += called("n.N") + dictionary(_parameters=b"}", _buffers=b"}", _modules=pair) + b"b"
    return body


def alone(value: bytes) -> bytes:
    return dictionary(**{"fc.weight": value})


# Each of these is refused.
REFUSED: dict[str, bytes] = {
    "uninitialised weights": alone(called("torch.Tensor", integer(64), integer(64))),
    "weights over uninitialised memory": alone(
        tensor(called("torch.storage.TypedStorage", integer(64)))
    ),
    "a float storage of a size": alone(tensor(called("torch.FloatStorage", integer(64)))),
    "nested": alone(
        called("torch._utils._rebuild_nested_tensor", tensor(), tensor(), tensor(), tensor())
    ),
    "on meta": alone(called(
        "torch._utils._rebuild_meta_tensor_no_storage", b"ctorch\nfloat32\n",
        several(integer(2**40), integer(2**40)), several(integer(2**40), integer(1)), b"\x89",
    )),
    "sparse": alone(called(
        "torch._utils._rebuild_sparse_tensor", b"ctorch\nsparse_coo\n",
        several(tensor(), tensor(), several(integer(2**40))),
    )),
    "quantised without parameters": alone(
        called("torch._utils._rebuild_qtensor", storage(kind=b"ctorch\nQInt8Storage\n"))
    ),
    "a wrapper": alone(called("torch._utils._rebuild_wrapper_subclass", b"cos\nsystem\n")),
    "from a type": alone(called("torch._tensor._rebuild_from_type_v2",
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"cos\npath\n",
        several(storage(), integer(0), several(integer(6)), several(integer(1))), b"}")),
    "from a type of a type": alone(
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\n"
        b"ctorch\nTensor\n)}tR"
    ),
    "told other values": alone(tensor() + several(storage(), integer(0), several(integer(1)),
                                                  several(integer(1))) + b"b"),
    "beyond its storage": alone(tensor(offset=1)),
    "far beyond its storage": alone(tensor(offset=2**58)),
    "a negative offset": alone(tensor(offset=-1)),
    "a negative size": alone(tensor(size=(-2, 3))),
    "a negative stride": alone(tensor(stride=(-3, 1))),
    "strides of nothing": alone(tensor(size=(1000, 1000, 1000), stride=(0, 0, 0))),
    "sizes that overflow": alone(tensor(size=(2**32, 2**32), stride=(0, 0))),
    "sizes of nothing that overflow": alone(tensor(size=(0, 2**58, 4), stride=(0, 0, 0))),
    "a module within itself": beside(
        called("n.N") + b"q\x05" + dictionary(_parameters=b"}", _buffers=b"}",
                                            _modules=dictionary(a=b"h\x05")) + b"b"
    ),
    "a thousand dimensions": alone(tensor(size=(1,) * 1000, stride=(1,) * 1000)),
    "more strides than sizes": alone(tensor(stride=(3, 1, 1))),
    "a truth as a size": alone(tensor()).replace(integer(2) + integer(3), b"\x88" + integer(3)),
    "a storage of 2^40 elements": alone(tensor(storage(count=2**40))),
    "a storage of -1 elements": alone(tensor(storage(count=-1))),
    "a storage that is not there": alone(tensor(storage(key=text("7")))),
    "a storage outside the archive": alone(tensor(storage(key=text("../../etc/passwd")))),
    "a storage without a key": alone(tensor(storage(key=b"]"))),
    "a storage of no class": alone(tensor(storage(kind=b"cos\nFloatStorage\n"))),
    "a storage of an unknown class": alone(tensor(storage(kind=b"ctorch\nStorage\n"))),
    "a storage of two types": dictionary(
        **{"a.weight": tensor(), "b.weight": tensor(storage(kind=b"ctorch\nIntStorage\n"))}
    ),
    "a storage of two sizes": dictionary(
        **{"a.weight": tensor(storage(count=3), size=(3,), stride=(1,)), "b.weight": tensor()}
    ),
    "an id that is text": alone(b"Pstorage\n"),
    "an id that is empty": alone(b")Q"),
    "an id that is None": alone(b"NQ"),
    "an id of another kind": alone(several(text("file"), text("/etc/passwd")) + b"Q"),
    "an id of a dict": alone(b"}Q"),
    "a buffer of its own": alone(b"\x97"),
    "a read-only buffer": alone(tensor() + b"\x98"),
    "a protocol of the future": alone(tensor()) + b"\x80\x09",
    "an unknown instruction": alone(tensor()) + b"\xff",
    "an empty stack": b"0" * 10,
    "a mark that is not there": b"t",
    "a number never kept": b"h\x07",
    "a number far off": b"N" + b"r\xff\xff\xff\x7f",
    "a key without a value": b"}(" + text("a") + b"u",
    "items of a number": b"K\x01" + text("a") + b"Ns",
    "a state of a number": b"K\x01}b",
    "a name of a megabyte": b"c" + b"m" * 2**20 + b"\nn\n",
    "a class named by a list": b"]]\x93",
    "a text longer than the file": b"X\xff\xff\xff\x7f",
    "bytes longer than the file": b"\x8e" + b"\xff" * 7 + b"\x7f",
    "two million lists": b"]" * 2_000_000,
    "two million numbers": b"(" + b"K\x07" * 2_000_000 + b"l",
    "two million dicts": b"(" + b"}" * 2_000_000 + b"l",
    "a million calls": b"(" + b"cq\nw\n)R" * 1_000_000 + b"l",
    "half a million texts": b"(" + text("\U0001f600" * 3) * 500_000 + b"l",
    "two million copies": b"]" + b"2" * 2_000_000 + b"l",
    "two million numbers of the memo": b"N" + b"q\x00" * 2_000_000,
    "half a million modules": module_tree(60),
    "a hundred thousand colliding keys": b"}("
    + b"".join(integer((2**61 - 1) * i) + b"N" for i in range(100_000))
    + b"u",
}  # fmt: skip

RUNNING: dict[str, bytes] = {
    "os.system": beside(called("os.system", text("touch hostile"))),
    "posix.system": beside(called("posix.system", text("touch hostile"))),
    "subprocess": beside(called("subprocess.Popen", text("touch hostile"))),
    "eval": beside(called("builtins.eval", text("open('hostile', 'w')"))),
    "exec of Python 2": beside(called("__builtin__.exec", text("open('hostile', 'w')"))),
    "runpy": beside(called("runpy._run_code", text("open('hostile', 'w')"))),
}
"""Each of these is refused by the name of what it calls."""

PASSED_OVER: dict[str, bytes] = {
    "a class that nobody knows": beside(called("my_trainer.Harm", text("touch hostile"))),
    "through getattr": beside(
        called("builtins.getattr", b"cos\npath\n", text("system"))
        + several(text("touch hostile"))
        + b"R"
    ),
    "numpy's own runner": beside(
        called("numpy.testing._private.utils.runstring", text("open('hostile', 'w')"), b"}")
    ),
}
"""Each of these calls what nobody can list; it is never called here, and the weights are read."""


def overlapping() -> Iterator[tuple[str, bytes]]:
    """Archives whose directory lies."""
    whole = zipped(alone(tensor()))
    at = whole.rindex(b"PK\x05\x06")
    yield "a directory beyond the end", whole[: at + 16] + b"\xff\xff\xff\x7f" + whole[at + 20 :]
    yield "65,535 parts", whole[: at + 8] + b"\xff\xff\xff\xff" + whole[at + 12 :]
    first = whole.index(b"PK\x01\x02")
    second = whole.index(b"PK\x01\x02", first + 4)
    third = whole.index(b"PK\x01\x02", second + 4)
    moved = whole[: third + 42] + whole[second + 42 : second + 46] + whole[third + 46 :]
    yield "two parts at one place", moved
    large = whole[: third + 24] + struct.pack("<I", 2**31) + whole[third + 28 :]
    yield "a part of 2 GB", large
    yield "compressed parts", _deflated()
    yield "no local header", whole.replace(b"PK\x03\x04", b"PK\x03\x05")


@functools.cache
def _deflated() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/data.pkl", program(alone(tensor(storage(count=2**26)))))
        archive.writestr("a/data/0", bytes(2**28))
    return buffer.getvalue()


FORMATS: dict[str, Callable[[bytes], bytes]] = {"zip": zipped, "old": old}


def more_cases() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and `read` where the weights beside it are to be read or `refused`."""
    groups = ((BESIDE, "read"), (PASSED_OVER, "read"), (REFUSED, "refused"), (RUNNING, "refused"))
    for group, wanted in groups:
        for name, body in group.items():
            for kind, made in FORMATS.items():
                yield f"{kind}: {name}", made(body), wanted
    for name, data in overlapping():
        yield f"zip: {name}", data, "refused"
