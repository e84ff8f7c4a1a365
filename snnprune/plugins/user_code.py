"""Functions that users name: `package.module:name` or `path/file.py:name`.

A module is looked for among what is installed and then in the current folder, so that a file there
takes nobody's place. What was found there stays importable, as under `python -m`.
"""

import contextlib
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from snnprune.errors import (
    InputError,
    SnnpruneError,
    convert_torch_error,
    did_you_mean,
    error_class_for,
)
from snnprune.plugins.waiting import limit_user_call

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


def list_places_here(name: str) -> list[Path]:
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
            hint=_find_file_here(reference) or HINT,
        )


def require_own(found: Any, reference: str, *, field: str) -> None:
    """Refuse what `reference` led to if it is a builtin, or was written elsewhere.

    What its file or package made of others' functions counts as its own, as with
    `functools.partial`.

    Raises:
        InputError: it is a builtin, of the standard library, or a function or class of another
            package, other than a class of networks.
    """
    made = _unwrap(found)
    homes = tuple(_iter_home_modules(made))
    if any(_is_within(home, reference) for home in homes):
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


def _find_file_here(reference: str) -> str | None:
    place, _, name = reference.rpartition(":")
    file = next(filter(Path.is_file, list_places_here(place)), None)
    return f"the file of this folder is {file}:{name}" if file else None


def _unwrap(found: Any) -> Any:
    while isinstance(found, functools.partial):
        found = found.func
    return found


def _iter_home_modules(made: Any) -> Iterator[str]:
    """The modules that it says it is of, and whose globals it has: decorators change either."""
    inside = getattr(made, "__globals__", None)
    names = (getattr(made, "__module__", None), inside and inside.get("__name__"))
    yield from (name for name in names if isinstance(name, str))


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in STANDARD


def _is_within(module: str, reference: str) -> bool:
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


F = TypeVar("F", bound=Callable[..., Any])


def is_reference(text: str) -> bool:
    """Whether `text` names somebody's own code rather than something built in."""
    return ":" in text and not text.startswith(":")


def load_object(reference: str, *, field: str) -> Any:
    """The object that `module:name` or `file.py:name` names; this runs the user's file.

    The name may have dots, as of something in a class.

    Raises:
        InputError: there is no such module, file or name in it, or importing it failed.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise InputError(f"{reference!r} is not of the form file.py:function", field=field)
    is_file = place.endswith(".py")
    module = _import_file(Path(place), field) if is_file else _import(reference, field)
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise InputError(
            f"has no {name!r}",
            file=place,
            field=field,
            hint=_format_hidden_hint(reference, module) or did_you_mean(name, public[:40]),
        ) from None


def load_own(reference: str, *, field: str) -> Any:
    """The object to be called that `reference` names: as `load_object`, and it is somebody's own.

    Raises:
        InputError: as `load_object`, or it is a builtin, of the standard library, or a function
            that is only imported there.
    """
    require_not_standard(reference, field=field)
    found = load_object(reference, field=field)
    require_own(found, reference, field=field)
    return found


def load_function(reference: str, *, field: str) -> Callable[..., Any]:
    """The function that `reference` names; the caller guards its calls.

    Raises:
        UsageError: it is not of the form `file.py:function`, and `field` is a flag.
        InputError: likewise, in a file; or there is no such function, or it is not their own.
    """
    if not is_reference(reference):
        raise error_class_for(field)(
            f"{reference!r} is not of the form file.py:function", field=field
        )
    function = load_own(reference, field=field)
    if not callable(function):
        raise InputError(f"{reference} is not a function", field=field)
    return cast(Callable[..., Any], function)


@contextlib.contextmanager
def guard_user_code(what: str, *, field: str) -> Iterator[None]:
    """Turn any failure of the user's own function into an error that says whose it is.

    What it prints goes to stderr: stdout is for the result alone.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), limit_user_call(what, field=field):
            yield
    except SnnpruneError:
        raise
    except (Exception, SystemExit) as error:
        if convert_torch_error(error):
            raise
        raise InputError(
            f"{what} raised {type(error).__name__}: {error}",
            field=field,
            hint="-v shows its traceback",
        ) from error


def guard_function(function: F, reference: str, *, field: str) -> F:
    """`function` as it is if it is ours; if `reference` is somebody's own code, with its failures
    told as theirs.
    """
    if not is_reference(reference):
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with guard_user_code(reference, field=field):
            return function(*args, **kwargs)

    return cast(F, call)


def is_importable(name: str) -> bool:
    """Whether there is a module of that name, for one without dots; nothing is imported."""
    return _can_find(name) or any(map(Path.is_file, list_places_here(name)))


def _import(reference: str, field: str) -> ModuleType:
    name = reference.rpartition(":")[0]
    with guard_user_code(f"importing {name}", field=field):
        # a notebook's own, `__main__`, is there and cannot be found
        if not (name in sys.modules or _can_find(name) or _is_here(name)):
            raise InputError(
                f"no module named {name!r}",
                field=field,
                hint=_format_hidden_hint(reference, sys.modules.get(name.partition(".")[0]))
                or "a file is given as path/file.py:name",
            )
        return importlib.import_module(name)


def _can_find(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None  # this imports the packages around it
    except (ModuleNotFoundError, ValueError):
        return False


def _is_here(name: str) -> bool:
    """Whether it is in the current folder, where Python looks last from then on."""
    here = str(Path.cwd())
    if sys.flags.safe_path or here in sys.path:
        return False
    sys.path.append(here)
    importlib.invalidate_caches()
    if _can_find(name):
        return True
    sys.path.remove(here)
    return False


def _format_hidden_hint(reference: str, taken: ModuleType | None) -> str | None:
    """What to do where `taken`, of somewhere else, hides a file of the current folder."""
    name, _, wanted = reference.rpartition(":")
    file = next(filter(Path.is_file, list_places_here(name)), None)
    origin = getattr(taken, "__file__", None)
    if name.endswith(".py") or file is None or taken is None or origin is None:
        return None
    if Path(origin).resolve() == file.resolve():
        return None
    return f"{taken.__name__} is {origin}; the file of this folder is {file}:{wanted}"


def _import_file(path: Path, field: str) -> ModuleType:
    if not path.is_file():
        raise InputError("no such file", file=path, field=field)
    about = path.stat()
    with guard_user_code(f"importing {path}", field=field):
        return _import_cached(path.absolute(), about.st_mtime_ns, about.st_size)


@functools.cache  # so that a model and a --forward of one file share its classes and variables
def _import_cached(path: Path, changed: int, size: int) -> ModuleType:  # noqa: ARG001  # keys of the cache
    name = module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up by name
    sys.path.insert(0, str(path.parent))  # so that the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
