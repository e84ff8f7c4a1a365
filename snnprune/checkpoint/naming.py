"""Naming many things in one line."""

from collections.abc import Iterable


def first_few(names: Iterable[object], limit: int = 5) -> str:
    """`a, b and 3 more`: the first `limit` names and how many there are beyond them."""
    everything = list(names)
    shown = ", ".join(str(name) for name in everything[:limit])
    beyond = len(everything) - limit
    return f"{shown} and {beyond} more" if beyond > 0 else shown


def counted(count: int, noun: str) -> str:
    """`1 key`, `12 keys`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def is_text(name: str) -> bool:
    """Whether `name` can be written as UTF-8: a pickle can hold half a surrogate pair."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
