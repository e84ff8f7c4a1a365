"""How long work tells the outside how far it is, without knowing who listens."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What `snnprune.cli` draws as a bar; a notebook may pass its own."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Pass `items` on, telling after each how far the work is; `total` is their number."""
        ...

    def note(self, text: str) -> None:
        """A line about the item in hand, such as the loss so far."""
        ...


class Silent:
    """Progress that nobody watches."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002
        """Pass `items` on."""
        yield from items

    def note(self, text: str) -> None:
        """Say nothing."""


SILENT: Progress = Silent()
