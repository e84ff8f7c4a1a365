"""From what the command line says of a recipe to one that may be run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from snnprune.errors import InputError
from snnprune.jobs.consent import (
    NamedCode,
    find_code,
    find_typed_code,
    read_record,
    remember,
    require_consent,
)
from snnprune.jobs.train.options import RecipeOptions
from snnprune.jobs.train.recipes import name_file_in_errors, require_names
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe
from snnprune.runtime import read_process_rank

if TYPE_CHECKING:
    from snnprune.jobs.train.looping import LoopOptions


def read_loop(asked: RecipeOptions) -> tuple[LoopOptions, tuple[NamedCode, ...]]:
    """What is to be run, and the code that its recipe names, which the user has agreed to.

    Raises:
        UsageError: flags do not go together.
        InputError: the recipe cannot be used, there is no run to resume, or code that the user has
            not agreed to is named.
    """
    recipe = _load_recipe(asked)
    folder = _choose_folder(asked, recipe)
    code = _require_consent(asked, recipe, folder)

    from snnprune.jobs.train.looping import LoopOptions  # imports torch

    options = LoopOptions(
        command=asked.command,
        recipe=recipe,
        out=folder,
        device=asked.device,
        data_root=asked.data_root,
        download=asked.download,
        force=asked.force,
        resume=asked.resume,
        allowed=tuple(asked.allow_change or ()),
    )
    return options, code


def note_code(folder: Path, code: tuple[NamedCode, ...]) -> bool:
    """Note what the run runs, so that it can be continued without asking; whether that worked."""
    return not read_process_rank().first or remember(folder, code)


def _load_recipe(asked: RecipeOptions) -> Recipe:
    """The recipe, with what the flags change in it."""
    run = ("gradual",) if asked.command == "train" else (asked.command,)
    file, overrides = _find_recipe(asked), asked.list_overrides()
    recipe = load_recipe(file, overrides, run=run)
    if not overrides:  # which are not the file's
        with name_file_in_errors(file):
            require_names(recipe)
    return recipe


def _find_recipe(asked: RecipeOptions) -> str:
    """The recipe that is named, or that of the run to resume."""
    if asked.recipe:
        return asked.recipe
    path = Path(asked.out or ".") / "recipe.yaml"
    if not path.is_file():
        raise InputError("holds no run to resume", file=asked.out, hint="name one that was started")
    return str(path)


def _choose_folder(asked: RecipeOptions, recipe: Recipe) -> Path:
    """Where the run goes: as asked, as the recipe says, or in runs/."""
    if asked.out is not None:
        return asked.out
    if recipe.output.folder is not None:
        return Path(recipe.output.folder)
    name = Path(asked.recipe or "").stem
    return Path("runs") / (name if asked.command == "train" else f"{name}-{asked.command}")


def _require_consent(asked: RecipeOptions, recipe: Recipe, folder: Path) -> tuple[NamedCode, ...]:
    """The code that the recipe names; what the user has not agreed to is refused."""
    code = find_code(recipe)
    require_consent(
        code,
        file=_find_recipe(asked),
        typed=find_typed_code(asked.list_overrides(), code),
        trusted=asked.trust_recipe,
        record=read_record(folder) if asked.resume else {},
    )
    return code
