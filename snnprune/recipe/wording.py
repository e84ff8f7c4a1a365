"""From what pydantic found to what the reader of a recipe is told."""

import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from snnprune.recipe.errors import Problem, cut, dotted
from snnprune.recipe.scalars import FLOAT
from snnprune.recipe.schema import Recipe, section_at
from snnprune.spelling import did_you_mean, percent_meant, share_meant

EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a section of settings",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_type": "a section of settings",
    "string_type": "text",
    "tuple_type": "a list",
}


def problem_of(detail: ErrorDetails, line: int, *, root: type[BaseModel] = Recipe) -> Problem:
    """The problem that `detail` tells of, at `line`, in a file of the settings of `root`."""
    return Problem(
        line=line, field=dotted(detail["loc"]), message=_message(detail), hint=_hint(detail, root)
    )


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown setting"
    if detail["type"] == "missing":
        return "missing"
    if detail["type"] == "too_short":
        return "at least one value is needed"
    value = _shown(detail["input"])
    if detail["type"] in EXPECTED:
        return f"{value} should be {EXPECTED[detail['type']]}"
    return re.sub(r"^(Input|String) should", lambda _: f"{value} should", detail["msg"])


def _hint(detail: ErrorDetails, root: type[BaseModel]) -> str | None:
    *path, name = detail["loc"]
    match detail["type"]:
        case "extra_forbidden":
            return did_you_mean(cut(str(name)), section_at(path, root).model_fields)
        case "missing":
            return f"needed: {section_at(path, root).model_fields[str(name)].description}"
        case "less_than" if detail["ctx"]["lt"] == 1:
            return share_meant(detail["input"])
        case kind:
            return _type_hint(kind, detail["input"])


def _type_hint(kind: str, value: Any) -> str | None:
    match kind, value:
        case "int_type", float() if value.is_integer():
            return f"write {int(value)}"
        case "float_type", str() if value.endswith("%"):
            return percent_meant(value)
        case (("float_type" | "int_type"), str()) if FLOAT.fullmatch(value):
            return "write it without quotes"
        case "string_type", int() | float():
            return "put it in quotes"
    return None


def _shown(value: Any) -> str:
    """`value` as somebody would write it, in short."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(cut(value))
        case dict():
            return "a section"
        case list() | tuple():
            return "a list"
    return str(value)
