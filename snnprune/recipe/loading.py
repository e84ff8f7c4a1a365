"""From the name of a recipe to checked settings."""

from collections.abc import Collection, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from snnprune.errors import SnnpruneError, UsageError
from snnprune.recipe.document import Document, parse_bytes
from snnprune.recipe.errors import Problem, RecipeError, Refused
from snnprune.recipe.overrides import Override, flag, overridden, parse_override
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sources import read_source
from snnprune.recipe.wording import problem_of

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
    except Refused as refused:
        raise RecipeError(file, [refused.problem]) from None
    try:
        return Recipe.model_validate(overridden(document.value, settings), context=run)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise _fault(details, file, document, settings, run) from None


def _require_settings(document: Document) -> Document:
    if isinstance(document.value, dict):
        return document
    message = "empty" if document.value is None else "holds no settings, name: value"
    needed = [name for name, field in Recipe.model_fields.items() if field.is_required()]
    hint = f"a recipe has the sections {', '.join(needed)}"
    raise Refused(Problem(line=document.line_of(()), message=message, hint=hint))


def _fault(
    details: Sequence[ErrorDetails],
    file: str,
    document: Document,
    overrides: Sequence[Override],
    run: Collection[str],
) -> SnnpruneError:
    """The error that names whoever is to blame: the command line or the file."""
    for detail in details:
        if any(override.concerns(detail["loc"]) for override in overrides):
            problem = problem_of(detail, 1)
            return UsageError(problem.message, field=flag(detail["loc"]), hint=problem.hint)
    if overrides and _is_valid(document, run):
        problem = problem_of(details[0], 1)
        return UsageError(f"{problem.field}: {problem.message}", field="--set", hint=problem.hint)
    return _recipe_error(details, file, document)


def _recipe_error(details: Sequence[ErrorDetails], file: str, document: Document) -> RecipeError:
    details = sorted(details, key=lambda detail: document.line_of(detail["loc"]))
    problems = [problem_of(d, document.line_of(d["loc"])) for d in details[:MAX_PROBLEMS]]
    return RecipeError(file, problems, omitted=len(details) - len(problems))


def _is_valid(document: Document, run: Collection[str]) -> bool:
    try:
        Recipe.model_validate(document.value, context=run)
    except ValidationError:
        return False
    return True
