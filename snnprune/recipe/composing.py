"""From text to YAML nodes, with everything refused that hides a value.

Anchors, aliases, tags and further documents have no place in a list of settings, and are how a
small file becomes a large tree or a running program.
"""

import yaml

from snnprune.recipe.errors import Problem, Refused, cut

MAX_DEPTH = 20
MAX_NODES = 10_000


def compose(text: str) -> yaml.Node | None:
    """The root node of `text`; None where it holds nothing.

    Raises:
        Refused: it is not YAML, or holds something that a recipe may not hold.
    """
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        raise Refused(
            not_text(text[: error.position], f"U+{ord(text[error.position]):04X}")
        ) from None
    try:
        return loader.get_single_node()
    except yaml.composer.ComposerError as error:
        line = line_of(error.problem_mark)
        raise Refused(Problem(line=line, message="a second document starts here")) from None
    except yaml.MarkedYAMLError as error:
        raise Refused(_syntax_problem(error)) from None
    except (ValueError, OverflowError):
        # of int() and chr(), which PyYAML lets through
        message = f"not YAML at column {loader.column + 1}: a number is out of range"
        raise Refused(Problem(line=loader.line + 1, message=message)) from None


def not_text(before: str, what: str) -> Problem:
    """The problem of `what`, which is no text and comes after `before`."""
    column = len(before) - before.rfind("\n")
    return Problem(
        line=before.count("\n") + 1,
        message=f"not text: {what} at column {column}",
        hint="a recipe is YAML in UTF-8",
    )


def line_of(mark: yaml.Mark | None) -> int:
    """The line of a mark, from 1."""
    return 1 if mark is None else mark.line + 1


class _Loader(yaml.SafeLoader):
    """Composes nodes within limits; no constructor is ever called on them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.nodes += 1
        fault = _indirection(self.peek_event()) or self._excess()
        if fault:
            raise Refused(Problem(line=line_of(self.peek_event().start_mark), message=fault))
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _excess(self) -> str | None:
        if self.depth > MAX_DEPTH:
            return f"nested more than {MAX_DEPTH} deep"
        return f"more than {MAX_NODES} values" if self.nodes > MAX_NODES else None


def _indirection(event: yaml.Event) -> str | None:
    if isinstance(event, yaml.AliasEvent):
        return f"alias *{cut(str(event.anchor))} is not allowed"
    if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
        return f"anchor &{cut(event.anchor)} is not allowed"
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        return f"tag {cut(event.tag)!r} is not allowed"
    return None


def _syntax_problem(error: yaml.MarkedYAMLError) -> Problem:
    mark, start = error.problem_mark, error.context_mark
    message = f"not YAML at column {mark.column + 1 if mark else 1}: {error.problem}"
    if start is not None:
        message += f" {error.context} (line {line_of(start)}, column {start.column + 1})"
    return Problem(line=line_of(mark), message=message)
