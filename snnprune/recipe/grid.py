"""Several networks on several data sets in one recipe."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from snnprune.recipe.section import Name, Section, fault

if TYPE_CHECKING:
    from snnprune.recipe.schema import DataSection, ModelSection, Recipe

Names = Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]


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
        if len(set(map(_word, names))) < len(names):
            raise PydanticCustomError("names", "two would have a folder of the same name")
        return names


def runs_of(recipe: "Recipe") -> Mapping[str, "Recipe"]:
    """The recipe of each run of the grid, by the name of its folder; none without a grid."""
    if recipe.grid is None:
        return {}
    return {
        f"{_word(model)}-{_word(data)}": recipe.model_copy(
            update={
                "grid": None,
                "model": recipe.model.model_copy(update={"name": model}),
                "data": recipe.data.model_copy(update={"name": data}),
            }
        )
        for model in recipe.grid.models
        for data in recipe.grid.data
    }


def grid_faults(
    grid: GridSection, model: "ModelSection | None", data: "DataSection | None"
) -> Iterator[InitErrorDetails]:
    """What does not fit the sections beside the grid; None where these are faulty themselves."""
    for key, section in (("models", model), ("data", data)):
        names: tuple[str, ...] = getattr(grid, key)
        if section is not None and section.name not in names:
            where = "model" if key == "models" else "data"
            yield fault(f"{where}.name, {section.name}, should be one of {', '.join(names)}", [key])
    for key in ("test", "evaluation"):
        if data is not None and len(grid.data) > 1 and getattr(data, key) is not None:
            yield fault(f"data.{key} names images of one data set, and here are several", ["data"])


def _word(name: str) -> str:
    """What stands in a folder's name for a model or data set, which may be a path."""
    return re.sub(r"[^\w.+]+", "-", PurePath(name).name).strip("-.")
