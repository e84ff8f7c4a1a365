"""What `snnprune sensitivity` is asked for, checked before any work is done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from snnprune.errors import UsageError
from snnprune.files.writing import require_free
from snnprune.jobs.targets.options import TargetOptions
from snnprune.pruning.prune import require_sparsity
from snnprune.pruning.repair import require_repair
from snnprune.report.pages.writing import PAGES

CRITERION = "sf-obs"  # as prune takes it where network and data are at hand
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
REPORT, FRAGMENT, PICTURES = (
    "sensitivity.json",
    "prune.yaml",
    ("sensitivity.png", "sensitivity.svg"),
)


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions:
    """What the command line asks for; None takes the default that fits the target."""

    target: TargetOptions
    sparsities: tuple[float, ...] = SPARSITIES
    """Of each layer alone."""
    sparsity: float = 0.9
    """Of all layers together, in the recipe."""
    criterion: str | None = None
    repair: str | None = None
    calibration: Path | None = None
    split: str = "validation"
    eval_samples: int = 512
    folder: Path | None = None
    force: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written."""
        names = () if self.folder is None else (REPORT, FRAGMENT, *PICTURES, *PAGES)
        return tuple(self.folder / name for name in names if self.folder is not None)


def require_sense(options: SensitivityOptions) -> None:
    """Everything that can be refused before the checkpoint is read.

    Raises:
        UsageError: a name is unknown, or a sparsity is none.
        OutputError: a file is in the way.
    """
    for sparsity in options.sparsities:
        require_sparsity(sparsity, field="--sparsities")
    require_sparsity(options.sparsity)
    if len({f"{sparsity:g}" for sparsity in options.sparsities}) < len(options.sparsities):
        raise UsageError("names a sparsity twice", field="--sparsities")
    if options.repair is not None:
        require_repair(options.repair)
    calibration = [options.calibration] if options.calibration else []
    for path in options.files:
        require_free(
            path, force=options.force, inputs=[*options.target.list_inputs(), *calibration]
        )


def require_reach(options: SensitivityOptions, sizes: Collection[int]) -> None:
    """Refuse, before the layers are tried, a total that no layer is measured far enough for.

    Raises:
        UsageError: it is beyond the highest of the sparsities.
    """
    highest = max(options.sparsities)
    if round(options.sparsity * sum(sizes)) > sum(round(highest * size) for size in sizes):
        raise UsageError(
            f"{options.sparsity:g} of all weights is more than the {highest:g} that is measured",
            field="--sparsity",
            hint="give higher --sparsities",
        )
