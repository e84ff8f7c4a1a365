"""The settings that a recipe may hold, their types, limits and defaults."""

import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from snnprune.plugins.names import decode_references
from snnprune.recipe.sections import (
    Bits,
    Count,
    FinetuneSection,
    GradualSection,
    ImpSection,
    Name,
    Names,
    NotNegative,
    OutputSection,
    SearchSection,
    Section,
    Seed,
    Share,
    TrainingSection,
    make_fault,
    refuse,
    require_plain,
)


class GridSection(Section):
    """Every network on every data set: a run for each pair, in a folder of its own."""

    models: Names = Field(
        description="networks, all with model.args; model.name has to be one of them"
    )
    data: Names = Field(
        description="data sets, all with the settings of data; data.name has to be one of them"
    )

    @field_validator("models", "data")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise PydanticCustomError("names", "each should be named once")
        if len(set(map(_shorten_name, names))) < len(names):
            raise PydanticCustomError("names", "two would have a folder of the same name")
        return names


def expand_grid(recipe: "Recipe") -> Mapping[str, "Recipe"]:
    """The recipe of each run of the grid, by the name of its folder; none without a grid."""
    if recipe.grid is None:
        return {}
    return {
        f"{_shorten_name(model)}-{_shorten_name(data)}": recipe.model_copy(
            update={
                "grid": None,
                "model": recipe.model.model_copy(update={"name": model}),
                "data": recipe.data.model_copy(update={"name": data}),
            }
        )
        for model in recipe.grid.models
        for data in recipe.grid.data
    }


def find_grid_faults(
    grid: GridSection, model: "ModelSection | None", data: "DataSection | None"
) -> Iterator[InitErrorDetails]:
    """What does not fit the sections beside the grid; None where these are faulty themselves."""
    for key, section in (("models", model), ("data", data)):
        names: tuple[str, ...] = getattr(grid, key)
        if section is not None and section.name not in names:
            where = "model" if key == "models" else "data"
            yield make_fault(
                f"{where}.name, {section.name}, should be one of {', '.join(names)}", [key]
            )
    for key in ("test", "evaluation"):
        if data is not None and len(grid.data) > 1 and getattr(data, key) is not None:
            yield make_fault(
                f"data.{key} names samples of one data set, and here are several", ["data"]
            )


def _shorten_name(name: str) -> str:
    """What stands in a folder's name for a model or data set, which may be a path."""
    return re.sub(r"[^\w.+]+", "-", PurePath(name).name).strip("-.")


Arguments = Annotated[
    dict[str, Any], AfterValidator(require_plain), AfterValidator(decode_references)
]
Method = TypeVar("Method", ImpSection, GradualSection, SearchSection)


class ModelSection(Section):
    """Which network is built."""

    name: Name = Field(description="a built-in model, package.module:function or file.py:function")
    args: Arguments = Field(
        default={},
        description="arguments of the model's builder; channels, size and classes of the data "
        "are passed where absent; --set model.args.NAME=module:name passes an object, a file none",
    )
    forward: Name | None = Field(
        default=None,
        description="whole, repeat:T, steps, or file.py:function from module and batch to output; "
        "null: whole",
    )
    readout: Name = Field(
        default="auto",
        description="auto, sum, mean, last or file.py:function to scores",
    )


class DataSection(Section):
    """What it is trained on."""

    name: Name = Field(
        description="a built-in data set, imagefolder:DIR, tensors:FILE, frames:DIR or "
        "file.py:function"
    )
    validation: Share = Field(
        default=0.1,
        description="share of the training samples split off, by seed, in [0, 1); 0: all are "
        "trained on, nothing is chosen, and the weights of the last epoch are what is kept",
    )
    test: Name | None = Field(
        default=None, description="a set whose samples are the test samples; null: those of name"
    )
    evaluation: Name | None = Field(
        default=None,
        description="a set whose samples are the validation samples; null: split off, or of name",
    )
    crop: NotNegative = Field(
        default=0, description="random crop after padding each side, in pixels"
    )
    flip: bool = Field(default=False, description="flip half of the images left to right")
    cutout: NotNegative = Field(
        default=0, description="side of a black square at a random place of each image, in pixels"
    )


