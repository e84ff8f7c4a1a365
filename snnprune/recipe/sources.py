"""Where a recipe comes from: a built-in name or a file."""

import os
import stat
from pathlib import Path

from snnprune.errors import InputError

MAX_BYTES = 2**18  # a recipe has hundreds; the YAML reader takes a second for a million


def builtin_recipes() -> dict[str, Path]:
    """The file of each built-in recipe, by name."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"  # a wheel; an editable checkout has them beside the package
    folder = inside if inside.is_dir() else package.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda p: p.stem)}


def read_source(source: str) -> tuple[str, bytes]:
    """What errors call the recipe `source`, and its bytes.

    A name without `.yaml` is the built-in first; with it, a file of that name comes first, so that
    an edited copy is what is used.

    Raises:
        InputError: there is no such recipe, or the file cannot be read or is no file.
    """
    builtin = builtin_recipes()
    name = source.removesuffix(".yaml")
    if source in builtin or (name in builtin and not os.path.lexists(source)):
        return f"{name}.yaml", builtin[name].read_bytes()
    if not os.path.lexists(source):
        raise InputError("no such recipe", file=source, hint=f"built-ins are {', '.join(builtin)}")
    return source, _read_file(Path(source))


def _read_file(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError("is a folder", file=path, hint="name a recipe in it")
        if not stat.S_ISREG(mode):  # opening a FIFO would wait for its writer
            raise InputError("is not a regular file", file=path)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from error
    if len(data) > MAX_BYTES:
        raise InputError(f"more than {MAX_BYTES // 1024} KiB, too large for a recipe", file=path)
    return data
