"""How long work tells the outside how far it is, without knowing who listens."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What `snnprune.cli` draws as bars; a notebook may pass its own."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Pass `items` on, telling after each how far the work is; `total` is their number."""
        ...

    def within(self, label: str, *, total: int, done: int = 0) -> AbstractContextManager[None]:
        """A block of the work, of `total` items; each item of a `track` in it brings it forward.

        `done` of them were done before, by a run that is taken up again: they count as done and
        not for the speed. Blocks may lie in blocks; a `track` within a `track` counts once.
        """
        ...

    def note(self, text: str) -> None:
        """A line about the item in hand, such as the loss so far."""
        ...


class Silent:
    """Progress that nobody watches."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002  # nobody reads them
        """Pass `items` on."""
        yield from items

    def within(self, label: str, *, total: int, done: int = 0) -> AbstractContextManager[None]:  # noqa: ARG002  # likewise
        """Nothing around the block."""
        return nullcontext()

    def note(self, text: str) -> None:
        """Say nothing."""


SILENT: Progress = Silent()
