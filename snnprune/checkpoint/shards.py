"""Sharded safetensors: an index in JSON beside the files that hold the tensors.

The form of Hugging Face: `{"metadata": {...}, "weight_map": {tensor: file}}`.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from torch import Tensor

from snnprune.checkpoint import safetensors
from snnprune.checkpoint.checkpoint import Contents
from snnprune.checkpoint.safetensors import HEADER_LIMIT, MalformedJsonError, parse
from snnprune.errors import InputError
from snnprune.errors.text import format_names
from snnprune.files.readable import COPY_AGAIN, open_for_reading, require_regular_file
from snnprune.files.writing import hash_file

MAP = "weight_map"


def is_index(path: Path) -> bool:
    """Whether a file of JSON text has the table of an index."""
    if path.stat().st_size > HEADER_LIMIT:
        return False
    with open_for_reading(path) as file:
        return f'"{MAP}"'.encode() in file.read()


def read(path: Path) -> Contents:
    """The tensors of all shards, in the order of the index.

    Raises:
        InputError: the index is no such table or names a file that it must not; a shard is
            missing or damaged, or holds other tensors than the index says.
    """
    return _gather_shards(path, safetensors.read)


def read_outline(path: Path) -> Contents:
    """The same with tensors on `meta`: headers are read, data is not.

    Raises:
        InputError: as `read`.
    """
    return _gather_shards(path, safetensors.read_outline)


def files_of(path: Path) -> list[Path]:
    """The index and its shards, these sorted by name.

    Raises:
        InputError: the index is no such table or names a file that it must not.
    """
    return [path, *_locate_shards(_read_weight_map(path), path).values()]


def hash_all_files(path: Path) -> str:
    """The SHA-256 of the lines `HASH  NAME` that `sha256sum` writes of `files_of`."""
    lines = [f"{hash_file(file)}  {file.name}\n" for file in files_of(path)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _gather_shards(path: Path, read_shard: Callable[[Path], Contents]) -> Contents:
    where = _read_weight_map(path)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for name, shard in _locate_shards(where, path).items():
        contents = read_shard(shard)
        _require_as_indexed(contents.tensors, where, name, path)
        tensors |= contents.tensors
        metadata |= contents.metadata
    return Contents(tensors={key: tensors[key] for key in where}, metadata=metadata)


def _read_weight_map(path: Path) -> dict[str, str]:
    """Which file holds each tensor."""
    require_regular_file(path)
    with open_for_reading(path) as file:
        text = file.read(HEADER_LIMIT + 1)
    try:
        index = parse(text)
    except MalformedJsonError as error:
        raise InputError(f"the index {error}", file=path, hint=COPY_AGAIN) from None
    where = index.get(MAP) if isinstance(index, dict) else None
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise InputError("is not a table from tensor to file", file=path, field=MAP)
    if not where:
        raise InputError("names no tensors", file=path, field=MAP)
    return where


def _locate_shards(where: dict[str, str], path: Path) -> dict[str, Path]:
    """The files that the index names, each of them safe to open."""
    return {name: _locate_shard(name, path) for name in sorted(set(where.values()))}


def _locate_shard(name: str, path: Path) -> Path:
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", name):
        raise _shard_error(name, path, "is a URL, not a file beside the index")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise _shard_error(name, path, "is an absolute path, not a file beside the index")
    folder, shard = path.parent.resolve(), path.parent / name
    try:
        inside, there = shard.resolve().is_relative_to(folder), shard.exists()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a null byte, a name too long
        inside = there = False
    if not inside:
        raise _shard_error(name, path, "does not lie in the folder of the index")
    if shard.is_dir():
        raise _shard_error(name, path, "is a folder")
    if not there:
        raise _shard_error(
            name, path, "is not there", "all shards lie beside the index: copy them all"
        )
    require_regular_file(shard)
    return shard


def _shard_error(
    name: str, path: Path, why: str, hint: str = "copy the shards into one folder"
) -> InputError:
    return InputError(f"the shard {name} {why}", file=path, field=MAP, hint=hint)


def _require_as_indexed(
    held: dict[str, Tensor], where: dict[str, str], name: str, path: Path
) -> None:
    """A shard holds the tensors that the index has in it, and no others."""
    absent = [key for key, shard in where.items() if shard == name and key not in held]
    if absent:
        raise InputError(f"{name} does not hold {format_names(absent)}", file=path, field=MAP)
    for key in held:
        if where.get(key) != name:
            said = f"in {where[key]}" if key in where else "nowhere"
            raise InputError(f"{key} is in {name}, by the index {said}", file=path, field=MAP)
