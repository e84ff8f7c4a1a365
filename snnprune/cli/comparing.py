"""`diff` and `sensitivity`: commands that hold one network against another."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.flags import (
    HOLD_OUT,
    ReadoutFlag,
    ReportFlags,
    ScoringFlags,
    ShowFlags,
    parse_sparsities,
)
from snnprune.cli.options import expand_options
from snnprune.errors import UsageError
from snnprune.files.readable import require_readable
from snnprune.jobs.targets.options import MeasuredOptions

SPLITS = ("test", "validation", "train")
SplitFlag = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="test, validation or train; by default test images, or all where nothing says which.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PairOptions(MeasuredOptions):
    """Two checkpoints of one network; the flags are about both, the first says which network."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="A .safetensors (or its index), .pth or .nir file.", readable=False
        ),
    ]
    other: Annotated[
        Path,
        typer.Argument(
            metavar="B", help="Another of the same network, of any kind.", readable=False
        ),
    ]

    def check(self) -> None:
        """Refuse a checkpoint that cannot be read."""
        super().check()
        require_readable(self.other)


@expand_options
def diff(
    pair: PairOptions,
    show: ShowFlags,
    page: ReportFlags,
    split: SplitFlag = None,
    readout: ReadoutFlag = "auto",
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images; all by default.")
    ] = None,
) -> None:
    """Compare two checkpoints: weights, spikes, logits, answers. -v: spikes by time step."""
    require_split(split)
    from snnprune.cli.console import Screen
    from snnprune.cli.diff_tables import format_diff_lines, make_diff_tables
    from snnprune.jobs.diff import diff_checkpoints

    screen = Screen(show, report=page.report, force=page.force)
    found = diff_checkpoints(
        replace(pair, readout=readout),
        pair.other,
        split=split,
        limit=samples,
        progress=screen.progress(),
    )
    tables = make_diff_tables(found, screen.width, by_step=show.verbose)
    screen.result(*tables, *format_diff_lines(found), report=found.report)


@expand_options
def sensitivity(
    scoring: ScoringFlags,
    target: MeasuredOptions,
    show: ShowFlags,
    sparsities: Annotated[
        str, typer.Option(metavar="S,S...", help="What each layer alone is pruned to.")
    ] = "0.5,0.7,0.8,0.9,0.95,0.98",
    sparsity: Annotated[
        float, typer.Option(metavar="S", help="Of all layers together, in the recipe.")
    ] = 0.9,
    repair: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As in prune; bn by default where there is BatchNorm."),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="validation (else training images that calibration leaves), train or test.",
        ),
    ] = "validation",
    eval_samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Images to compare on.")
    ] = 512,
    readout: ReadoutFlag = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for report, pages, recipe and pictures.",
            readable=False,
        ),
    ] = None,
) -> None:
    """Prune each layer alone, and see what it costs. -v: shares of unchanged classes too."""
    require_split(split)
    asked = parse_sparsities(sparsities, field="--sparsities")
    from snnprune.cli.console import Screen
    from snnprune.cli.diff_tables import format_sensitivity_lines, make_sensitivity_tables
    from snnprune.jobs.sensitivity.options import SensitivityOptions
    from snnprune.jobs.sensitivity.sensitivity import measure_sensitivity

    screen = Screen(show)
    options = SensitivityOptions(
        target=replace(
            target,
            samples=scoring.samples,
            readout=readout,
            strict=scoring.strict,
            hold_out=HOLD_OUT,
        ),
        sparsities=asked,
        sparsity=sparsity,
        criterion=scoring.criterion,
        repair=repair,
        calibration=scoring.calibration,
        split=split,
        eval_samples=eval_samples,
        folder=out,
        force=scoring.force,
    )
    found = measure_sensitivity(options, screen.progress())
    tables = make_sensitivity_tables(found, screen.width, sparsity=sparsity, classes=show.verbose)
    screen.result(*tables, *format_sensitivity_lines(found, options), report=found.report)


def require_split(name: str | None) -> None:
    """Refuse a split that no data set has.

    Raises:
        UsageError: it is none of the three.
    """
    if name is not None and name not in SPLITS:
        raise UsageError(
            f"unknown split {name!r}", field="--split", hint="choose test, validation or train"
        )
