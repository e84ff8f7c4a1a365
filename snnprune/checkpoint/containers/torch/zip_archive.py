"""The zip archive around a torch file, looked at before torch opens it."""

import contextlib
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from snnprune.errors import InputError
from snnprune.readable import COPY_AGAIN

SAVE_STATE_DICT = "save the state_dict instead: torch.save(model.state_dict(), FILE)"

# What zipfile raises on bytes that are no archive, or none that it knows.
DAMAGE = (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, struct.error)


def require_torch_archive(file: BinaryIO, path: Path) -> None:
    """Check that torch.save wrote the archive and that it holds no more than its own bytes.

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


def pickle_in(file: BinaryIO) -> bytes:
    """The pickle of a torch archive; nothing where it is damaged."""
    with contextlib.suppress(*DAMAGE), zipfile.ZipFile(file) as archive:
        return archive.read(next(filter(_is_pickle, archive.namelist())))
    return b""


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
