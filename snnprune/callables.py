"""What of somebody's code may be called: their functions and classes, and nothing of Python's own.

With `os:system` for a model a recipe would be a shell script, and so it would be with a function of
somebody's file that is only imported there. A class of a network may come from anywhere.
"""

import functools
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snnprune.errors import InputError

STANDARD = sys.stdlib_module_names | frozenset(sys.builtin_module_names)
BUILTIN = (
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
)
DEFINED = (types.FunctionType, types.MethodType, type)
HINT = "name a function that is written in a file of yours: file.py:function"


def module_name(path: Path) -> str:
    """What the module of a user's file is called."""
    return f"snnprune_user_{path.stem}"


def files_here(name: str) -> list[Path]:
    """Where the current folder would have a module of that name."""
    place = Path(*name.split("."))
    return [place.with_suffix(".py"), place / "__init__.py"] if place.name else []


def require_not_standard(reference: str, *, field: str, file: object = None) -> None:
    """Refuse a name of Python's standard library; nothing is imported.

    Raises:
        InputError: it is one. `file` is where it stands, where that is no command line.
    """
    place = reference.rpartition(":")[0]
    if not place.endswith(".py") and _is_standard(place):
        raise InputError(
            f"{reference} is of Python's standard library, which is not called",
            file=file,
            field=field,
            hint=_of_this_folder(reference) or HINT,
        )


def require_own(found: Any, reference: str, *, field: str) -> None:
    """Refuse what `reference` led to if it is a builtin, or was written elsewhere.

    What its file or package made of others' functions counts as its own, as with
    `functools.partial`.

    Raises:
        InputError: it is a builtin, of the standard library, or a function or class of another
            package, other than a class of networks.
    """
    made = _innermost(found)
    homes = tuple(_homes(made))
    if any(_within(home, reference) for home in homes):
        return
    if isinstance(made, BUILTIN) or any(map(_is_standard, homes)):
        raise InputError(
            f"{reference} is a builtin or of Python's standard library, which is not called",
            field=field,
            hint=HINT,
        )
    if found is made and isinstance(made, DEFINED) and not is_module_class(made):
        raise InputError(
            f"{reference} is a function of {homes[0]}, only imported there", field=field, hint=HINT
        )


def is_module_class(found: Any) -> bool:
    """Whether it is a subclass of `torch.nn.Module`; without torch nothing is."""
    networks = sys.modules.get("torch.nn")
    return isinstance(found, type) and networks is not None and issubclass(found, networks.Module)


def _of_this_folder(reference: str) -> str | None:
    place, _, name = reference.rpartition(":")
    file = next(filter(Path.is_file, files_here(place)), None)
    return f"the file of this folder is {file}:{name}" if file else None


def _innermost(found: Any) -> Any:
    while isinstance(found, functools.partial):
        found = found.func
    return found


def _homes(made: Any) -> Iterator[str]:
    """The modules that it says it is of, and whose globals it has: decorators change either."""
    inside = getattr(made, "__globals__", None)
    names = (getattr(made, "__module__", None), inside and inside.get("__name__"))
    yield from (name for name in names if isinstance(name, str))


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in STANDARD


def _within(module: str, reference: str) -> bool:
    """Whether a module is the file of `reference`, a file beside it, or of the same package."""
    place = reference.rpartition(":")[0]
    if not place.endswith(".py"):
        return module.partition(".")[0] == place.partition(".")[0]
    path = Path(place)
    if module == module_name(path):
        return True
    origin = getattr(sys.modules.get(module), "__file__", None)
    beside = origin is not None and Path(origin).resolve().is_relative_to(path.resolve().parent)
    return beside and not _is_standard(module)
