"""Lists of hashes, as `sha256sum` writes and reads them."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from snnprune.errors import InputError, OutputError, UsageError
from snnprune.files.folders import as_output_error
from snnprune.files.readable import open_for_reading, require_regular_file
from snnprune.files.together import replace_file


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


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str, *, within: Path | None = None) -> None:
    """Write `text` as UTF-8, whole or not at all; `within` is as for `replace_file`.

    Raises:
        OutputError: it cannot be written.
    """
    with replace_file(path, within=within) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, format_json(value))


def format_json(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
MOST = 2**24  # bytes: some 100,000 files
ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


def compute_sums(folder: Path, names: Iterable[str]) -> str:
    """A line for each file of `folder`."""
    return "".join(_format_line(hash_file(folder / name), name) for name in names)


def read_sums(path: Path) -> Mapping[Path, set[str]]:
    """The hashes that a list has of each file, whose names it tells from its own folder.

    Raises:
        InputError: it cannot be read, or is no such list.
    """
    if require_regular_file(path) > MOST:
        raise _no_list_error(path)
    with open_for_reading(path) as file:
        lines = file.read().decode("utf-8", "surrogateescape").split("\n")
    found: dict[Path, set[str]] = {}
    for line in filter(None, (line.rstrip("\r") for line in lines)):
        match = LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise _no_list_error(path)
        name = _unescape_name(match[3]) if match[1] else match[3]
        found.setdefault((path.parent / name).resolve(), set()).add(match[2].lower())
    return found


def _format_line(digest: str, name: str) -> str:
    escaped = name
    for written, meant in ESCAPES.items():
        escaped = escaped.replace(meant, written)
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _unescape_name(name: str) -> str:
    return re.sub(r"\\[\\nr]", lambda match: ESCAPES[match[0]], name)


def _no_list_error(path: Path) -> InputError:
    return InputError("is no list of hashes", file=path, hint="sha256sum writes one")
