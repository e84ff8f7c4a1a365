"""The recipe of `prune`, a file of its own with one section."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from snnprune.recipe.document import Document, parse_bytes
from snnprune.recipe.errors import Problem, RecipeError, RefusedTextError, make_problem
from snnprune.recipe.loading import read_source
from snnprune.recipe.section import Count, Name, Section, Share

MAX_PROBLEMS = 20


class PruneSection(Section):
    """One-shot pruning of a trained checkpoint; flags of the command come before it."""

    criterion: Name | None = Field(
        default=None, description="what weights are ranked by; null: the best known"
    )
    allocation: Name | None = Field(
        default=None, description="how the budget is shared; null: the one that fits"
    )
    repair: Name | None = Field(
        default=None, description="what is mended afterwards, as obs or obs+tune; null: what fits"
    )
    steps: Count | None = Field(default=None, description="steps on the way; null: one")
    structure: Name | None = Field(default=None, description="null: unstructured")
    sparsity: Share | None = Field(
        default=None, description="share of the weights pruned in layers that are not named"
    )
    layers: Annotated[dict[Name, Share], Field()] = Field(
        default={}, description="sparsity of each layer that has one of its own, by weight key"
    )


class PruneRecipe(Section):
    """The whole file."""

    prune: PruneSection = Field(description="the settings of the command")


def load_prune_section(path: Path) -> PruneSection:
    """Read and check the recipe of `prune`.

    Raises:
        InputError: there is no such file, or it cannot be read.
        RecipeError: what it says is wrong.
    """
    file, data = read_source(str(path))
    try:
        document = parse_bytes(data)
        if not isinstance(document.value, dict):
            raise RefusedTextError(
                Problem(line=1, message="holds no settings", hint="begin with prune:")
            )
    except RefusedTextError as refused:
        raise RecipeError(file, [refused.problem]) from None
    try:
        return PruneRecipe.model_validate(document.value).prune
    except ValidationError as error:
        raise _make_error(error, file, document) from None


def _make_error(error: ValidationError, file: str, document: Document) -> RecipeError:
    details = error.errors(include_url=False)
    details.sort(key=lambda detail: document.line_of(detail["loc"]))
    problems = [
        make_problem(detail, document.line_of(detail["loc"]), root=PruneRecipe)
        for detail in details[:MAX_PROBLEMS]
    ]
    return RecipeError(file, problems, omitted=len(details) - len(problems))
