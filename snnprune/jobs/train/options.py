"""What the commands that run a recipe are asked for; importing this imports no torch."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from snnprune.data import DataOptions
from snnprune.errors import UsageError
from snnprune.files.reading import require_readable
from snnprune.jobs.options import TrustFlag
from snnprune.jobs.targets.options import (
    TEST_DATA_HELP,
    DataFolderOptions,
    Options,
    require_other_data,
)
from snnprune.jobs.targets.settings import Config
from snnprune.plugins.names import iter_references
from snnprune.runtime import require_device_name

if TYPE_CHECKING:
    from snnprune.recipe.schema import Recipe


class AllowedChange(StrEnum):
    """What a run was made with, beside its recipe."""

    TORCH = "torch"
    SNNPRUNE = "snnprune"
    DEVICE = "device"
    PROCESSES = "processes"


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(DataFolderOptions):
    """Which recipe is run, and where."""

    KEYS = ("device", "data-root")  # the recipe says which network and data
    command: ClassVar[str]
    """The loop that runs it."""
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Built-in name or YAML file; the run's with --resume."),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Change a setting; repeatable."),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run folder; by default runs/ and the recipe's name.",
            readable=False,
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Instead of the recipe's.")
    ] = None
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Several runs, in DIR/seed-N, and their mean."),
    ] = None
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda:N.")] = "auto"
    test_data: Annotated[str | None, typer.Option(metavar="DATA", help=TEST_DATA_HELP)] = None
    eval_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Validation samples: as data.evaluation.")
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="One batch through; tell sizes and time, write nothing."),
    ] = False
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = (
        False
    )
    allow_change: Annotated[
        list[AllowedChange] | None,
        typer.Option(help="Resume although this is another one; repeatable."),
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False
    trust_recipe: TrustFlag = False

    def check(self) -> None:
        """Refuse unknown names, flags that do not go together, and a command without a recipe."""
        super().check()
        require_device_name(self.device)
        require_other_data(self.test_data, self.eval_data)
        if self.resume and self.force:
            raise UsageError(
                "either --resume or --force", hint="one continues a run, one replaces it"
            )
        if self.allow_change and not self.resume:
            raise UsageError("is for --resume", field="--allow-change", hint="a new run needs none")
        if self.resume and self.dry_run:
            raise UsageError(
                "either --resume or --dry-run", hint="the one tries a run from its start"
            )
        if self.recipe is None and not self.resume:
            raise UsageError("missing", field="--recipe", hint="snnprune recipes ls shows some")
        if self.recipe is None and self.out is None:
            raise UsageError("missing", field="--recipe", hint="or name a run: --resume --out DIR")

    def list_overrides(self) -> list[str]:
        """What the flags change in the recipe."""
        if self.seed is not None and self.seeds is not None:
            raise UsageError("either --seed or --seeds", hint="--seeds runs several")
        one = [f"seed={self.seed}", "seeds=[]"] if self.seed is not None else []
        several = [f"seeds=[{self.seeds}]"] if self.seeds is not None else []
        others = {"data.test": self.test_data, "data.evaluation": self.eval_data}
        named = [f"{key}={json.dumps(name)}" for key, name in others.items() if name is not None]
        return [*(self.settings or []), *one, *several, *named]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RecipeOptions):
    """What `snnprune train` is asked for."""

    command = "train"


@dataclass(frozen=True, kw_only=True)
class ImpOptions(RecipeOptions):
    """What `snnprune imp` is asked for."""

    command = "imp"


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RecipeOptions):
    """What `snnprune search` is asked for."""

    command = "search"


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
        super().check()

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


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(FinetuneFiles, RecipeOptions):
    """What `snnprune finetune` is asked for."""

    command = "finetune"


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What the command line asks for."""

    recipe: Recipe
    out: Path
    command: str = "train"
    arguments: tuple[str, ...] = ()
    """What else the command was given, for the line that continues the run."""
    device: str = "auto"
    data_root: Path | None = None
    download: bool = False
    force: bool = False
    resume: bool = False
    allowed: tuple[str, ...] = ()
    """What may be another than when the run began: `torch`, `snnprune`, `device`, `processes`."""
    config: Config | None = None
    """What was taken from a file of settings."""
    around: Path | None = None
    """The folder of a grid around `out`: it is what is to be resumed."""

    @property
    def places(self) -> DataOptions:
        """Where data lie."""
        return DataOptions(root=self.data_root, download=self.download)

    @property
    def resume_command(self) -> str:
        """The command line that continues the run."""
        folder = str(self.around or self.out)
        words = ["snnprune", self.command, *self.arguments, "--resume", "--out", folder]
        if self.device != "auto":
            words += ["--device", self.device]
        if self.data_root is not None:
            words += ["--data-root", str(self.data_root)]
        for name, text in iter_references(self.recipe.model.args):  # no file names code
            words += ["--set", f"model.args.{name}={text}"]
        return shlex.join(words)
