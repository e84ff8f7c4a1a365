"""Text and JSON, whole or not at all, and the hash of a file."""

import hashlib
import json
from pathlib import Path
from typing import Any

from snnprune.files.together import replacing


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str, *, within: Path | None = None) -> None:
    """Write `text` as UTF-8, whole or not at all; `within` is as for `replacing`.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path, within=within) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
