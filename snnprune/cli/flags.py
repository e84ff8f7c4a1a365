"""Flags that several commands share, written down once.

A command takes `subject: SubjectFlags` and `spreading.spread` gives it one flag per field.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.cli.spreading import Flags
from snnprune.criteria import CRITERIA
from snnprune.errors import UsageError
from snnprune.forwards import require_forward
from snnprune.gates.limits import points
from snnprune.readable import require_readable
from snnprune.spelling import percent_meant

if TYPE_CHECKING:
    from snnprune.jobs.pruning.options import Target
    from snnprune.jobs.subjects.options import SubjectOptions

FORWARD_HELP = (
    "How a batch is run: whole, repeat:T, steps or file.py:function from model and batch to output."
)
READOUT_HELP = "auto, sum, mean or last over time, or file.py:function from output to scores."
LINK_HELP = "The neuron that a weight drives, or none; repeatable."
CRITERION_HELP = (
    f"{', '.join(CRITERIA.rows)} or file.py:function; by default what is best known to work."
)
HOLD_OUT = 0.1
"""The part of images that nobody says the use of, which is not calibrated on but measured on."""
TEST_DATA_HELP = "Test images, where --data has none: as --data."
EVAL_DATA_HELP = "Images to measure and judge on, neither trained nor calibrated on: as --data."

OUTPUT, INPUT = "Output", "Network and data"  # panels of --help


ReportFlag = Annotated[
    Path | None,
    typer.Option(
        "--report", metavar="DIR", help="Folder for report.html, .md and .json.", readable=False
    ),
]
StrictFlag = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a neuron whose spikes cannot be explained, not warn."),
]
TrustFlag = Annotated[
    bool,
    typer.Option("--trust-recipe", help="Run code that the recipe alone names, this time."),
]
ReadoutFlag = Annotated[str, typer.Option(metavar="NAME", help=READOUT_HELP)]


@dataclass(frozen=True, kw_only=True)
class ShowFlags(Flags):
    """How a command talks."""

    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object, nothing else.", rich_help_panel=OUTPUT),
    ] = False
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="No progress, no tables; the lines below them stay.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Tracebacks of your own code.", rich_help_panel=OUTPUT
        ),
    ] = False
    no_color: Annotated[
        bool,
        typer.Option("--no-color", help="Plain text; so does NO_COLOR.", rich_help_panel=OUTPUT),
    ] = False


@dataclass(frozen=True, kw_only=True)
class DataFlags(Flags):
    """Where data sets lie."""

    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the data sets; by default $SNNPRUNE_DATA or the cache.",
            rich_help_panel=INPUT,
            readable=False,
        ),
    ] = None
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Fetch a data set that is not there.", rich_help_panel=INPUT
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ReportFlags(Flags):
    """Where a command that writes nothing else leaves its report."""

    report: ReportFlag = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing report.")] = False


@dataclass(frozen=True, kw_only=True)
class RunFlags(Flags):
    """What the work is done on."""

    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu or cuda:N.", rich_help_panel=INPUT)
    ] = "auto"
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Of every random draw.", rich_help_panel=INPUT),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class NetworkFlags(DataFlags):
    """The network of a checkpoint and its data; what is left out is read off its metadata."""

    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Built-in name, package.module:function or file.py:function.",
            rich_help_panel=INPUT,
        ),
    ] = None
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V",
            help="An argument of the model, module:name for that object; repeatable.",
            rich_help_panel=INPUT,
        ),
    ] = None
    forward: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=FORWARD_HELP, rich_help_panel=INPUT),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Built-in name, imagefolder:DIR, tensors:FILE or file.py:function.",
            rich_help_panel=INPUT,
        ),
    ] = None

    def check(self) -> None:
        """Refuse an unknown way to run a batch."""
        require_forward(self.forward)

    def subject(self, checkpoint: Path, *, state_dict: str | None) -> SubjectOptions:
        """What these flags ask for, of that checkpoint, on the CPU.

        Raises:
            UsageError: a `--model-arg` is not of its form.
        """
        from snnprune.jobs.subjects.options import SubjectOptions
        from snnprune.recipe import parse_settings

        return SubjectOptions(
            checkpoint=checkpoint,
            model=self.model,
            model_args=parse_settings(self.model_arg or [], option="--model-arg"),
            forward=self.forward,
            state_dict=state_dict,
            data=self.data,
            data_root=self.data_root,
            download=self.download,
            device="cpu",
        )


@dataclass(frozen=True, kw_only=True)
class SubjectFlags(NetworkFlags, RunFlags):
    """A checkpoint, its network and its data. What is left out is read off the file's metadata."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT", help="A .safetensors (or its index), .pth or .nir file.", readable=False
        ),
    ]
    link: Annotated[
        list[str] | None,
        typer.Option(metavar="WEIGHT=NEURON", help=LINK_HELP, rich_help_panel=INPUT),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Weights to leave alone; repeatable.", rich_help_panel=INPUT
        ),
    ] = None
    state_dict: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Which of the file's state dicts to read.", rich_help_panel=INPUT
        ),
    ] = None
    allow_nonfinite: Annotated[
        bool,
        typer.Option(
            "--allow-nonfinite",
            help="Take weights that are NaN or infinite for pruned.",
            rich_help_panel=INPUT,
        ),
    ] = False
    batch_size: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Images per forward pass.", rich_help_panel=INPUT),
    ] = 128

    def check(self) -> None:
        """Refuse a checkpoint that cannot be read, too."""
        require_readable(self.checkpoint)
        super().check()

    def options(
        self,
        samples: int = 1024,
        *,
        readout: str = "auto",
        strict: bool = False,
        hold_out: float = 0.0,
    ) -> SubjectOptions:
        """What these flags ask for; `samples` is the number of images to calibrate on.

        `hold_out` is the part of one's own images that is set aside.

        Raises:
            UsageError: a `--model-arg` or `--link` is not of its form.
        """
        links = parse_links(self.link or [])
        from snnprune.jobs.subjects.options import SubjectOptions
        from snnprune.recipe import parse_settings

        return SubjectOptions(
            checkpoint=self.checkpoint,
            model=self.model,
            model_args=parse_settings(self.model_arg or [], option="--model-arg"),
            forward=self.forward,
            readout=readout,
            state_dict=self.state_dict,
            allow_nonfinite=self.allow_nonfinite,
            exclude=tuple(self.exclude or ()),
            links=links,
            strict=strict,
            data=self.data,
            data_root=self.data_root,
            download=self.download,
            device=self.device,
            batch_size=self.batch_size,
            samples=samples,
            hold_out=hold_out,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class MeasuredFlags(SubjectFlags):
    """A checkpoint, its network, its data, and what it is measured on."""

    test_data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help=TEST_DATA_HELP, rich_help_panel=INPUT),
    ] = None
    eval_data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help=EVAL_DATA_HELP, rich_help_panel=INPUT),
    ] = None

    def options(
        self,
        samples: int = 1024,
        *,
        readout: str = "auto",
        strict: bool = False,
        hold_out: float = 0.0,
    ) -> SubjectOptions:
        """As before, with the sets that it is measured on."""
        options = super().options(samples, readout=readout, strict=strict, hold_out=hold_out)
        return replace(options, test_data=self.test_data, eval_data=self.eval_data)


