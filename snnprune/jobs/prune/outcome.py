"""What came of `snnprune prune`: its files, and what was found of each; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snnprune.errors import SnnpruneError
from snnprune.jobs.prune.options import OutputPaths
from snnprune.jobs.targets.reporting import LayerRow
from snnprune.report.verdicts import Verdict

if TYPE_CHECKING:
    from snnprune.chips.check import ChipFit
    from snnprune.jobs.prune.budgets import BudgetResult
    from snnprune.jobs.prune.target_sparsity import Search
    from snnprune.measure.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class PrunedFile:
    """What came of one sparsity."""

    sparsity: float | None
    """As asked for, or found; None where each layer has its own."""
    place: OutputPaths
    rows: tuple[LayerRow, ...]
    """Counted in the file that was written."""
    totals: dict[str, int]
    channels: Mapping[str, dict[str, int]]
    """See `PrunedModel`."""
    before: Evaluation | None
    after: Evaluation | None
    test: Evaluation | None
    """On test images, where `after` is on the images of `--eval-data`."""
    verdicts: tuple[Verdict, ...]
    """Of the gates."""
    error: SnnpruneError | None
    """Of those that are not met."""
    chip: ChipFit | None = None
    """How it fits the chip, where one is named."""
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PruneOutcome:
    """What came of a command."""

    files: tuple[PrunedFile, ...]
    search: Search | None
    budget: BudgetResult | None
    report: dict[str, Any]
    """Of the one file, or of all of them."""

    @property
    def error(self) -> SnnpruneError | None:
        """Of the first file that does not meet its gates."""
        return next((file.error for file in self.files if file.error is not None), None)
