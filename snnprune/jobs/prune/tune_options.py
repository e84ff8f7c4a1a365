"""How long and on what is tuned, from flags; importing this imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import typer

from snnprune.errors import UsageError
from snnprune.errors.text import did_you_mean
from snnprune.jobs.targets.options import FurtherOptions

FAST, DEFAULT, THOROUGH = "fast", "default", "thorough"
EFFORTS = (FAST, DEFAULT, THOROUGH)
AUGMENTATIONS = ("flip", "shift")
PANEL = "Tuning"  # of --help


@dataclass(frozen=True, kw_only=True)
class TuneOptions(FurtherOptions):
    """What the command line says of tuning; None is left to what fits the network and its data."""

    effort: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="fast: closed form only; default: about a minute; thorough: as long as it pays.",
            rich_help_panel=PANEL,
        ),
    ] = None
    no_tune: Annotated[
        bool, typer.Option("--no-tune", help="As --effort fast.", rich_help_panel=PANEL)
    ] = False
    tune_steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Steps; by default 960 or what fits.", rich_help_panel=PANEL
        ),
    ] = None
    tune_lr: Annotated[
        float | None,
        typer.Option(metavar="X", help="Peak of the learning rate.", rich_help_panel=PANEL),
    ] = None
    tune_images: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=2, help="Training images; 4096 by default.", rich_help_panel=PANEL
        ),
    ] = None
    use_labels: Annotated[
        bool,
        typer.Option(
            "--use-labels",
            help="Tune by the labels, not by the dense network.",
            rich_help_panel=PANEL,
        ),
    ] = False
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="flip, shift, both with a comma, or none; by default what fits built-in data.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def check(self) -> None:
        """Refuse unknown names, and what contradicts."""
        if self.effort is not None and self.effort not in EFFORTS:
            raise UsageError(
                f"unknown effort {self.effort!r}",
                field="--effort",
                hint=did_you_mean(self.effort, EFFORTS),
            )
        if self.no_tune and self.effort not in (None, FAST):
            raise UsageError(f"is given beside --effort {self.effort}", field="--no-tune")
        if self.closed_form:
            for flag in self.list_given():
                raise UsageError("says how to tune, and nothing is tuned", field=flag)
        if self.tune_lr is not None and not (math.isfinite(self.tune_lr) and self.tune_lr > 0):
            raise UsageError(f"{self.tune_lr:g} is no positive number", field="--tune-lr")
        self.parse_augment()
        super().check()

    @property
    def closed_form(self) -> bool:
        """Whether nothing is tuned by default."""
        return self.no_tune or self.effort == FAST

    @property
    def thorough(self) -> bool:
        """Whether it goes on as long as it pays."""
        return self.effort == THOROUGH

    def list_given(self) -> list[str]:
        """The flags that say how to tune."""
        given = {
            "--tune-steps": self.tune_steps is not None,
            "--tune-lr": self.tune_lr is not None,
            "--tune-images": self.tune_images is not None,
            "--use-labels": self.use_labels,
            "--augment": self.augment is not None,
        }
        return [flag for flag, is_given in given.items() if is_given]

    def parse_augment(self) -> tuple[str, ...] | None:
        """What may be done to images; None is left to the data.

        Raises:
            UsageError: a name is unknown.
        """
        if self.augment is None:
            return None
        names = tuple(filter(None, (name.strip() for name in self.augment.split(","))))
        if names == ("none",):
            return ()
        for name in names or (self.augment,):
            if name not in AUGMENTATIONS:
                raise UsageError(
                    f"unknown augmentation {name!r}",
                    field="--augment",
                    hint=did_you_mean(name, (*AUGMENTATIONS, "none")),
                )
        return names
