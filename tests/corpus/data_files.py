# lambdas that hold what a loop is at
# mypy: disable-error-code="misc"
"""Cases of data: tensors in a file, IDX, pictures, spikes, and the pickles of CIFAR."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import struct
from collections.abc import Callable, Mapping

import torch
from PIL import Image
from torch import Tensor

from corpus.bench import IMAGES, MODEL, Bench
from corpus.case import READ, REFUSED, Files, add, bad, good
from corpus.spoilt import SPOILT, spoils
from corpus.taken_apart import changed, contents, like, written
from corpus.torch_checkpoints import Runs, saved


@good("tensors")
def in_safetensors(bench: Bench) -> Files:
    return {IMAGES: bench.bytes_of(IMAGES)}


@good("tensors")
def in_a_torch_file(bench: Bench) -> Files:
    return {IMAGES: saved(contents(bench.bytes_of(IMAGES))[0])}


@good("tensors")
def of_bytes(bench: Bench) -> Files:
    tensors, _ = contents(bench.bytes_of(IMAGES))
    return {
        IMAGES: written(
            {k: (100 * t).to(torch.uint8) if k[0] == "x" else t for k, t in tensors.items()}
        )
    }


def _holding(**tensors: Tensor | None) -> Callable[[Bench], Files]:
    """Good data with these tensors in it."""
    return lambda bench: {IMAGES: changed(bench.bytes_of(IMAGES), tensors)}


X, Y = torch.rand(16, 1, 6, 6), torch.arange(16) % 2
UNSEEN = (
    *("labels of 2 ** 40", "labels of 2 ** 62", "test labels of 2 ** 40", "one sample"),
    *("labels of classes that the network has not", "test samples of other sides"),
)
"""What calibrate does not look at, so that only the other commands may refuse it."""
for _name, _make in {
    "labels of 2 ** 40": _holding(y=Y * 2**40),
    "labels of 2 ** 62": _holding(y=Y + 2**62),
    "test labels of 2 ** 40": _holding(y_test=Y * 2**40),
    "labels below 0": _holding(y=Y - 1),
    "test labels below 0": _holding(y_test=-Y),
    "labels of 2 ** 64 - 1": _holding(y=(Y - 1).view(torch.uint64)),
    "labels of classes that the network has not": _holding(y=Y + 7),
    "labels that are fractions": _holding(y=Y.float()),
    "labels that are booleans": _holding(y=Y.bool()),
    "labels that are complex": _holding(y=Y.to(torch.complex64)),
    "labels too few": _holding(y=Y[:-1]),
    "labels in a table": _holding(y=Y.reshape(4, 4)),
    "labels without samples": _holding(x=None),
    "no samples of that name": lambda bench: {IMAGES: bench.bytes_of(MODEL)},
    "samples of NaN": _holding(x=like(X, math.nan)),
    "samples of infinity": _holding(x=like(X, math.inf)),
    "samples beyond float32": _holding(x=like(X.double(), 1e300)),
    "test samples of NaN": _holding(x_test=like(X, math.nan)),
    "samples that are complex": _holding(x=X.to(torch.complex64)),
    "samples of nothing": _holding(x=X[:0], y=Y[:0]),
    "samples of no pixels": _holding(x=X[..., :0]),
    "samples of one dimension": _holding(x=X[:, 0, 0, 0]),
    "samples of other sides": _holding(x=X[..., :4]),
    "samples of more channels": _holding(x=X.expand(16, 3, 6, 6).clone()),
    "test samples of other sides": _holding(x_test=X[..., :4]),
    "samples of many dimensions": _holding(x=X.reshape(16, *[1] * 20, 36)),
    "one sample": _holding(x=X[:1], y=Y[:1]),
}.items():
    add("tensors", _name, _make, codes=(READ, REFUSED) if _name in UNSEEN else (REFUSED,))


@bad("tensors")
def code_beside_the_samples(bench: Bench) -> Files:
    return {IMAGES: saved({**contents(bench.bytes_of(IMAGES))[0], "z": Runs()})}


spoils("tensors", IMAGES, in_safetensors)

DIGITS = "mnist/train-images-idx3-ubyte"
LABELS = "mnist/train-labels-idx1-ubyte"


def idx(values: Tensor, *, kind: int = 8, shape: tuple[int, ...] | None = None) -> bytes:
    """The IDX file of bytes, or one that says to be of another kind or shape."""
    sizes = values.shape if shape is None else shape
    header = struct.pack(f">HBB{len(sizes)}I", 0, kind, len(sizes), *sizes)
    return header + values.to(torch.uint8).numpy().tobytes()


def _mnist(**parts: bytes) -> dict[str, bytes]:
    digits, labels = (X * 255).reshape(16, 6, 6), Y
    found = {
        f"mnist/{part}-{name}": data
        for part in ("train", "t10k")
        for name, data in (("images-idx3-ubyte", idx(digits)), ("labels-idx1-ubyte", idx(labels)))
    }
    return {**found, **parts}


@good("idx")
def plain(bench: Bench) -> Files:
    return _mnist()


@good("idx")
def zipped(bench: Bench) -> Files:
    return {f"{name}.gz": gzip.compress(data) for name, data in _mnist().items()}


SQUARES = (X * 255).reshape(16, 6, 6)
for _name, _data in {
    "a shape of 2 ** 32 - 1": idx(SQUARES, shape=(2**32 - 1,) * 3),
    "a shape of more images": idx(SQUARES, shape=(17, 6, 6)),
    "a shape of no images": idx(SQUARES[:0]),
    "two dimensions": idx(SQUARES.reshape(16, 36)),
    "255 dimensions": struct.pack(">HBB", 0, 8, 255) + bytes(1020),
    "floats": idx(SQUARES, kind=13),
    "other sides": idx(SQUARES[:, :4]),
    "fewer images than labels": idx(SQUARES[:15]),
}.items():
    add("idx", _name, lambda bench, data=_data: _mnist(**{DIGITS: data}))
for _name, _data in {
    "labels beyond the classes": idx(torch.full((16,), 255)),
    "labels of floats": idx(Y, kind=13),
}.items():
    add("idx", _name, lambda bench, data=_data: _mnist(**{LABELS: data}))
for _name, _spoil in SPOILT.items():
    add("idx", _name, lambda bench, spoil=_spoil: _mnist(**{DIGITS: spoil(idx(SQUARES))}))


def _packed(spoil: Callable[[bytes], bytes]) -> Callable[[Bench], Files]:
    """One of the four files zipped, and that spoilt."""

    def made(bench: Bench) -> Files:
        files = _mnist()
        del files[DIGITS]
        return {**files, f"{DIGITS}.gz": spoil(gzip.compress(idx(SQUARES)))}

    return made


for _name, _spoil in SPOILT.items():
    add("idx", f"zipped, {_name}", _packed(_spoil))
add("idx", "a bomb of 256 MB", _packed(lambda _: gzip.compress(bytes(2**28))))
add("idx", "a flipped bit", _packed(lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]))


def picture(size: tuple[int, int] = (6, 6), form: str = "PNG") -> bytes:
    made = io.BytesIO()
    Image.new("L", size, 100).save(made, form)
    return made.getvalue()


def _pictures(first: bytes | None = None, name: str = "a.png") -> Files:
    """Two classes of eight pictures, all of one side, the first of them another file."""
    found = {f"pictures/{kind}/{n}.png": _grey(n) for kind in ("cat", "dog") for n in range(8)}
    return found if first is None else {**found, f"pictures/cat/{name}": first}


def _grey(level: int) -> bytes:
    made = io.BytesIO()
    Image.new("L", (6, 6), 20 * level).save(made, "PNG")
    return made.getvalue()


@good("pictures")
def two_classes(bench: Bench) -> Files:
    return _pictures()


@good("pictures")
def of_another_format(bench: Bench) -> Files:
    return _pictures(picture(form="BMP"), "a.bmp")


def _chunk(name: bytes, data: bytes) -> bytes:
    import zlib

    sums = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + sums


def _png(width: int, height: int) -> bytes:
    import zlib

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(b"\0")) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


for _name, _data in {
    "2 ** 31 pixels wide": _png(2**31 - 1, 2**31 - 1),
    "a bomb": _png(20_000, 20_000),
    "no pixels": _png(0, 0),
    "pixels that are missing": _png(6, 6),
    "text": b"not a picture",
    "postscript that runs a command": b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 6 6\n(x) run\n",
    # a PNG lacks nothing but its end without its last byte
    **{name: spoil(picture()) for name, spoil in SPOILT.items() if name != "cut by one byte"},
}.items():
    add("pictures", _name, lambda bench, data=_data: _pictures(data))
add("pictures", "no classes", lambda bench: {"pictures/a.png": picture()})
add("pictures", "a class without pictures", lambda bench: {**_pictures(), "pictures/x/a.txt": b""})


def _spikes(**tensors: Tensor) -> Files:
    return {"spikes.safetensors": written(tensors)}


ONES = torch.ones(4, 2, 3)


@good("spikes")
def zeros_and_ones(bench: Bench) -> Files:
    return _spikes(x=ONES)


for _name, _held in {
    "spikes of 2": {"x": 2 * ONES},
    "spikes of NaN": {"x": like(ONES, math.nan)},
    "spikes of two dimensions": {"x": ONES[0]},
    "no spikes": {"x": ONES[:0]},
    "spikes of another name": {"y": ONES},
}.items():
    add("spikes", _name, lambda bench, held=_held: _spikes(**held))
spoils("spikes", "spikes.safetensors", zeros_and_ones)

CIFAR = "cifar-10-batches-py"
PARTS = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta")


def _cifar(data: bytes) -> Mapping[str, bytes]:
    return {f"{CIFAR}/{part}": data for part in PARTS}


for _name, _data in {
    "pickles that run a command": pickle.dumps(Runs()),
    "pickles of another's images": pickle.dumps({"data": [[0] * 3072], "labels": [0]}),
    "nothing": b"",
}.items():
    add("cifar", _name, lambda bench, data=_data: _cifar(data))
