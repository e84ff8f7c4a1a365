"""The structure that somebody asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from snnprune.errors import wrong
from snnprune.spelling import did_you_mean

UNSTRUCTURED, CHANNELS = "unstructured", "channels"
LONGEST = 64  # inputs of a group


@dataclass(frozen=True, kw_only=True)
class Structure:
    """`unstructured`, `channels`, or of every `group` inputs `kept`."""

    name: str = UNSTRUCTURED
    kept: int = 0
    group: int = 0

    @property
    def is_pattern(self) -> bool:
        """Whether it is N:M."""
        return self.group > 0

    @property
    def sparsity(self) -> float:
        """Of a layer that has the pattern."""
        return 1 - self.kept / self.group


def parse_structure(text: str, *, field: str = "--structure") -> Structure:
    """The structure of that name.

    Raises:
        UsageError: there is none, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if text in (UNSTRUCTURED, CHANNELS):
        return Structure(name=text)
    found = re.fullmatch(r"(\d+):(\d+)", text)
    kept, group = map(int, found.groups()) if found else (0, 0)
    if not 0 < kept < group <= LONGEST:
        raise wrong(field)(
            f"unknown structure {text!r}",
            field=field,
            hint=_hint(text),
        )
    return Structure(name=text, kept=kept, group=group)


def _hint(text: str) -> str:
    """What may have been meant, or all there is."""
    meant = did_you_mean(text, (UNSTRUCTURED, CHANNELS))
    if meant.startswith("did"):
        return meant
    return f"choose {UNSTRUCTURED}, {CHANNELS} or N:M with 0 < N < M <= {LONGEST}, as 2:4"
