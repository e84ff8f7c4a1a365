"""What the commands that train have around their loops: the run folder, signals, a way to go on."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from snnprune.data import DataOptions, DataSet
from snnprune.device import choose_device
from snnprune.errors import InputError, NonFiniteError, OutputError, StoppedError
from snnprune.files import write_json
from snnprune.jobs.recipes import require_names
from snnprune.loops.resolving import open_recipe_data, resolved, spec_of
from snnprune.provenance import DataSpec, described
from snnprune.recipe import Recipe
from snnprune.report import report
from snnprune.runs import RunFolder, Stop, made_with, open_run, require_ready, stopping
from snnprune.runs.folder import RECIPE, REPORT

Say = Callable[[str], None]


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

    @property
    def places(self) -> DataOptions:
        """Where data lie."""
        return DataOptions(root=self.data_root, download=self.download)

    @property
    def resume_command(self) -> str:
        """The command line that continues the run."""
        words = ["snnprune", self.command, *self.arguments, "--resume", "--out", str(self.out)]
        if self.device != "auto":
            words += ["--device", self.device]
        if self.data_root is not None:
            words += ["--data-root", str(self.data_root)]
        return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class LoopRun:
    """What came of a run."""

    out: Path
    report: Mapping[str, Any]
    finished_before: bool = False
    """There was nothing left to do."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A folder that is ours, and what the loop needs."""

    options: LoopOptions
    recipe: Recipe
    """With what the data filled in."""
    data: DataSet
    device: torch.device
    run: RunFolder
    stop: Stop

    def finish(
        self, outputs: Sequence[str], *, inputs: Sequence[Mapping[str, str]] = (), **findings: Any
    ) -> LoopRun:
        """Write the report about what the loop found and left in `outputs`; then `DONE`."""
        found = report(
            self.options.command,
            device=self.device,
            seed=self.recipe.seed,
            inputs=inputs,
            warnings=self.run.warnings,
            recipe=self.run.recipe.model_dump(mode="json"),
            model=self.recipe.model.model_dump(mode="json"),
            data=asdict(data_spec(self.recipe)),
            **findings,
            outputs=[{"path": str(self.run.folder / name)} for name in outputs],
        )
        write_json(self.run.folder / REPORT, found)
        self.run.finish([*outputs, REPORT])
        return LoopRun(out=self.run.folder, report=found)


@contextlib.contextmanager
def working(options: LoopOptions, say: Say = lambda _: None) -> Iterator[Work]:
    """The block in which a loop runs; everything that can be refused early is.

    Raises:
        InputError: the recipe cannot be trained, or there is no such run to resume.
        OutputError: the folder is in use, is not free, or cannot be written.
        NonFiniteError: the loss became NaN or infinite.
        StoppedError: a signal came; the run can be resumed.
    """
    require_names(options.recipe)
    require_ready(options.out, resume=options.resume, force=options.force)
    device = choose_device(options.device)
    data = open_recipe_data(options.recipe, options.places)
    recipe = resolved(options.recipe, data)
    metadata = described(options.command, model=spec_of(recipe), data=data_spec(recipe))
    taken = open_run(
        options.out,
        recipe,
        made_with(device),
        metadata=metadata,
        resume=options.resume,
        force=options.force,
        say=say,
    )
    with taken as run, _telling_how_to_go_on(options, run), stopping() as stop:
        yield Work(options=options, recipe=recipe, data=data, device=device, run=run, stop=stop)


def as_it_was(run: RunFolder) -> LoopRun:
    """The result of a run that was finished before.

    Raises:
        InputError: its report cannot be read.
    """
    path = run.folder / REPORT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot be read: {error}", file=path, hint="--force trains again"
        ) from error
    return LoopRun(out=run.folder, report=found, finished_before=True)


def data_spec(recipe: Recipe) -> DataSpec:
    """The data of a recipe, as its checkpoints remember them."""
    return DataSpec(name=recipe.data.name, validation=recipe.data.validation, seed=recipe.seed)


@contextlib.contextmanager
def _telling_how_to_go_on(options: LoopOptions, run: RunFolder) -> Iterator[None]:
    """Errors that end a run name the command or the state from which it goes on."""
    try:
        yield
    except StoppedError as error:
        error.hint = f"to go on: {options.resume_command}"
        raise
    except OutputError as error:
        if (run.folder / RECIPE).exists():
            error.hint = f"free some space, then: {options.resume_command}"
        raise
    except NonFiniteError as error:
        if last := run.states.newest_path():
            error.hint = f"{error.hint}; the last good state is {last}"
        raise
