"""Whether a checkpoint is, to the bit, what its user knows the hash of."""

import re
from collections.abc import Mapping
from pathlib import Path

from snnprune.checkpoint.read import files_of, hash_checkpoint, sniff_container
from snnprune.errors import InputError
from snnprune.files.readable import COPY_AGAIN, require_readable
from snnprune.files.writing import hash_file, read_sums

FLAG = "--sha256"
HASH = re.compile("[0-9a-fA-F]{64}")


def require_sha256(path: Path, given: str) -> None:
    """Refuse a file that is not as `given`: its SHA-256, or the file of a list that has it.

    Nothing is made of what is in the file before; of an index, its shards are looked at too.

    Raises:
        InputError: it is another file or a damaged one, or the list cannot be read or lacks it.
    """
    require_readable(path)
    if HASH.fullmatch(given):
        _require_same(path, hash_checkpoint(path, sniff_container(path)), {given.lower()})
        return
    listed = read_sums(Path(given))
    _require_listed(path, listed, given)  # before it is asked which other files it names
    for shard in files_of(path)[1:]:
        _require_listed(shard, listed, given)


def _require_listed(path: Path, listed: Mapping[Path, set[str]], given: str) -> None:
    if (known := listed.get(path.resolve())) is None:
        raise InputError(f"is not listed in {given}", file=path, field=FLAG, hint="name its list")
    _require_same(path, hash_file(path), known)


def _require_same(path: Path, found: str, known: set[str]) -> None:
    if known != {found}:
        raise InputError(
            f"damaged or another file: its SHA-256 is {found}, not {', '.join(sorted(known))}",
            file=path,
            field=FLAG,
            hint=COPY_AGAIN,
        )
