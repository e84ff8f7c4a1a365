"""What is wrong in a recipe: every problem, with its line."""

from collections.abc import Sequence
from dataclasses import dataclass

from snnprune.errors import InputError

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


class Refused(Exception):  # noqa: N818  (never shown: it becomes an error with a file)
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


def dotted(path: Sequence[str | int]) -> str | None:
    """`a.b.c`, with long names cut; None for the whole text."""
    return ".".join(cut(str(name)) for name in path) or None


def cut(text: str) -> str:
    """The beginning of a stranger's text."""
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."
