"""Which container a file is, by its first bytes and not by its name."""

import re
from dataclasses import dataclass
from pathlib import Path

from snnprune.checkpoint.safetensors import HEADER_LIMIT
from snnprune.checkpoint.shards import is_index
from snnprune.checkpoint.torch import old_formats
from snnprune.errors import InputError
from snnprune.files.readable import COPY_AGAIN, open_for_reading, require_regular_file

HEAD = 512
"""Bytes looked at: enough for a tar archive's magic, which lies at 257."""


@dataclass(frozen=True, kw_only=True)
class ForeignFormat:
    """A kind of file that people hand over by mistake."""

    start: bytes
    """A pattern that its first bytes match."""
    message: str
    hint: str


CONVERT = "load it where it was made and save the state_dict with torch.save"

JSON = rb'(\xef\xbb\xbf)?\s*[{\[]\s*["{}\[\]\dtfn-]'

HDF5 = b"\x89HDF\r\n\x1a\n"

FOREIGN = (
    ForeignFormat(
        start=rb"version https://git-lfs",
        message="is a Git LFS pointer, not the file itself",
        hint="git lfs pull fetches the file",
    ),
    ForeignFormat(
        start=rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]",
        message="is an HTML page",
        hint="the download failed or asked for a login: download it again",
    ),
    ForeignFormat(
        start=JSON,
        message="is JSON text",
        hint="name the file that holds the tensors, or read in it why the download failed",
    ),
    ForeignFormat(start=rb"\x1f\x8b", message="is a gzip archive", hint="gunzip it first"),
    ForeignFormat(
        start=rb"\x93NUMPY", message="is a NumPy file, which is not supported", hint=CONVERT
    ),
    ForeignFormat(start=rb"GGUF", message="is a GGUF file, which is not supported", hint=CONVERT),
    ForeignFormat(
        # The fields of a ModelProto: ir_version, then producer, domain, doc, graph or opset.
        start=rb"\x08[\x01-\x1f][\x12\x1a\x22\x32\x3a\x42]",
        message="is an ONNX file, which is not supported",
        hint=CONVERT,
    ),
    ForeignFormat(
        start=rb"(?s).{257}ustar",
        message="is a tar archive",
        hint="unpack it and name the checkpoint in it",
    ),
)

# A zip archive, a binary pickle, or a text pickle that begins by calling a global.
TORCH = rb"PK\x03\x04|PK\x05\x06|\x80[\x00-\x05]|c\w[\w.]*\n\w[\w.]*\n(p\d+\n|q[\s\S])?\("


def sniff_container(path: Path) -> str:
    """`safetensors`, `sharded-safetensors`, `torch` or `nir`.

    Raises:
        InputError: the file is not there, cannot be read, or is something else.
    """
    require_regular_file(path)
    with open_for_reading(path) as file:
        head = file.read(HEAD)
        if head[257:262] == b"ustar" and old_formats.is_torch(file):
            return "torch"
    # Before all else, since a header's length may spell the first bytes of anything.
    if head[5:9] == b"\0\0\0{":
        return "safetensors"
    if re.match(JSON, head) and is_index(path):
        return "sharded-safetensors"
    if head.startswith(HDF5):
        return "nir"
    _refuse_foreign(path, head)
    if re.match(TORCH, head):
        return "torch"
    if _may_be_safetensors(head) or path.suffix == ".safetensors":
        return "safetensors"
    raise InputError(
        "is neither a safetensors nor a torch file nor a NIR graph",
        file=path,
        hint=f"snnprune reads .safetensors, .pt, .pth, .tar, .ckpt and .nir; else {COPY_AGAIN}",
    )


def _refuse_foreign(path: Path, head: bytes) -> None:
    for foreign in FOREIGN:
        if re.match(foreign.start, head):
            raise InputError(foreign.message, file=path, hint=foreign.hint)


def _may_be_safetensors(head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" or (len(head) >= 8 and 2 <= length <= HEADER_LIMIT)
