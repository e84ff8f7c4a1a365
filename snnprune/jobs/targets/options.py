"""What the command line says of the checkpoint that a command works on, and what options are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from snnprune.data import require_data
from snnprune.errors import InputError, UsageError, layer_name
from snnprune.files.reading import require_readable
from snnprune.jobs.targets.settings import SETTINGS, Config
from snnprune.models import MODELS
from snnprune.plugins.names import require_forward, require_readout
from snnprune.plugins.user_code import is_reference
from snnprune.runtime import require_device_name

CONFIG_PANEL = "Settings of a file"  # of --help


@dataclass(frozen=True, kw_only=True)
class Options:
    """What options derive from; a field that is annotated by typer's Option or Argument is a flag.

    All others keep their default until the command sets them.
    """

    def check(self) -> None:
        """Refuse what is wrong, before the command runs and imports torch."""


@dataclass(frozen=True, kw_only=True)
class FurtherOptions(Options):
    """Options whose flags come last in `--help`, after those of all other options."""


@dataclass(frozen=True, kw_only=True)
class ConfigOptions(FurtherOptions):
    """Which settings hold beside what is typed; see `settings`."""

    KEYS: ClassVar[Collection[str]] = frozenset(SETTINGS)
    """The settings that a command looks at, as far as it has flags of these names."""

    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Settings instead of the nearest snnprune.toml or pyproject.toml.",
            rich_help_panel=CONFIG_PANEL,
            readable=False,
        ),
    ] = None
    no_config: Annotated[
        bool,
        typer.Option("--no-config", help="No file of settings.", rich_help_panel=CONFIG_PANEL),
    ] = False
    trust_config: Annotated[
        bool,
        typer.Option(
            "--trust-config", help="Run code that this file names.", rich_help_panel=CONFIG_PANEL
        ),
    ] = False
    used: Config | None = None
    """What was taken from the file; None where there was none."""

    def check(self) -> None:
        """Refuse a file and none at once."""
        if self.config is not None and self.no_config:
            raise UsageError("either --config or --no-config")
        super().check()


@dataclass(frozen=True, kw_only=True)
class ReadAs:
    """Annotates a field that a command line gives as something else, such as texts for a table."""

    given: Any
    """The type that typer reads."""
    default: Any = None
    """What typer takes where nothing is given; None leaves the field's own default."""
    read: Callable[[Any], Any]
    """From what was given to the field's value; called once all options have been checked."""


FORWARD_HELP = (
    "How a batch is run: whole, repeat:T, steps or file.py:function from model and batch to output."
)
LINK_HELP = "The neuron that a weight drives, or none; repeatable."
TEST_DATA_HELP = "Test samples, where --data has none: as --data."
EVAL_DATA_HELP = "Samples to measure and judge on, neither trained nor calibrated on: as --data."
PANEL = "Network and data"  # of --help


def make_samples_option(help: str) -> typer.models.OptionInfo:
    """`--samples`: how many images, of those that `help` names."""
    option = typer.Option("--samples", metavar="N", min=1, help=help)
    assert isinstance(option, typer.models.OptionInfo)
    return option


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


def _parse_model_args(texts: Iterable[str]) -> dict[str, Any]:
    from snnprune.recipe.loading import parse_settings

    return parse_settings(texts, option="--model-arg")


@dataclass(frozen=True, kw_only=True)
class DataFolderOptions(ConfigOptions):
    """Where data sets lie."""

    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the data sets; by default $SNNPRUNE_DATA or the cache.",
            rich_help_panel=PANEL,
            readable=False,
        ),
    ] = None
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Fetch a data set that is not there.", rich_help_panel=PANEL
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(ConfigOptions):
    """What the work is done on."""

    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu or cuda:N.", rich_help_panel=PANEL)
    ] = "auto"
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Of every random draw.", rich_help_panel=PANEL),
    ] = 0

    def check(self) -> None:
        """Refuse what is the name of no device."""
        require_device_name(self.device)
        super().check()


def require_other_data(test: str | None, evaluation: str | None) -> None:
    """Refuse unknown data sets of `--test-data` and `--eval-data`.

    Raises:
        UsageError: one is unknown.
    """
    for flag, name in (("--test-data", test), ("--eval-data", evaluation)):
        if name is not None:
            require_data(name, field=flag)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(DataFolderOptions):
    """The network of a checkpoint and its data; None is left to the file's own metadata."""

    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Built-in name, package.module:function or file.py:function.",
            rich_help_panel=PANEL,
        ),
    ] = None
    model_args: Annotated[
        Mapping[str, Any],
        ReadAs(given=list[str] | None, read=_parse_model_args),
        typer.Option(
            "--model-arg",
            metavar="K=V",
            help="An argument of the model, module:name for that object; repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = field(default_factory=dict)
    forward: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=FORWARD_HELP, rich_help_panel=PANEL),
    ] = None
    """`file.py:function` that runs a batch; a file never names one."""
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Built-in name, imagefolder:DIR, tensors:FILE, frames:DIR or file.py:function.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def check(self) -> None:
        """Refuse an unknown model, data set or way to run a batch."""
        require_forward(self.forward)
        if self.model is not None:
            MODELS.require(self.model, field="--model")
        self.require_data_name()
        super().check()

    def require_data_name(self) -> None:
        """Refuse an unknown data set."""
        if self.data is not None:
            require_data(self.data)