class Recipe(Section):
    """A training run, or several that differ by their seed."""

    model: ModelSection = Field(description="the section that names the network")
    data: DataSection = Field(description="the section that names the samples")
    training: TrainingSection = Field(description="the section of epochs and learning rate")
    gradual: GradualSection | None = Field(
        default=None, description="the section of pruning while training"
    )
    imp: ImpSection | None = Field(
        default=None, description="the section of iterative pruning with rewinding"
    )
    search: SearchSection | None = Field(
        default=None, description="the section of sub-networks without weight training"
    )
    finetune: FinetuneSection | None = Field(
        default=None, description="the section of training on after pruning"
    )
    grid: GridSection | None = Field(
        default=None, description="the section of several networks and data sets"
    )
    output: OutputSection = Field(
        default=OutputSection(), description="the section of where a run goes"
    )
    seed: Seed = Field(default=0, description="what every random draw is derived from")
    seeds: Annotated[tuple[Seed, ...], Field(strict=False)] = Field(
        default=(), description="seeds of several runs, one folder each; instead of seed"
    )

    @field_validator("seeds")
    @classmethod
    def _seeds_once_each(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise PydanticCustomError("seeds", "each seed should be there once")
        return seeds

    @field_validator("grid")
    @classmethod
    def _around_the_sections(
        cls, grid: GridSection | None, info: ValidationInfo
    ) -> GridSection | None:
        if grid is not None:
            refuse(
                "grid", list(find_grid_faults(grid, info.data.get("model"), info.data.get("data")))
            )
        return grid

    @field_validator("gradual")
    @classmethod
    def _pruned_within_training(
        cls, gradual: GradualSection | None, info: ValidationInfo
    ) -> GradualSection | None:
        return _check_section(gradual, info, _find_gradual_faults)

    @field_validator("imp")
    @classmethod
    def _rewound_within_training(
        cls, imp: ImpSection | None, info: ValidationInfo
    ) -> ImpSection | None:
        return _check_section(imp, info, _find_imp_faults)

    @field_validator("search")
    @classmethod
    def _warm_within_search(
        cls, search: SearchSection | None, info: ValidationInfo
    ) -> SearchSection | None:
        return _check_section(search, info, _find_search_faults)


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
    bits: Bits | None = Field(
        default=None, description="of the grid that kept weights are put on; null: they are floats"
    )
    sparsity: Share | None = Field(
        default=None, description="share of the weights pruned in layers that are not named"
    )
    layers: Annotated[dict[Name, Share], Field()] = Field(
        default={}, description="sparsity of each layer that has one of its own, by weight key"
    )


class PruneRecipe(Section):
    """The recipe of `prune`, a file of its own with one section."""

    prune: PruneSection = Field(description="the settings of the command")


def find_section(path: Sequence[str | int], root: type[BaseModel] | None = None) -> type[BaseModel]:
    """The class of the section at `path`, such as ["training"], of `root` or a recipe."""
    section: type[BaseModel] = root or Recipe
    for name in path:
        if isinstance(name, int):  # an item of a list of sections
            continue
        annotation = section.model_fields[name].annotation
        # a section that may be absent, or several
        if isinstance(annotation, types.UnionType) or get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        assert isinstance(annotation, type)
        section = annotation
    return section


def _check_section(
    section: Method | None,
    info: ValidationInfo,
    faults: Callable[[Method, TrainingSection], Iterator[InitErrorDetails]],
) -> Method | None:
    """A method's section, held against the training that it belongs to if it is to be run.

    Otherwise `train` with few epochs would be refused for what only `imp` does.
    """
    training, run = info.data.get("training"), info.context or ()
    if section is not None and isinstance(training, TrainingSection) and info.field_name in run:
        refuse(str(info.field_name), list(faults(section, training)))
    return section


def _find_gradual_faults(
    gradual: GradualSection, training: TrainingSection
) -> Iterator[InitErrorDetails]:
    epochs, end = training.epochs, gradual.end_epoch or training.epochs
    if end > epochs:
        yield make_fault(
            f"{end} should be at most training.epochs, which is {epochs}", ["end_epoch"]
        )
    if gradual.start_epoch >= end:
        yield make_fault(
            f"{gradual.start_epoch} should be less than the end, {end}", ["start_epoch"]
        )


def _find_imp_faults(imp: ImpSection, training: TrainingSection) -> Iterator[InitErrorDetails]:
    epochs = training.epochs
    if imp.rewind_epoch >= epochs:
        message = f"{imp.rewind_epoch} should be less than training.epochs, which is {epochs}"
        yield make_fault(message, ["rewind_epoch"])
        return
    left = epochs - imp.rewind_epoch
    length = imp.round_epochs or left
    if imp.rewind == "learning-rate" and length > left:
        what = f"{length} are more than the {left} of the schedule after epoch {imp.rewind_epoch}"
        yield make_fault(what, ["round_epochs"])
    if imp.rewind == "weights" and training.warmup_epochs >= length:
        what = f"a round of {length} epochs has no room for {training.warmup_epochs} of warm-up"
        yield make_fault(what, ["round_epochs"])


def _find_search_faults(
    search: SearchSection, training: TrainingSection
) -> Iterator[InitErrorDetails]:
    if search.epochs is not None and training.warmup_epochs >= search.epochs:
        what = f"{search.epochs} leave no room for {training.warmup_epochs} of warm-up"
        yield make_fault(what, ["epochs"])
