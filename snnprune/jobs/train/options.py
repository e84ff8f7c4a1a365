"""Which files `snnprune finetune` is asked to train on; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from snnprune.files.readable import require_readable
from snnprune.jobs.targets.options import Options


@dataclass(frozen=True, kw_only=True)
class FinetuneFiles(Options):
    """What is trained on, as the command line names it."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT",
            help="The pruned .safetensors (or its index), .pth or .nir file.",
            readable=False,
        ),
    ]
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What stays pruned; by default the mask file beside CKPT, or else what is 0.",
            readable=False,
        ),
    ] = None
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The dense checkpoint to learn from, of the same model.",
            readable=False,
        ),
    ] = None
    state_dict: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Which of the state dicts of CKPT to read."),
    ] = None

    def check(self) -> None:
        """Refuse a file that is not there before torch is imported."""
        for path in (self.checkpoint, self.masks, self.teacher):
            if path is not None:
                require_readable(path)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words that name them on a command line."""
        flags = {
            "--masks": self.masks,
            "--teacher": self.teacher,
            "--state-dict": self.state_dict,
        }
        given = ((flag, str(value)) for flag, value in flags.items() if value is not None)
        return (str(self.checkpoint), *(word for pair in given for word in pair))