@dataclass(frozen=True, kw_only=True)
class PassOptions(Options):
    """How images go through the network."""

    readout: str = "auto"
    strict: bool = False
    samples: int = 1024
    """The number of images to calibrate on."""
    hold_out: float = 0.0
    """The part of the user's own images that is set aside where nothing else is to measure on."""

    def check(self) -> None:
        """Refuse an unknown readout."""
        if not is_reference(self.readout):
            require_readout(self.readout)
        super().check()

    def list_inputs(self) -> list[Path]:
        """The files that are read, none of which may be the output."""
        return []


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenNetwork:
    """A network of this process, in place of a checkpoint and names; see `snnprune.api`."""

    name: str
    """Of its class, as `module:Class`."""
    build: Callable[[], Any]
    """Gives a copy of it, at rest and new at each call."""
    device: Any
    """Where it is, a torch.device."""
    batches: Callable[..., Any] | None = None
    """Gives batches, or such by split; None where options name the data."""
    forward: Callable[..., Any] | None = None
    """What the option of this name names, where it is a function."""
    readout: Callable[..., Any] | None = None
    """Likewise."""
    notes: tuple[str, ...] = ()
    """What is odd about it, a line each."""


@dataclass(frozen=True, kw_only=True)
class TargetOptions(NetworkOptions, DeviceOptions, PassOptions):
    """A checkpoint, its network and its data; None is left to the file's own metadata."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT", help="A .safetensors (or its index), .pth or .nir file.", readable=False
        ),
    ]
    links: Annotated[
        Mapping[str, str],
        ReadAs(given=list[str] | None, read=parse_links),
        typer.Option("--link", metavar="WEIGHT=NEURON", help=LINK_HELP, rich_help_panel=PANEL),
    ] = field(default_factory=dict)
    """The neuron that a weight drives, `none` for none, by weight key."""
    exclude: Annotated[
        tuple[str, ...],
        ReadAs(given=list[str] | None, read=tuple),
        typer.Option(
            metavar="GLOB", help="Weights to leave alone; repeatable.", rich_help_panel=PANEL
        ),
    ] = ()
    """Patterns of weights that are left alone."""
    state_dict: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Which of the file's state dicts to read.", rich_help_panel=PANEL
        ),
    ] = None
    allow_nonfinite: Annotated[
        bool,
        typer.Option(
            "--allow-nonfinite",
            help="Take weights that are NaN or infinite for pruned.",
            rich_help_panel=PANEL,
        ),
    ] = False
    batch_size: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Samples per forward pass.", rich_help_panel=PANEL),
    ] = 128
    test_data: str | None = None
    """Another set, whose images are those of the test."""
    eval_data: str | None = None
    """Another set, whose images take the place of validation images."""
    learnt_from: tuple[str, ...] = ()
    """Sets that statistics in a file were taken on."""
    given: GivenNetwork | None = None
    """What takes the place of the checkpoint, which is no more than a name then."""

    def check(self) -> None:
        """Refuse a checkpoint that cannot be read, and other data that are unknown, too."""
        if self.given is None:
            require_readable(self.checkpoint)
        super().check()
        require_other_data(self.test_data, self.eval_data)

    def require_data_name(self) -> None:
        """Refuse an unknown data set, where it is not given itself."""
        if self.given is None or self.given.batches is None:
            super().require_data_name()

    def list_inputs(self) -> list[Path]:
        """The files that are read, those of the checkpoint and of data sets too."""
        from snnprune.checkpoint.containers import files_of

        sets = filter(None, (self.data, self.test_data, self.eval_data))
        named = (name.partition(":") for name in sets)
        places = [Path(place) for form, _, place in named if form == "tensors"]
        files = files_of(self.checkpoint) if self.given is None else []
        return [*files, *places, *super().list_inputs()]


@dataclass(frozen=True, kw_only=True)
class MeasuredOptions(TargetOptions):
    """A checkpoint, its network, its data, and what the command line says it is measured on."""

    test_data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help=TEST_DATA_HELP, rich_help_panel=PANEL),
    ] = None
    eval_data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help=EVAL_DATA_HELP, rich_help_panel=PANEL),
    ] = None


def find_excluded(names: Mapping[str, Sequence[str]], patterns: Iterable[str]) -> tuple[str, ...]:
    """The keys of `names` of which one name fits one of `patterns`.

    `names` holds all names of each prunable weight by its key; a pattern may leave out the
    `.weight` at the end.

    Raises:
        InputError: a pattern fits none, or together they fit all.
    """
    found = set[str]()
    for pattern in patterns:
        fitting = {key for key, known in names.items() if matches_pattern(known, pattern)}
        if not fitting:
            some = ", ".join(list(names)[:5])
            raise InputError(
                f"{pattern!r} fits no prunable weight", field="--exclude", hint=f"there are {some}"
            )
        found |= fitting
    if found and len(found) == len(names):
        raise InputError("leaves nothing to prune", field="--exclude")
    return tuple(key for key in names if key in found)


def matches_pattern(names: Sequence[str], pattern: str) -> bool:
    """Whether one of a weight's names fits a pattern, with or without its `.weight`."""
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(layer_name(name), pattern) for name in names
    )
