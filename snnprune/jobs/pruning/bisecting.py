"""The highest sparsity that holds an accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snnprune.quantities import Share


@dataclass(frozen=True, kw_only=True)
class Try:
    """One sparsity that was measured."""

    sparsity: Share
    accuracy: Share
    """In [0, 1]."""
    held: bool


def bisect(
    accuracy_at: Callable[[float], float], *, target: float, resolution: float
) -> tuple[Try, ...]:
    """Every try between 0 and 1, in order, until two neighbours in `resolution` differ.

    The accuracy is taken to fall with the sparsity. Where it does not, what held still held when it
    was measured, but a higher sparsity may hold too.
    """
    tries: list[Try] = []
    holds, fails = 0, round(1 / resolution)  # in steps of the resolution; neither end is measured
    while fails - holds > 1:
        middle = (holds + fails) // 2
        sparsity = round(middle / round(1 / resolution), 10)
        accuracy = accuracy_at(sparsity)
        held = accuracy >= target - 1e-12  # a target below the dense accuracy is a difference
        tries.append(Try(sparsity=sparsity, accuracy=accuracy, held=held))
        holds, fails = (middle, fails) if held else (holds, middle)
    return tuple(tries)


def best(tries: tuple[Try, ...]) -> Try | None:
    """The highest sparsity that held; None where none did."""
    return max((one for one in tries if one.held), key=lambda one: one.sparsity, default=None)
