"""From what pydantic found to what the reader of a recipe is told; and what plain text means.

That is as in YAML 1.2 (core schema): `1e-3` is a number, `no` and `1:30` are text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from snnprune.errors import InputError, did_you_mean, suggest_percent, suggest_share
from snnprune.recipe.schema import Recipe, find_section

MAX_DIGITS = 100  # Python takes quadratic time for the digits of an int, or raises

INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
NULL = ("", "~", "null", "Null", "NULL")
TRUE = ("true", "True", "TRUE")
FALSE = ("false", "False", "FALSE")


def parse_plain_value(text: str) -> bool | int | float | str | None:
    """The value of unquoted `text`.

    Raises:
        ValueError: it is a number of more than `MAX_DIGITS` characters.
    """
    if text in NULL:
        return None
    if text in TRUE + FALSE:
        return text in TRUE
    if INTEGER.fullmatch(text):
        return _parse_integer(_shorten(text))
    if FLOAT.fullmatch(text):
        return _parse_float(_shorten(text))
    return text


def _shorten(number: str) -> str:
    if len(number) > MAX_DIGITS:
        raise ValueError(f"a number of {len(number)} characters is too long")
    return number


def _parse_integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _parse_float(text: str) -> float:
    return float(re.sub(r"\.(?=[a-z])", "", text.lower()))  # Python writes inf and nan undotted


MAX_NAME = 60  # characters of a stranger's text that a message repeats


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    line: int
    """Counted from 1."""
    message: str
    field: str | None = None
    """The setting as `a.b.c`; None where it is the text as a whole."""
    hint: str | None = None

    def text(self, file: str) -> str:
        """`FILE:LINE: a.b.c: what is wrong. hint`."""
        place = f"{file}:{self.line}"
        return str(InputError(self.message, file=place, field=self.field, hint=self.hint))


class RefusedTextError(Exception):
    """A text holds no settings; whoever knows where it came from turns this into an error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class RecipeError(InputError):
    """A recipe cannot be used; as text, one line for each problem, in the order of the file.

    `message`, `file`, `field` and `hint` are those of the first. A setting's name is a stranger's
    text and may hold line breaks: show `lines`, each escaped by itself, rather than the whole.
    """

    def __init__(self, file: str, problems: Sequence[Problem], *, omitted: int = 0) -> None:
        first = problems[0]
        super().__init__(
            first.message, file=f"{file}:{first.line}", field=first.field, hint=first.hint
        )
        self.problems = tuple(problems)
        more = [f"{file}: {omitted} more problems"] if omitted else []
        self.lines = (*(problem.text(file) for problem in problems), *more)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def format_path(path: Sequence[str | int]) -> str | None:
    """`a.b.c`, with long names cut; None for the whole text."""
    return ".".join(cut_text(str(name)) for name in path) or None


def cut_text(text: str) -> str:
    """The beginning of a stranger's text."""
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."


EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a section of settings",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_type": "a section of settings",
    "string_type": "text",
    "tuple_type": "a list",
}


def make_problem(detail: ErrorDetails, line: int, *, root: type[BaseModel] = Recipe) -> Problem:
    """The problem that `detail` tells of, at `line`, in a file of the settings of `root`."""
    return Problem(
        line=line,
        field=format_path(detail["loc"]),
        message=_format_message(detail),
        hint=_format_hint(detail, root),
    )


def _format_message(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown setting"
    if detail["type"] == "missing":
        return "missing"
    if detail["type"] == "too_short":
        return "at least one value is needed"
    value = _format_value(detail["input"])
    if detail["type"] in EXPECTED:
        return f"{value} should be {EXPECTED[detail['type']]}"
    return re.sub(r"^(Input|String) should", lambda _: f"{value} should", detail["msg"])


def _format_hint(detail: ErrorDetails, root: type[BaseModel]) -> str | None:
    *path, name = detail["loc"]
    match detail["type"]:
        case "extra_forbidden":
            return did_you_mean(cut_text(str(name)), find_section(path, root).model_fields)
        case "missing":
            return f"needed: {find_section(path, root).model_fields[str(name)].description}"
        case "less_than" if detail["ctx"]["lt"] == 1:
            return suggest_share(detail["input"])
        case kind:
            return _format_type_hint(kind, detail["input"])


def _format_type_hint(kind: str, value: Any) -> str | None:
    match kind, value:
        case "int_type", float() if value.is_integer():
            return f"write {int(value)}"
        case "float_type", str() if value.endswith("%"):
            return suggest_percent(value)
        case (("float_type" | "int_type"), str()) if FLOAT.fullmatch(value):
            return "write it without quotes"
        case "string_type", int() | float():
            return "put it in quotes"
    return None


def _format_value(value: Any) -> str:
    """`value` as somebody would write it, in short."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(cut_text(value))
        case dict():
            return "a section"
        case list() | tuple():
            return "a list"
    return str(value)
