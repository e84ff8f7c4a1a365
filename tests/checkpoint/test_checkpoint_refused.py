"""A corpus of files that must be refused, each in its own words, beside good ones that must not."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from pace import pace

from snnprune.checkpoint.containers import describe_checkpoint, read_checkpoint
from snnprune.errors import InputError

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LATER = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}


def framed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def listing(data: bytes = bytes(8), **entries: object) -> bytes:
    return framed(json.dumps(entries).encode(), data)


def entry(**changed: object) -> dict[str, object]:
    return {**ONE, **changed}


GOOD = safetensors.torch.save({"a.weight": torch.ones(4, 4), "b": torch.ones(3)})
TEXT = b"hello world, this is no checkpoint at all\n" * 20


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.ones(3))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "text")
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    code = {"code/__torch__.py": "def f(): pass", "constants.pkl": ".", "data.pkl": "."}
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in code.items():
            archive.writestr(f"net/{name}", text)
    return buffer.getvalue()


def torch_zip(**state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state or {"w": torch.arange(64.0)}, buffer)
    return buffer.getvalue()


def torch_legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(64.0)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def repacked(data: bytes, change: Callable[[str, bytes], bytes | None], method: int = 0) -> bytes:
    """A zip archive with each part changed; None drops it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            part = change(name, old.read(name))
            if part is not None:
                new.writestr(name, part)
    return buffer.getvalue()


def lying_storage() -> bytes:
    """An archive whose pickle claims 9,999 numbers for a record of 64, in storage and in shape."""
    claim = b"M" + struct.pack("<H", 9999)
    return repacked(torch_zip(), lambda name, part: part.replace(b"K@", claim))


def overlapping_parts() -> bytes:
    """An archive whose directory lists the same bytes a thousand times."""
    data = bytearray(torch_zip())
    start = struct.unpack("<I", data[-6:-2])[0]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start, count = archive.start_dir, len(archive.namelist())
    directory = bytes(data[start : data.rindex(b"PK\x05\x06")])
    if b"PK\x06\x06" in directory:
        directory = directory[: directory.index(b"PK\x06\x06")]
    end = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, count * 1000, count * 1000, len(directory) * 1000, start, 0
    )
    return bytes(data[:start]) + directory * 1000 + end


