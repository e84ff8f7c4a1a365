"""From the name of a recipe to checked settings."""

import copy
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from snnprune.errors import InputError, SnnpruneError, UsageError
from snnprune.plugins.names import parse_typed
from snnprune.recipe.errors import (
    Problem,
    RecipeError,
    RefusedTextError,
    format_path,
    make_problem,
    parse_plain_value,
)
from snnprune.recipe.schema import PruneRecipe, PruneSection, Recipe
from snnprune.recipe.yaml_text import Document, Scalar, parse_bytes, parse_text

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


MODEL_ARG, ARGUMENTS = "--model-arg", ("model", "args")


@dataclass(frozen=True, kw_only=True)
class Override:
    """One `--set`."""

    path: tuple[str, ...]
    value: Any

    def concerns(self, path: Sequence[str | int]) -> bool:
        """Whether `path` lies in what this sets, or is a section around it."""
        common = min(len(path), len(self.path))
        return tuple(path[:common]) == self.path[:common]


def parse_settings(texts: Iterable[str], *, option: str) -> dict[str, Any]:
    """The tree that `a.b=value` texts spell, given as the repeatable flag `option`.

    Raises:
        UsageError: as `parse_override`.
    """
    return apply_overrides({}, [parse_override(text, option=option) for text in texts])


def parse_override(text: str, *, option: str = "--set") -> Override:
    """Read `a.b=value`, the value as YAML; an argument of a model may name an object.

    Raises:
        UsageError: it has no name or no `=`, or its value is not YAML.
    """
    name, equals, value = text.partition("=")
    path = tuple(name.split("."))
    if not equals or not all(path):
        raise UsageError(f"{text!r} is not of the form a.b=value", field=option)
    try:
        plain = _parse_value if option == MODEL_ARG or path[:2] == ARGUMENTS else parse_plain_value
        return Override(path=path, value=parse_text(value, plain).value)
    except RefusedTextError as refused:
        problem = refused.problem
        raise UsageError(
            problem.message, field=format_flag(path, option), hint=problem.hint
        ) from None


def apply_overrides(tree: dict[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """A copy of `tree` with each override in its place, sections made where they are missing.

    Raises:
        UsageError: an override goes through a setting that is no section.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        _assign(tree, override)
    return tree


def format_flag(path: Sequence[str | int], option: str = "--set") -> str:
    """What errors call the override of `path`."""
    return f"{option} {format_path(path)}"


def _parse_value(text: str) -> Scalar:
    """What unquoted text means where it may name an object."""
    value = parse_plain_value(text)
    return parse_typed(value) if isinstance(value, str) else value


def _assign(section: dict[str, Any], override: Override) -> None:
    *around, name = override.path
    for depth, outer in enumerate(around, start=1):
        if section.get(outer) is None:
            section[outer] = {}
        section = section[outer]
        if not isinstance(section, dict):
            raise UsageError(
                f"{format_path(around[:depth])} is a value, not a section",
                field=format_flag(override.path),
            )
    section[name] = override.value


MAX_PROBLEMS = 20


def load_recipe(source: str, overrides: Sequence[str] = (), *, run: Collection[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        source: the name of a built-in recipe, with or without `.yaml`, or a path.
        overrides: settings laid over the file's before the check, as `training.epochs=3`.
        run: the sections of methods that are to be run, which have to fit the training.

    Raises:
        UsageError: an override is not of this form, names no setting or has a wrong value.
        InputError: there is no such recipe, or it cannot be read.
        RecipeError: what it says is wrong.
    """
    settings = [parse_override(text) for text in overrides]
    file, data = read_source(source)
    try:
        document = _require_settings(parse_bytes(data))
    except RefusedTextError as refused:
        raise RecipeError(file, [refused.problem]) from None
    try:
        return Recipe.model_validate(apply_overrides(document.value, settings), context=run)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise _make_error(details, file, document, settings, run) from None


def load_prune_section(path: Path) -> PruneSection:
    """Read and check the recipe of `prune`.

    Raises:
        InputError: there is no such file, or it cannot be read.
        RecipeError: what it says is wrong.
    """
    file, data = read_source(str(path))
    return validate_settings(file, data, PruneRecipe, begin_with="prune:").prune


Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(path: Path) -> bytes:
    """The bytes of a file of settings.

    Raises:
        InputError: it cannot be read, is no file, or larger than any such file.
    """
    return _read_file(path)


def validate_settings(file: str, data: bytes, root: type[Settings], *, begin_with: str) -> Settings:
    """The settings of class `root` that YAML text holds; errors call its file `file`.

    Raises:
        RecipeError: what it says is wrong.
    """
    try:
        document = parse_bytes(data)
        if not isinstance(document.value, dict):
            raise RefusedTextError(
                Problem(line=1, message="holds no settings", hint=f"begin with {begin_with}")
            )
    except RefusedTextError as refused:
        raise RecipeError(file, [refused.problem]) from None
    try:
        return root.model_validate(document.value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise _make_recipe_error(details, file, document, root=root) from None


def _require_settings(document: Document) -> Document:
    if isinstance(document.value, dict):
        return document
    message = "empty" if document.value is None else "holds no settings, name: value"
    needed = [name for name, field in Recipe.model_fields.items() if field.is_required()]
    hint = f"a recipe has the sections {', '.join(needed)}"
    raise RefusedTextError(Problem(line=document.line_of(()), message=message, hint=hint))


def _make_error(
    details: Sequence[ErrorDetails],
    file: str,
    document: Document,
    overrides: Sequence[Override],
    run: Collection[str],
) -> SnnpruneError:
    """The error that names whoever is to blame: the command line or the file."""
    for detail in details:
        if any(override.concerns(detail["loc"]) for override in overrides):
            problem = make_problem(detail, 1)
            return UsageError(problem.message, field=format_flag(detail["loc"]), hint=problem.hint)
    if overrides and _is_valid(document, run):
        problem = make_problem(details[0], 1)
        return UsageError(f"{problem.field}: {problem.message}", field="--set", hint=problem.hint)
    return _make_recipe_error(details, file, document)


def _make_recipe_error(
    details: Sequence[ErrorDetails],
    file: str,
    document: Document,
    root: type[BaseModel] = Recipe,
) -> RecipeError:
    details = sorted(details, key=lambda detail: document.line_of(detail["loc"]))
    problems = [
        make_problem(detail, document.line_of(detail["loc"]), root=root)
        for detail in details[:MAX_PROBLEMS]
    ]
    return RecipeError(file, problems, omitted=len(details) - len(problems))


def _is_valid(document: Document, run: Collection[str]) -> bool:
    try:
        Recipe.model_validate(document.value, context=run)
    except ValidationError:
        return False
    return True
