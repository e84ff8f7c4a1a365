"""What a pickle is read into: plain values, and inert stand-ins for all else.

None, bools, numbers, text, bytes, lists and tuples are Python's own. A dict is a `Table`. Whatever
a file would make by calling something is a `Made`, which knows by what and of what, and does
nothing.
"""

from typing import Any


class Table(dict[Any, Any]):
    """A dict of a file; a key that is neither text nor a number is an `OddKey`."""

    __slots__ = ("place",)

    def __init__(self, place: int = 0) -> None:
        super().__init__()
        self.place = place
        """Where in the pickle the instruction is that makes it."""


class Named:
    """A class or function that a file names."""

    __slots__ = ("full", "module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.full = f"{module}.{name}"

    def __str__(self) -> str:
        return self.full


class Made:
    """What would come of calling something, which nobody calls."""

    __slots__ = ("arguments", "by", "items", "listed", "place", "state")

    def __init__(self, by: object, arguments: object, place: int) -> None:
        self.by = by
        self.arguments = arguments
        self.place = place
        self.state: object = None
        """What it would be told to become, as a dict of its attributes."""
        self.items: Table | None = None
        """What would be put into it by key; of a module its tensors by name, once asked for."""
        self.listed: list[object] = []
        """What would be added to it."""


class Unread:
    """Text, bytes or a number too long to matter."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


class OddKey:
    """A key of a dict that is not hashed, since what a file made may hash for ever."""

    __slots__ = ("key",)

    def __init__(self, key: object) -> None:
        self.key = key

    def __str__(self) -> str:
        return f"({kind_of(self.key)})"


# Integers that are their own hash: others can be made to share one by the thousand.
LARGEST = 2**61 - 2


def as_key(key: object) -> object:
    """The key itself where hashing it takes no time and tells nothing, else an `OddKey`."""
    if type(key) is int:
        return key if -LARGEST <= key <= LARGEST else OddKey(key)
    return key if type(key) in (str, float, bool, bytes, type(None)) else OddKey(key)


def kind_of(value: object) -> str:
    """The type that a value has in the file: `list`, `pathlib.PosixPath`."""
    if isinstance(value, Made):
        return kind_of(value.by) if isinstance(value.by, Made) else str(value.by)
    if isinstance(value, Unread):
        return value.what
    known = {"Table": "dict", "Named": "class", "Described": "Tensor", "View": "storage"}
    return known.get(type(value).__name__, type(value).__name__)