BAD = {
    # not a checkpoint at all
    "empty": (b"", "empty file. copy"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
    "html in capitals": (b"<HTML>login</HTML>", "HTML page"),
    "json": (b'{"error": "Entry not found"}', "is JSON text"),
    "json list": (b"[1, 2, 3]", "is JSON text"),
    "gzip": (gzip.compress(GOOD), "gzip archive. gunzip it first"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "truncated or damaged HDF5"),
    "npz": (npz(), "npz"),
    "npy": (npy(), "NumPy file"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.0.1" + bytes(50), "ONNX"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(40), "GGUF"),
    "tar": (tar(), "tar archive"),
    "zip": (zipped("notes.txt"), "zip archive without the data.pkl"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "zip archive without the data.pkl"),
    "text": (TEXT, "neither a safetensors nor a torch file nor a NIR graph"),
    "one byte": (b"x", "neither"),
    "zeros": (bytes(1000), "neither"),
    # safetensors: the header
    "claims 2^60": (framed(b"{}", length=2**60), "claims a header of 1,152,921,504,606,846,976"),
    "claims 2^63": (framed(b"{}", length=2**63), "claims a header"),
    "claims 90 MB": (framed(b"{}", length=90_000_000), "truncated: 10 of at least 90,000,008"),
    "not json": (framed(b"{'a': 1}"), "the header is not JSON"),
    "json cut": (framed(b'{"a": {"dty'), "the header is not JSON"),
    "json and more": (framed(b"{} {}  "), "the header is not JSON: Extra data"),
    "a list": (framed(b"[1, 2]  "), "not a table of tensors"),
    "not utf-8": (framed(b'{"\xff\xfe": 1}'), "the header is not UTF-8"),
    "byte order mark": (framed(b"\xef\xbb\xbf{}   "), "byte order mark"),
    "half a surrogate": (framed(b'{"\\ud800": {}}'), "half a surrogate"),
    "deep lists": (framed(b'{"a":' + b"[" * 100_000), "nested too deep"),
    "deep objects": (framed(b'{"a":' * 100_000), "nested too deep"),
    "huge number": (
        framed(b'{"w":{"dtype":"F32","shape":[' + b"9" * 6000 + b'],"data_offsets":[0,8]}}'),
        "too many digits",
    ),
    "name twice": (
        framed(b'{"w":%s,"w":%s}' % ((json.dumps(ONE).encode(),) * 2), bytes(8)),
        "the header has the name 'w' twice",
    ),
    "dtype twice": (
        framed(b'{"w":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        "'dtype' twice",
    ),
    "no tensors": (framed(b"{}      "), "holds no tensors"),
    "only text": (framed(b'{"__metadata__":{"a":"b"}}'), "holds no tensors"),
    "text of numbers": (listing(__metadata__={"a": 1}, w=ONE), "__metadata__: is not a table"),
    "text of lists": (listing(__metadata__=["a"], w=ONE), "__metadata__: is not a table"),
    # safetensors: an entry
    "entry is text": (listing(w="F32"), "w: lacks a dtype"),
    "no shape": (listing(w={"dtype": "F32", "data_offsets": [0, 8]}), "w: lacks a dtype, shape"),
    "unknown dtype": (listing(w=entry(dtype="F33")), "w: unknown dtype 'F33'. known: BOOL, U8"),
    "dtype is a list": (listing(w=entry(dtype=["F32"])), "w: unknown dtype"),
    "too few bytes": (listing(w=entry(shape=[3])), "w: shape .3. of F32 needs 12 bytes.*give 8"),
    "too many bytes": (listing(w=entry(shape=[1])), "w: shape .1. of F32 needs 4 bytes.*give 8"),
    "negative size": (listing(w=entry(shape=[-2])), "w: its shape is not"),
    "two negative sizes": (listing(w=entry(shape=[-1, -2])), "w: its shape is not"),
    "true as a size": (listing(w=entry(shape=[True, 2])), "w: its shape is not"),
    "half a size": (listing(w=entry(shape=[2.0])), "w: its shape is not"),
    "shape is a number": (listing(w=entry(shape=2)), "w: its shape is not"),
    "overflow": (listing(w=entry(shape=[2**32, 2**32])), "w: its shape is not"),
    "overflow of nothing": (
        listing(b"", w=entry(shape=[0, 2**62, 4], data_offsets=[0, 0])),
        "w: its shape is not",
    ),
    "thousand dims": (listing(bytes(4), w=entry(shape=[1] * 1000)), "w: its shape is not"),
    "negative offset": (listing(w=entry(data_offsets=[-8, 0])), "w: its offsets are not two"),
    "reversed": (listing(w=entry(data_offsets=[8, 0])), "w: its offsets 8 to 0 are reversed"),
    "one offset": (listing(w=entry(data_offsets=[8])), "w: its offsets are not two"),
    "offset is text": (listing(w=entry(data_offsets=["0", "8"])), "w: its offsets are not two"),
    "overlap": (
        listing(bytes(12), v=ONE, w=entry(data_offsets=[4, 12])),
        "w: overlaps the 4 bytes before it",
    ),
    "same bytes twice": (listing(v=ONE, w=ONE), "w: overlaps the 8 bytes before it"),
    "hole": (
        listing(bytes(20), v=ONE, w=entry(data_offsets=[12, 20])),
        "w: leaves a hole of 4 bytes",
    ),
    "hole at the start": (listing(bytes(16), w=LATER), "w: leaves a hole of 8 bytes"),
    "offsets beyond the end": (listing(bytes(8), v=ONE, w=LATER), "truncated: 1.. of 1.. bytes"),
    "extra byte": (GOOD + b"\0", "1 extra byte after the last tensor"),
    "extra bytes": (GOOD + bytes(1000), "1,000 extra bytes after"),
    # torch
    "zip cut": (torch_zip()[:-30], "truncated or damaged: the zip archive has no directory"),
    "zip cut early": (torch_zip()[:100], "truncated or damaged"),
    "legacy cut": (torch_legacy()[:-3], "truncated or damaged"),
    "legacy cut early": (torch_legacy()[:200], "truncated or damaged"),
    "pickle cut": (torch_legacy()[:2], "truncated or damaged"),
    "torchscript": (torchscript(), "TorchScript archive: holds code, which snnprune never runs"),
    "compressed": (
        repacked(torch_zip(), lambda _, part: part, zipfile.ZIP_DEFLATED),
        "compressed parts",
    ),
    "missing part": (
        repacked(torch_zip(), lambda name, part: None if name.endswith("/data/0") else part),
        "truncated or damaged",
    ),
    "no pickle": (
        repacked(torch_zip(), lambda name, part: None if name.endswith(".pkl") else part),
        "without the data.pkl",
    ),
    "lying storage": (
        lying_storage(),
        "truncated or damaged: storage '0' claims 39,996 bytes, 256 are stored",
    ),
    "overlapping parts": (overlapping_parts(), "claims .* bytes of parts"),
    "stride 0": (torch_zip(w=torch.zeros(1).expand(10**6)), "w: claims 4,000,000 bytes, 4 are"),
    "sparse": (torch_zip(w=torch.eye(3).to_sparse()), "w: is no dense tensor, but sparse"),
    "no data": (
        torch_zip(w=torch.ones(3, device="meta")),
        "w: is no dense tensor, but without values",
    ),
    "half a surrogate in a key": (torch_zip(**{"\ud800": torch.ones(3)}), "its name is not text"),
    "plain pickle": (pickle.dumps({"a": [1.0]}), "a pickle that torch.save did not write"),
    "pickled array": (pickle.dumps({"a": np.ones(3)}), "a pickle that torch.save did not write"),
    "nothing but numbers": (torch_zip(epoch=3, lr=0.1), "no state_dict found; the keys are epoch"),
}

CONTROLS = {
    "safetensors": (GOOD, "safetensors"),
    "one tensor": (listing(w=ONE), "safetensors"),
    "padded header": (framed(json.dumps({"w": ONE}).encode() + b"   ", bytes(8)), "safetensors"),
    "in another order": (listing(bytes(16), w=LATER, v=ONE), "safetensors"),
    "empty tensor": (listing(b"", w=entry(shape=[0, 3], data_offsets=[0, 0])), "safetensors"),
    "unaligned": (
        listing(bytes(9), b=entry(dtype="U8", shape=[1], data_offsets=[0, 1]),
                w=entry(data_offsets=[1, 9])),
        "safetensors",
    ),
    "zip": (torch_zip(), "torch"),
    "legacy": (torch_legacy(), "torch"),
}  # fmt: skip


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    return caught.value


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_words_that_fit_it(tmp_path: Path, name: str) -> None:
    data, words = BAD[name]
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        read_checkpoint(path)
    error = caught.value
    assert error.file == str(path)
    assert error.exit_code == 3
    assert "\n" not in str(error)
    assert "weights_only" not in str(error)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_good_file_is_read_whatever_it_is_called(tmp_path: Path, name: str, suffix: str) -> None:
    data, container = CONTROLS[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(data)
    assert read_checkpoint(path).container == container


@pytest.mark.parametrize("name", sorted(BAD.keys() - {"html", "json"}))
def test_describing_refuses_what_reading_refuses(tmp_path: Path, name: str) -> None:
    data, words = BAD[name]
    (tmp_path / "model.pth").write_bytes(data)
    with pytest.raises(InputError, match=words):
        describe_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["deep lists", "deep objects", "huge number", "claims 90 MB"])
def test_a_file_made_to_be_slow_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").write_bytes(BAD[name][0])
    began = time.process_time()
    refusal(tmp_path / "model")
    assert time.process_time() - began < pace()


def test_a_safetensors_file_cut_anywhere_is_called_truncated(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    for size in range(1, len(GOOD)):
        path.write_bytes(GOOD[:size])
        assert refusal(path).message.startswith(f"truncated: {size} of")


@pytest.mark.parametrize("whole", [torch_zip(), torch_legacy()], ids=["zip", "legacy"])
def test_a_torch_file_cut_anywhere_is_refused(tmp_path: Path, whole: bytes) -> None:
    for size in range(1, len(whole), 7):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        assert refusal(tmp_path / "cut.pth").exit_code == 3


def test_a_header_may_begin_with_the_bytes_of_another_format(tmp_path: Path) -> None:
    # 640 is 80 02, a pickle's first bytes; 60 is "<", 123 is "{", 0x0a5b is "[" and a new line.
    for length in (640, 123, 60 + 256, 0x0A5B, 0x8B1F):
        header = json.dumps({"w": ONE}).encode().ljust(length)
        (tmp_path / "odd").write_bytes(framed(header, bytes(8)))
        assert read_checkpoint(tmp_path / "odd").container == "safetensors"


def test_flipped_bytes_never_end_in_anything_but_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "flipped"
    answers = set()
    for whole in (GOOD, torch_zip(), torch_legacy()):
        for position in range(0, min(len(whole), 1500), 5):
            data = bytearray(whole)
            data[position] ^= 0xFF
            path.write_bytes(data)
            try:
                read_checkpoint(path, allow_nonfinite=True)
            except InputError:
                answers.add("refused")
            else:
                answers.add("read")
    assert answers == {"refused", "read"}
