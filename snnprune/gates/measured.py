"""What gates are held against, as counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True, kw_only=True)
class Count:
    """So many of so many."""

    part: int
    whole: int

    @property
    def share(self) -> Fraction:
        """Exact, in [0, 1]."""
        return Fraction(self.part, self.whole)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A checkpoint in numbers; None where nobody measured, and `missing` says why."""

    layers: Mapping[str, Count]
    """Pruned weights, by weight key."""
    size: int
    """Bytes of the file or files."""
    right: Count | None = None
    """Labelled samples that are classified right."""
    right_before: Count | None = None
    """The same of the baseline."""
    operations: int | None = None
    """Effective synaptic operations, over all samples."""
    energy: Fraction | None = None
    """Of them, in pJ."""
    samples: int = 0
    silent: Count | None = None
    """Channels that never spike."""
    same: Count | None = None
    """Spikes that are as in the baseline."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why something was not measured, by the name of its field."""

    def count_pruned(self) -> Count:
        """Of all layers."""
        counts = self.layers.values()
        return Count(part=sum(c.part for c in counts), whole=sum(c.whole for c in counts))
