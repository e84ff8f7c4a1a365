"""Opening a torch file of any format, without calling anything that it names."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from snnprune.checkpoint.containers.torch.formats import old, tarred, zipped
from snnprune.checkpoint.containers.torch.formats.opened import Opened


def opened(file: BinaryIO, path: Path) -> Opened:
    """What torch.save was given, as stand-ins, and where the storages are.

    Raises:
        InputError: the file is damaged, or of another kind.
    """
    file.seek(0)
    head = file.read(512)
    if head[:2] == b"PK":
        return zipped.opened(file, path)
    if head[257:262] == b"ustar":
        return tarred.opened(file, path)
    return old.opened(file, path)
