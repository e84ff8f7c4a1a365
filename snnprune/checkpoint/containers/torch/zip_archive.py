"""The zip archive around a torch file."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from snnprune.errors import InputError
from snnprune.readable import COPY_AGAIN

SAVE_STATE_DICT = "save the state_dict instead: torch.save(model.state_dict(), FILE)"

# What zipfile raises on bytes that are no archive, or none that it knows.
DAMAGE = (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, struct.error)

Members = Mapping[str, zipfile.ZipInfo]
LOCAL = struct.Struct("<4s5H3L2H")
"""What stands before the bytes of a member, with the lengths of its name and extra at the end."""


def require_torch_archive(file: BinaryIO, path: Path) -> Members:
    """The members of an archive, checked: torch.save wrote it, and it holds no more than its bytes.

    Raises:
        InputError: it is cut, of another kind, a TorchScript archive, or would grow when read.
    """
    parts = _parts(file, path)
    names = [part.filename for part in parts]
    if names and all(name.endswith(".npy") for name in names):
        raise InputError(
            "is a NumPy archive (npz), which is not supported", file=path, hint=SAVE_STATE_DICT
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            "is a TorchScript archive: holds code, which snnprune never runs",
            file=path,
            hint=SAVE_STATE_DICT,
        )
    if not any(_is_pickle(name) for name in names):
        raise InputError(
            "is a zip archive without the data.pkl of a torch file",
            file=path,
            hint="name the checkpoint itself",
        )
    _require_bounded(parts, file.seek(0, 2), path)
    return {part.filename: part for part in parts}


def pickle_of(members: Members) -> zipfile.ZipInfo:
    """The pickle of a torch archive."""
    return next(member for name, member in members.items() if _is_pickle(name))


def data_offset(file: BinaryIO, member: zipfile.ZipInfo, path: Path, size: int) -> int:
    """Where the bytes of a member begin.

    Raises:
        InputError: its own header says otherwise than the directory, or it ends behind the file.
    """
    file.seek(member.header_offset)
    header = file.read(LOCAL.size)
    if len(header) == LOCAL.size:
        signature, *_, name, extra = LOCAL.unpack(header)
        start = member.header_offset + LOCAL.size + name + extra
        if signature == b"PK\x03\x04" and start + member.file_size <= size:
            return int(start)
    raise InputError(
        f"truncated or damaged: {member.filename[:80]} is not where the directory says",
        file=path,
        hint=COPY_AGAIN,
    )


def _is_pickle(name: str) -> bool:
    return name.endswith("/data.pkl") and name.count("/") == 1


def _parts(file: BinaryIO, path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except DAMAGE:
        raise InputError(
            "truncated or damaged: the zip archive has no directory at its end",
            file=path,
            hint=COPY_AGAIN,
        ) from None


def _require_bounded(parts: list[zipfile.ZipInfo], size: int, path: Path) -> None:
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise InputError(
            "holds compressed parts, which torch.save never writes",
            file=path,
            hint="unpack it and pack it again without compression (zip -0)",
        )
    total = sum(part.file_size for part in parts)
    if total > size:
        raise InputError(f"claims {total:,} bytes of parts in {size:,} bytes of file", file=path)
