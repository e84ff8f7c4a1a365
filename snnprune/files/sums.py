"""Lists of hashes, as `sha256sum` writes and reads them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from snnprune.errors import InputError
from snnprune.files.writing import sha256_of
from snnprune.readable import reading, require_regular_file

LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
MOST = 2**24  # bytes: some 100,000 files
ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


def sums_of(folder: Path, names: Iterable[str]) -> str:
    """A line for each file of `folder`."""
    return "".join(_line(sha256_of(folder / name), name) for name in names)


def sums_in(path: Path) -> Mapping[Path, set[str]]:
    """The hashes that a list has of each file, whose names it tells from its own folder.

    Raises:
        InputError: it cannot be read, or is no such list.
    """
    if require_regular_file(path) > MOST:
        raise _no_list(path)
    with reading(path) as file:
        lines = file.read().decode("utf-8", "surrogateescape").split("\n")
    found: dict[Path, set[str]] = {}
    for line in filter(None, (line.rstrip("\r") for line in lines)):
        match = LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise _no_list(path)
        name = _unescaped(match[3]) if match[1] else match[3]
        found.setdefault((path.parent / name).resolve(), set()).add(match[2].lower())
    return found


def _line(digest: str, name: str) -> str:
    escaped = name
    for written, meant in ESCAPES.items():
        escaped = escaped.replace(meant, written)
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _unescaped(name: str) -> str:
    return re.sub(r"\\[\\nr]", lambda match: ESCAPES[match[0]], name)


def _no_list(path: Path) -> InputError:
    return InputError("is no list of hashes", file=path, hint="sha256sum writes one")
