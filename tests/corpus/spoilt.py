"""What happens to any file: it is cut, goes on for too long, or is another one."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator

from corpus.bench import Bench
from corpus.case import Files, add

Spoil = Callable[[bytes], bytes]

FOREIGN: dict[str, bytes] = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "an HTML page": b"<!DOCTYPE html><title>404</title>",
    "an error in JSON": b'{"error": "Invalid username or password."}',
    "a gzip archive": gzip.compress(b"x" * 100),
    "a NumPy file": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'shape': (1,)}\n" + b"\0" * 4,
    "a GGUF file": b"GGUF\x03\0\0\0" + b"\0" * 100,
    "an ONNX file": b"\x08\x08\x12\x07pytorch" + b"\0" * 100,
    "text": b"not a checkpoint at all, said \x1b[31mthe file\x1b[0m\n",
    "a pickle that runs a command": b"cos\nsystem\n(S'touch hostile'\ntR.",
}


def _zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("../outside", "x")
    return made.getvalue()


def _tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        file.addfile(tarfile.TarInfo("../outside"))
    return made.getvalue()


FOREIGN |= {"a zip archive of something else": _zip(), "a tar archive": _tar()}

SPOILT: dict[str, Spoil] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "cut after 8 bytes": lambda data: data[:8],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut by one byte": lambda data: data[:-1],
    "all zero": lambda data: bytes(len(data)),
    "all ones": lambda data: b"\xff" * len(data),
    "backwards": lambda data: data[::-1],
}


def spoils(kind: str, file: str, make: Callable[[Bench], Files], *but: str) -> None:
    """Add the cases in which one file of good ones is spoilt in each of these ways."""
    for name, spoil in _all():
        if name not in but:
            add(kind, name, _spoiling(make, file, spoil))


def _all() -> Iterator[tuple[str, Spoil]]:
    yield from SPOILT.items()
    for name, data in FOREIGN.items():
        yield name, lambda _, data=data: data  # type: ignore[misc]  # holds a value


def _spoiling(make: Callable[[Bench], Files], file: str, spoil: Spoil) -> Callable[[Bench], Files]:
    def made(bench: Bench) -> Files:
        files = make(bench)
        return {**files, file: spoil(files[file])}

    return made