@dataclass(frozen=True, kw_only=True)
class ScoringFlags(Flags):
    """How weights are scored."""

    criterion: Annotated[str | None, typer.Option(metavar="NAME", help=CRITERION_HELP)] = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Statistics that calibrate wrote, instead of a new pass.",
            readable=False,
        ),
    ] = None
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training images to calibrate on.")
    ] = 1024
    strict: StrictFlag = False
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False

    def check(self) -> None:
        """Refuse an unknown criterion."""
        if self.criterion is not None:
            CRITERIA.require(self.criterion, field="--criterion")


@dataclass(frozen=True, kw_only=True)
class GoalFlags(Flags):
    """How much is pruned: so much, or as much as an accuracy allows."""

    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="S[,S...]",
            help="Share of the weights to prune, in [0, 1); several make a file each.",
        ),
    ] = None
    target_accuracy: Annotated[
        float | None,
        typer.Option(metavar="A", help="The highest sparsity with this validation accuracy."),
    ] = None
    max_accuracy_drop: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help="Likewise, so many percentage points below dense; beside --sparsity a gate.",
        ),
    ] = None
    resolution: Annotated[
        float, typer.Option(metavar="S", help="Of the sparsity that is looked for.")
    ] = 0.005

    def check(self) -> None:
        """Refuse a sparsity that is no number, and a drop that is none."""
        parse_sparsities(self.sparsity)
        if self.max_accuracy_drop is not None:
            points(self.max_accuracy_drop, "--max-accuracy-drop")

    @property
    def sparsities(self) -> tuple[float, ...]:
        """Each of them."""
        return parse_sparsities(self.sparsity)

    @property
    def target(self) -> Target | None:
        """What to look for, where that is asked for."""
        from snnprune.jobs.pruning.options import Target

        drop = self.max_accuracy_drop if self.gated_drop is None else None
        if self.target_accuracy is None and drop is None:
            return None
        return Target(
            accuracy=self.target_accuracy,
            drop=None if drop is None else float(drop),
            resolution=self.resolution,
        )

    @property
    def gated_drop(self) -> str | None:
        """`--max-accuracy-drop` where it is a gate: nothing is to be looked for."""
        return None if self.sparsity is None else self.max_accuracy_drop


def parse_sparsities(text: str | None, *, field: str = "--sparsity") -> tuple[float, ...]:
    """The numbers of `0.5,0.7,0.9`; none of nothing.

    Raises:
        UsageError: a part is no number.
    """
    return () if text is None else tuple(_sparsity(part.strip(), field) for part in text.split(","))


def _sparsity(text: str, field: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a number", field=field, hint=percent_meant(text)
        ) from None


def parse_links(texts: Iterable[str]) -> dict[str, str]:
    """The neuron that each weight drives, by weight key, from `WEIGHT=NEURON` texts.

    Raises:
        UsageError: one is not of that form, or a weight is given two neurons.
    """
    links: dict[str, str] = {}
    for text in texts:
        weight, _, neuron = text.partition("=")
        if not weight or not neuron:
            raise UsageError(
                f"{text!r} is not of the form WEIGHT=NEURON",
                field="--link",
                hint="inspect names both; WEIGHT=none is for a weight that drives none",
            )
        if links.setdefault(weight, neuron) != neuron:
            raise UsageError(f"{weight} is given {links[weight]} and {neuron}", field="--link")
    return links
