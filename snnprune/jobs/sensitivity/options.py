"""What `snnprune sensitivity` is asked for; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from snnprune.jobs.shared_options import (
    ReadoutFlag,
    ScoringOptions,
    parse_sparsities,
    require_split,
)
from snnprune.jobs.targets.options import MeasuredOptions, ReadAs

CRITERION = "sf-obs"  # as prune takes it where network and data are at hand
SPARSITIES = "0.5,0.7,0.8,0.9,0.95,0.98"
REPORT, FRAGMENT, PICTURES = (
    "sensitivity.json",
    "prune.yaml",
    ("sensitivity.png", "sensitivity.svg"),
)


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions(ScoringOptions, MeasuredOptions):
    """What the command line asks for; None takes the default that fits the target."""

    sparsities: Annotated[
        tuple[float, ...],
        ReadAs(given=str, default=SPARSITIES, read=partial(parse_sparsities, field="--sparsities")),
        typer.Option(metavar="S,S...", help="What each layer alone is pruned to."),
    ] = parse_sparsities(SPARSITIES)
    sparsity: Annotated[
        float, typer.Option(metavar="S", help="Of all layers together, in the recipe.")
    ] = 0.9
    repair: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As in prune; bn by default where there is BatchNorm."),
    ] = None
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="validation (else training images that calibration leaves), train or test.",
        ),
    ] = "validation"
    eval_samples: Annotated[int, typer.Option(metavar="N", min=1, help="Images to compare on.")] = (
        512
    )
    readout: ReadoutFlag = "auto"
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for report, pages, recipe and pictures.",
            readable=False,
        ),
    ] = None

    def check(self) -> None:
        """Refuse a split that no data set has, too."""
        super().check()
        require_split(self.split)

    @property
    def files(self) -> tuple[Path, ...]:
        """What is written."""
        from snnprune.report.pages.writing import PAGES

        names = () if self.out is None else (REPORT, FRAGMENT, *PICTURES, *PAGES)
        return tuple(self.out / name for name in names if self.out is not None)
