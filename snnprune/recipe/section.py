"""What every section of a recipe is made of: its types, their limits, and how faults are told."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

MAX_ARGUMENT_DEPTH = 8  # sections within sections of model.args, far below what YAML may nest

Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
NotNegative = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """Part of a recipe: unknown settings, NaN and coercion (other than int to float) refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def make_fault(
    message: str, place: Sequence[str | int] = (), value: object = None
) -> InitErrorDetails:
    """What is wrong with the setting at `place`, to be raised by `refuse`."""
    error = PydanticCustomError("argument", "{message}", {"message": message})
    return InitErrorDetails(type=error, loc=tuple(place), input=value)


def refuse(section: str, faults: Sequence[InitErrorDetails]) -> None:
    """Raise the faults of a section, if there are any.

    Raises:
        ValidationError: there are.
    """
    if faults:
        raise ValidationError.from_exception_data(section, list(faults))


def require_increasing(values: Sequence[float]) -> None:
    """Refuse a list that does not grow.

    Raises:
        PydanticCustomError: it does not.
    """
    if list(values) != sorted(set(values)):
        raise PydanticCustomError("order", "the values should increase")


def require_plain(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments that a recipe may hold: numbers, switches, text and sections of them.

    Raises:
        ValidationError: there are others.
    """
    refuse("args", list(_find_not_plain(args, ())))
    return args


def _find_not_plain(args: dict[str, Any], path: tuple[str, ...]) -> Iterator[InitErrorDetails]:
    for key, value in args.items():
        place = (*path, key)
        if isinstance(value, dict) and len(place) <= MAX_ARGUMENT_DEPTH:
            yield from _find_not_plain(value, place)
        elif isinstance(value, dict):
            yield make_fault("nested too deeply", place, value)
        elif isinstance(value, float) and not math.isfinite(value):
            yield make_fault("Input should be a finite number", place, value)
        elif not isinstance(value, bool | int | float | str):
            yield make_fault(
                "Input should be a number, true, false, text or a section", place, value
            )
