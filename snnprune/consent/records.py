"""What this user's runs have run: a note for each run folder, kept away from the folder.

A run folder may be a stranger's, with whatever it says of itself. So the notes lie in the user's
own `$XDG_STATE_HOME/snnprune`, and each tells the SHA-256 of the files that were run.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

from snnprune.callables import files_here
from snnprune.consent.named import Named
from snnprune.errors import OutputError
from snnprune.files import sha256_of, write_json

Record = Mapping[str, str]
"""The SHA-256 of each reference's file."""
AROUND = 2  # folders around one run: of its seeds, and of its grid


def remember(folder: Path, code: Iterable[Named]) -> bool:
    """Note that `code` is run in `folder` with the user's consent; whether that could be done."""
    hashes = {named.reference: sha256_of_code(named.reference) for named in code}
    known = {reference: found for reference, found in hashes.items() if found is not None}
    if not known:
        return not hashes
    try:
        path = _note_of(folder.resolve())
        _make(path.parent)
        write_json(path, {"folder": str(folder.resolve()), "code": known})
    except (OSError, OutputError, RuntimeError):  # RuntimeError: there is no home folder
        return False
    return True


def record_of(folder: Path) -> Record:
    """What was noted for the run in `folder`, or for the seeds or the grid that it is part of."""
    with contextlib.suppress(OSError, RuntimeError):
        here = folder.resolve()
        for place in (here, *here.parents[:AROUND]):
            if found := _read(_note_of(place)):
                return found
    return {}


def sha256_of_code(reference: str) -> str | None:
    """The SHA-256 of the file that a reference names, unimported; None where it is not seen."""
    path = _file_of(reference.rpartition(":")[0])
    if path is None:
        return None
    try:
        return sha256_of(path) if path.is_file() else None
    except OSError:
        return None


def _make(folder: Path) -> None:
    """Make the folder of notes, in which nobody else can leave any."""
    ours = folder.parent
    ours.parent.mkdir(parents=True, exist_ok=True)
    for each in (ours, folder):
        each.mkdir(mode=0o700, exist_ok=True)


def _file_of(place: str) -> Path | None:
    """Where the code lies: among what is installed, and then in the current folder."""
    if place.endswith(".py"):
        return Path(place)
    return _installed(*place.split(".")) or next(filter(Path.is_file, files_here(place)), None)


def _installed(package: str, *inside: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)  # imports nothing for a name without dots
    except ValueError:
        return None
    for name in inside:
        folders = spec and spec.submodule_search_locations
        spec = PathFinder.find_spec(name, list(folders)) if folders else None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _note_of(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()
    return _state_folder() / "runs" / f"{name}.json"


def _state_folder() -> Path:
    """After the XDG base directory specification, by which a relative path does not count."""
    said = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (said if said.is_absolute() else Path.home() / ".local" / "state") / "snnprune"


def _read(path: Path) -> Record:
    try:
        code = json.loads(path.read_text(encoding="utf-8"))["code"]
        return {str(reference): str(found) for reference, found in code.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
