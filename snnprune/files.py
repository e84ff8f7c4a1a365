"""Writing a file whole or not at all, and the hash of what was read."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from snnprune.errors import OutputError, UsageError


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_free(path: Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse, before any work is done, an output that cannot or must not be written.

    Raises:
        OutputError: `path` is one of `inputs` (also through a link), exists and `force` is off,
            is a folder, or lies where no file can be made.
    """
    with as_output_error(path):
        _require_no_input(path, inputs)
        if path.is_dir():
            raise OutputError("is a folder", file=path, hint="name a file in it")
        if path.exists() and not path.is_file():
            raise OutputError("is not a regular file", file=path, hint="choose another place")
        if os.path.lexists(path) and not force:
            raise OutputError("exists already", file=path, hint="--force replaces it")
        require_writable_folder(path.parent)


def _require_no_input(path: Path, inputs: Iterable[Path]) -> None:
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError("output is the input", file=path, hint="choose another file")


def require_apart(path: Path, others: Iterable[Path], *, field: str) -> None:
    """Refuse a file that the same command writes as something else, or under a link to it.

    Raises:
        UsageError: it is one of `others`.
    """
    for other in others:
        if path.resolve() == other.resolve():
            raise UsageError(f"{path} is written as something else too", field=field)


def require_writable_folder(folder: Path) -> None:
    """Refuse a folder that is not there and cannot be made, or that takes no new files."""
    nearest = folder.absolute()
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OutputError("is not a folder", file=nearest, hint="choose another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError("folder is read-only", file=nearest, hint="choose another place")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Links are followed, the mode is what the umask gives a new file, and the bytes are on disk
    before the name is: after a crash the file is the old one or the new one.
    """
    with as_output_error(path):
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".snnprune-", suffix=".tmp")
        os.close(handle)
    temporary = Path(name)
    try:
        with as_output_error(path):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _flush_to_disk(temporary)
            temporary.replace(target)
            _flush_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """What goes wrong in the block goes wrong in writing `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"cannot be written: {reason}",
            file=path,
            hint="free some space or choose another place",
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
