"""From what the command line says of a recipe to one that may be run: checked, without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from snnprune.data import require_data
from snnprune.errors import InputError, SnnpruneError, did_you_mean
from snnprune.jobs.consent import (
    NamedCode,
    find_code,
    find_typed_code,
    read_record,
    remember,
    require_consent,
)
from snnprune.jobs.train.options import LoopOptions, RecipeOptions
from snnprune.models import MODELS
from snnprune.plugins.names import require_forward
from snnprune.plugins.user_code import is_reference
from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.criteria import CRITERIA
from snnprune.recipe.errors import make_problem
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import Count, Section
from snnprune.runtime import read_process_rank
from snnprune.training import LOSSES, METHODS


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
        config=asked.used,
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


def require_names(recipe: Recipe) -> None:
    """Refuse a recipe that names what does not exist; nothing is run or imported of the user's.

    Raises:
        InputError: a model, data set, way to run it, loss, method, criterion or allocation is not
            known, or a built-in model takes no such argument.
    """
    MODELS.require(recipe.model.name, field="model.name")
    require_data(recipe.data.name, field="data.name")
    for name in recipe.grid.models if recipe.grid else ():
        MODELS.require(name, field="grid.models")
    for name in recipe.grid.data if recipe.grid else ():
        require_data(name, field="grid.data")
    for name in (recipe.grid and recipe.grid.models) or (recipe.model.name,):
        require_arguments(name, recipe.model.args)
    for name in ("test", "evaluation"):
        if (other := getattr(recipe.data, name)) is not None:
            require_data(other, field=f"data.{name}")
    require_forward(recipe.model.forward, field="model.forward")
    LOSSES.require(recipe.training.loss, field="training.loss")
    if recipe.gradual is not None:
        CRITERIA.require(recipe.gradual.criterion, field="gradual.criterion")
    for method in recipe.imp.methods if recipe.imp else ():
        _require_method(method)
    for name, section in (("imp", recipe.imp), ("gradual", recipe.gradual)):
        if section is not None and section.allocation is not None:
            ALLOCATIONS.require(section.allocation, field=f"{name}.allocation")


def _require_method(name: str) -> None:
    known = (*METHODS, *CRITERIA.names())
    if name not in known and not is_reference(name):
        raise InputError(
            f"unknown method {name!r}", field="imp.methods", hint=did_you_mean(name, known)
        )


def require_arguments(model: str, args: Mapping[str, Any]) -> None:
    """Refuse arguments that a built-in model does not take; of others nothing is known.

    Raises:
        InputError: there is no such argument, or its value is outside its range.
    """
    known = ARGUMENTS.get(model)
    if known is None:
        return
    for name in args:
        if name not in known.model_fields:
            raise InputError(
                f"{model} has no argument {name!r}",
                field="model.args",
                hint=did_you_mean(name, known.model_fields),
            )
    try:
        known.model_validate(dict(args))
    except ValidationError as error:
        found = make_problem(error.errors()[0], 0, root=known)
        field = f"model.args.{found.field}"
        raise InputError(found.message, field=field, hint=found.hint) from None


@contextlib.contextmanager
def name_file_in_errors(file: str) -> Iterator[None]:
    """Errors in the block are of this recipe where they name no other file."""
    try:
        yield
    except SnnpruneError as error:
        error.file = error.file or file
        raise


def require_one_pair(recipe: Recipe, command: str) -> None:
    """Refuse a grid where one network is at hand.

    Raises:
        InputError: the recipe has one.
    """
    if recipe.grid is not None:
        raise InputError(
            f"{command} is for one network on one data set",
            field="grid",
            hint="--set grid=null takes those of model and data",
        )


class NeuronArguments(Section):
    """Those of `snnprune.models.lif.Dynamics`."""

    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    threshold: float = 1.0
    reset: Literal["hard", "soft"] = "hard"
    v_reset: float = 0.0
    v_rest: float = 0.0
    decay_input: bool = False
    surrogate: Literal["atan", "triangle", "sigmoid"] = "atan"
    detach_reset: bool = True


class ModelArguments(Section):
    """Those of every built-in model that takes pictures."""

    in_channels: Count = 1
    size: Count = 1
    classes: Count = 1
    time_steps: Count = 1
    neuron: NeuronArguments | None = None


class ConvSnnArguments(ModelArguments):
    """Those of `conv-snn`."""

    width: Count = 1
    depth: Count = 1


class RecurrentSnnArguments(Section):
    """Those of `recurrent-snn`, whose samples are no pictures and have time steps of their own."""

    in_channels: Count = 1
    classes: Count = 1
    width: Count = 1
    depth: Count = 1
    neuron: NeuronArguments | None = None


ARGUMENTS: Mapping[str, type[Section]] = {
    "conv-snn": ConvSnnArguments,
    "res-snn-19": ModelArguments,
    "res-snn-19-light": ModelArguments,
    "snn-vgg-16": ModelArguments,
    "6conv2fc": ModelArguments,
    "recurrent-snn": RecurrentSnnArguments,
}
