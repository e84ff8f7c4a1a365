"""YAML text: what settings it holds, on which line, and how settings are written as such."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from snnprune.plugins.names import encode_references
from snnprune.recipe.errors import (
    FLOAT,
    INTEGER,
    Problem,
    RefusedTextError,
    cut_text,
    format_path,
    parse_plain_value,
)
from snnprune.recipe.schema import Recipe

MAX_DEPTH = 20
MAX_NODES = 10_000


def compose(text: str) -> yaml.Node | None:
    """The root node of `text`; None where it holds nothing.

    Raises:
        RefusedTextError: it is not YAML, or holds something that a recipe may not hold.
    """
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        raise RefusedTextError(
            not_text_problem(text[: error.position], f"U+{ord(text[error.position]):04X}")
        ) from None
    try:
        return loader.get_single_node()
    except yaml.composer.ComposerError as error:
        line = line_of(error.problem_mark)
        raise RefusedTextError(
            Problem(line=line, message="a second document starts here")
        ) from None
    except yaml.MarkedYAMLError as error:
        raise RefusedTextError(_make_syntax_problem(error)) from None
    except (ValueError, OverflowError):
        # of int() and chr(), which PyYAML lets through
        message = f"not YAML at column {loader.column + 1}: a number is out of range"
        raise RefusedTextError(Problem(line=loader.line + 1, message=message)) from None


def not_text_problem(before: str, what: str) -> Problem:
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
        fault = _find_indirection(self.peek_event()) or self._find_excess()
        if fault:
            raise RefusedTextError(
                Problem(line=line_of(self.peek_event().start_mark), message=fault)
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _find_excess(self) -> str | None:
        if self.depth > MAX_DEPTH:
            return f"nested more than {MAX_DEPTH} deep"
        return f"more than {MAX_NODES} values" if self.nodes > MAX_NODES else None


def _find_indirection(event: yaml.Event) -> str | None:
    if isinstance(event, yaml.AliasEvent):
        return f"alias *{cut_text(str(event.anchor))} is not allowed"
    if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
        return f"anchor &{cut_text(event.anchor)} is not allowed"
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        return f"tag {cut_text(event.tag)!r} is not allowed"
    return None


def _make_syntax_problem(error: yaml.MarkedYAMLError) -> Problem:
    mark, start = error.problem_mark, error.context_mark
    message = f"not YAML at column {mark.column + 1 if mark else 1}: {error.problem}"
    if start is not None:
        message += f" {error.context} (line {line_of(start)}, column {start.column + 1})"
    return Problem(line=line_of(mark), message=message)


Path = tuple[str | int, ...]
Scalar = bool | int | float | str | None
Plain = Callable[[str], Scalar]
"""What unquoted text means."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """The value of a YAML text: dicts with text keys, lists, text, numbers, booleans, None."""

    value: Any
    lines: Mapping[Path, int]
    """The line, from 1, of each key and list item."""

    def line_of(self, path: Path) -> int:
        """The line of `path`, or of the nearest section around it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse_bytes(data: bytes) -> Document:
    """`parse_text` of UTF-8.

    Raises:
        RefusedTextError: as `parse_text`, or the bytes are not UTF-8.
    """
    try:
        return parse_text(data.decode())
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise RefusedTextError(
            not_text_problem(before, f"byte 0x{data[error.start]:02x}")
        ) from None


def parse_text(text: str, plain: Plain = parse_plain_value) -> Document:
    """The value of a YAML text and the lines in it.

    Raises:
        RefusedTextError: it is not YAML, holds what a recipe may not hold, or sets a name twice.
    """
    lines: dict[Path, int] = {}
    node = compose(text)
    return Document(
        value=None if node is None else _read_value(node, (), lines, plain), lines=lines
    )


def _read_value(node: yaml.Node, path: Path, lines: dict[Path, int], plain: Plain) -> Any:
    lines.setdefault(path, line_of(node.start_mark))
    match node:
        case yaml.MappingNode():
            return _read_mapping(node, path, lines, plain)
        case yaml.SequenceNode():
            items = enumerate(node.value)
            return [_read_value(item, (*path, index), lines, plain) for index, item in items]
        case yaml.ScalarNode():
            return _read_scalar(node, path, plain)


def _read_mapping(
    node: yaml.MappingNode, path: Path, lines: dict[Path, int], plain: Plain
) -> dict[str, Any]:
    mapping = {}
    for key, value in node.value:
        name = _read_name(key, path)
        place = (*path, name)
        line = line_of(key.start_mark)
        if place in lines:
            raise _make_refusal(key, f"set twice, on lines {lines[place]} and {line}", place)
        lines[place] = line
        mapping[name] = _read_value(value, place, lines, plain)
    return mapping


def _read_name(key: yaml.Node, path: Path) -> str:
    if not isinstance(key, yaml.ScalarNode) or not key.value:
        raise _make_refusal(key, "the name of a setting should be text", path)
    return _require_encodable(key, path)


def _read_scalar(node: yaml.ScalarNode, path: Path, plain: Plain) -> Scalar:
    text = _require_encodable(node, path)
    if node.style is not None:  # quoted, or a block of text
        return text
    try:
        return plain(text)
    except ValueError as error:
        raise _make_refusal(node, str(error), path) from None


def _require_encodable(node: yaml.ScalarNode, path: Path) -> str:
    """The text of `node`, unless an escape in it spells a NUL or half of a surrogate pair."""
    text: str = node.value
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise _make_refusal(node, "holds a character that no file can hold", path)
    return text


def _make_refusal(node: yaml.Node, message: str, path: Path) -> RefusedTextError:
    return RefusedTextError(
        Problem(line=line_of(node.start_mark), field=format_path(path), message=message)
    )


def dump_recipe(recipe: Recipe) -> str:
    """Every setting of its sections, defaults too, as YAML that loads back to an equal recipe."""
    settings = {name: value for name, value in recipe.model_dump().items() if value is not None}
    return dump_settings(settings)


def dump_settings(settings: Mapping[str, Any]) -> str:
    """YAML that loads back to the same settings."""
    plain = encode_references(dict(settings))
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 *or* 1.2 would read as something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds line breaks of every kind, and does not read them all back
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


# PyYAML knows 1.1 only and would leave the texts "1e3" and "0o17" bare.
_NUMBER = re.compile(rf"(?:{INTEGER.pattern}|{FLOAT.pattern})\Z")
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
_Dumper.add_representer(str, _represent_text)
