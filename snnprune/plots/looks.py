"""Colours that the colour-blind tell apart, with marks and dashes that do without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snnprune.curves import RANDOM

Dashes = str | tuple[int, tuple[int, ...]]
BLACK, GREY = "#000000", "#888888"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (  # Okabe and Ito 2008, Color Universal Design
    *("#0072B2", "#D55E00", "#009E73"),
    *("#CC79A7", "#E69F00", "#56B4E9"),
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a line is drawn, in the words of matplotlib."""

    color: str
    marker: str = "o"
    dashes: Dashes = "-"


LOOKS = (
    Look(color=BLUE, marker="o"),
    Look(color=VERMILLION, marker="s", dashes=(0, (6, 2))),
    Look(color=GREEN, marker="^", dashes=(0, (6, 1, 1, 1))),
    Look(color=PURPLE, marker="D", dashes=(0, (3, 1))),
    Look(color=ORANGE, marker="v", dashes=(0, (6, 1, 1, 1, 1, 1))),
    Look(color=SKY, marker="P", dashes=(0, (1, 1))),
)
RANDOM_LOOK = Look(color=GREY, marker="x", dashes=(0, (2, 2)))


def looks(methods: Sequence[str]) -> Mapping[str, Look]:
    """One for each method; grey for random tickets, over again where there are many."""
    others = [method for method in methods if method != RANDOM]
    given = {method: LOOKS[number % len(LOOKS)] for number, method in enumerate(others)}
    return {**given, RANDOM: RANDOM_LOOK}
