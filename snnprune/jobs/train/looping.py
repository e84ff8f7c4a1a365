"""What the commands that train have around their loops: run folder, signals, reports, going on."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from snnprune.data import DataSet, DataSpec
from snnprune.distributed.ranks import Ranks, choose_device, join_ranks
from snnprune.errors import (
    InputError,
    NonFiniteError,
    OutputError,
    StoppedError,
    convert_torch_error,
    says_out_of_memory,
)
from snnprune.files.writing import replace_together, write_text
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.recipes import require_names
from snnprune.measure import Natural
from snnprune.models import read_argument
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import TrainingSection
from snnprune.report import curves, doubt_evaluation, make_report
from snnprune.report.curves import CurveSummary, format_markdown_table
from snnprune.report.pages import write_report
from snnprune.report.plots.accuracy import Tile, plot_grid, plot_search, plot_tickets
from snnprune.report.plots.layers import plot_densities, plot_firing_rates
from snnprune.report.schema import AsDict, Evaluation, File, Frame, closed
from snnprune.runtime import Progress
from snnprune.training import EDGE_POPUP
from snnprune.training.early_bird import describe_early_tickets
from snnprune.training.runs import Run, SharedRun, SharedStop, StopSignal, catch_signals
from snnprune.training.runs.folder import RunFolder, open_run
from snnprune.training.runs.ownership import RECIPE, REPORT, SHOWN, require_ready
from snnprune.training.runs.state import collect_conditions
from snnprune.training.setup import open_recipe_data, resolve_recipe, spec_of
from snnprune.training.tickets import Epoch, Ticket

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class LoopRun:
    """What came of a run."""

    out: Path
    report: Mapping[str, Any]
    finished_before: bool = False
    """There was nothing left to do."""


Job = Callable[[LoopOptions, Progress, Say], LoopRun]
"""What runs a recipe by one of the loops."""


@dataclass(frozen=True, kw_only=True)
class LoopJob:
    """What a loop needs, and the folder that its run is kept in."""

    options: LoopOptions
    recipe: Recipe
    """With what the data filled in."""
    data: DataSet
    device: torch.device
    ranks: Ranks
    folder: RunFolder | None
    """Ours; None on all ranks but the first."""
    run: Run
    stop: StopSignal
    finished: bool
    """Whether the folder holds a whole run that is to be left alone."""

    def by_first(self, ending: Callable[[RunFolder], LoopRun]) -> LoopRun:
        """What `ending` gives on the first rank, where the folder is; the others wait for it."""
        return self.ranks.by_first(lambda: ending(self._get_folder()))

    def read_result(self) -> LoopRun:
        """The result of a run that was finished before.

        Raises:
            InputError: its report cannot be read.
        """
        return self.by_first(_read_back)

    def finish(
        self, outputs: Sequence[str], *, inputs: Sequence[Mapping[str, str]] = (), **findings: Any
    ) -> LoopRun:
        """Write the report about what the loop found and left in `outputs`; then `DONE`."""
        folder = self._get_folder()
        found = make_report(
            self.options.command,
            device=self.device,
            seed=self.recipe.seed,
            config=self.options.config,
            inputs=inputs,
            warnings=list(
                dict.fromkeys(
                    [
                        *folder.warnings,
                        *self.data.doubts,
                        *_list_idle_settings(self.recipe, self.options.command),
                        *_iter_doubts(folder.rows, self.data.noun),
                        *_iter_overflows(folder.rows),
                        *describe_early_tickets(folder.rows),
                    ]
                )
            ),
            recipe=folder.recipe.model_dump(mode="json"),
            model=self.recipe.model.model_dump(mode="json"),
            data=make_data_spec(self.recipe).as_dict(),
            **findings,
            outputs=[{"path": str(folder.folder / name)} for name in outputs],
        )
        pages = write_report(folder.folder, found, within=folder.folder)
        folder.finish([*outputs, *(path.name for path in pages)])
        return LoopRun(out=folder.folder, report=found)

    def _get_folder(self) -> RunFolder:
        assert self.folder is not None
        return self.folder


@contextlib.contextmanager
def prepare_loop(options: LoopOptions, say: Say = lambda _: None) -> Iterator[LoopJob]:
    """The block in which a loop runs; everything that can be refused early is.

    Raises:
        InputError: the recipe cannot be trained, or there is no such run to resume.
        OutputError: the folder is in use, is not free, or cannot be written.
        NonFiniteError: the loss became NaN or infinite.
        StoppedError: a signal came; the run can be resumed.
    """
    require_names(options.recipe)
    with join_ranks(options.device) as ranks, contextlib.ExitStack() as stack:
        if ranks.first:
            require_ready(options.out, resume=options.resume, force=options.force)
        device = choose_device(options.device)
        with ranks.one_before_others(options.download):
            data = open_recipe_data(options.recipe, options.places)
        recipe = resolve_recipe(options.recipe, data)
        made = collect_conditions(device, ranks.size)
        folder = _open_run_folder(options, recipe, made, say, stack) if ranks.first else None
        stop = stack.enter_context(catch_signals())
        together = ranks.size > 1
        yield LoopJob(
            options=options,
            recipe=recipe,
            data=data,
            device=device,
            ranks=ranks,
            folder=folder,
            run=folder if folder and not together else SharedRun(folder, ranks),
            stop=SharedStop(stop, ranks) if together else stop,
            finished=bool(ranks.share(folder.is_finished() if folder else None)),
        )


def _open_run_folder(
    options: LoopOptions,
    recipe: Recipe,
    made: Mapping[str, str],
    say: Say,
    stack: contextlib.ExitStack,
) -> RunFolder:
    """The run's folder, locked until `stack` is left."""
    metadata = make_metadata(options.command, model=spec_of(recipe), data=make_data_spec(recipe))
    folder = stack.enter_context(
        open_run(
            options.out,
            recipe,
            made,
            metadata=metadata,
            resume=options.resume,
            force=options.force,
            say=say,
            allowed=options.allowed,
        )
    )
    stack.enter_context(_explain_resume(options, folder))
    return folder


def _iter_doubts(rows: Sequence[Mapping[str, Any]], noun: str) -> Iterator[str]:
    """On what each network of a run does on the images that it was measured on."""
    for row in rows:
        if row["kind"] == "ticket":
            name = f"{row['method']} at {row['sparsity_asked']:.0%}"
            yield from doubt_evaluation(row["test"] or row.get("measured"), of=name, noun=noun)


def _iter_overflows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How many batches nothing was learnt from."""
    if skipped := sum(row.get("skipped", 0) for row in rows):
        batches = "batch" if skipped == 1 else "batches"
        yield f"the gradient of {skipped} {batches} overflowed in fp16: no step was taken with them"


def _list_idle_settings(recipe: Recipe, command: str) -> list[str]:
    """What the recipe asks for and nothing comes of."""
    section = recipe.imp
    if command != "imp" or section is None or section.early_bird is None:
        return []
    if section.drawn_while_dense or len(section.targets) > 1:
        return []
    return [
        "imp.early_bird ends no round here: the dense run and the last round are trained whole, "
        "and there is one round; more sparsities give it some to end"
    ]


def _read_back(folder: RunFolder) -> LoopRun:
    path = folder.folder / REPORT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _make_report_adapter().validate_python(found, strict=True)  # "0.5" is no number
    except ValidationError as error:
        raise InputError(
            "is no report of a run that came to its end", file=path, hint="--force trains again"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"cannot be read: {error}", file=path, hint="--force trains again"
        ) from error
    return LoopRun(out=folder.folder, report=found, finished_before=True)


@functools.cache
def _make_report_adapter() -> TypeAdapter[Any]:
    """Those that the loops write."""
    return TypeAdapter(Train | Finetune | Tickets)


def make_data_spec(recipe: Recipe) -> DataSpec:
    """The data of a recipe, as its checkpoints remember them."""
    data = recipe.data
    return DataSpec(
        name=data.name,
        validation=0.0 if data.evaluation else data.validation,
        seed=recipe.seed,
        evaluation=data.evaluation,
    )


@contextlib.contextmanager
def _explain_resume(options: LoopOptions, run: RunFolder) -> Iterator[None]:
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
        if last := run.states.find_newest():
            error.hint = f"{error.hint}; the last good state is {last}"
        raise
    except Exception as error:
        known = convert_torch_error(error)
        if known is None:
            raise
        if says_out_of_memory(error):
            known.hint = _suggest_less_memory(options.recipe.training)
        raise known from error


def _suggest_less_memory(training: TrainingSection) -> str:
    """How a step takes less memory; the pieces of a batch give the same steps."""
    half = max(1, training.batch_size // 2)
    return (
        f"begin again with --set training.accumulate={2 * training.accumulate}, which takes each "
        f"batch in pieces, or --set training.batch_size={half}"
    )


Point = Annotated[curves.PointRow, AsDict(name="Point")]
Summary = Annotated[
    curves.SummaryRow,
    AsDict(name="Summary", more={"dense": Point | None, "points": list[Point]}),
]


class Trained(Frame):
    recipe: dict[str, Any]
    epochs: list[Epoch]
    best: Epoch | None
    test: Evaluation | None
    tickets: list[Ticket]
    outputs: list[File]


@closed
class Train(Trained):
    command: Literal["train"]


Masks = TypedDict("Masks", {"from": str, "pruned": Natural, "prunable": Natural})


@closed
class Finetune(Trained):
    command: Literal["finetune"]
    before: Evaluation | None
    masks: Masks


@closed
class Tickets(Frame):
    command: Literal["imp", "search"]
    recipe: dict[str, Any]
    tickets: list[Ticket]
    summary: Summary
    outputs: list[File]


SUFFIXES = (".png", ".svg")
TABLE = "table.md"


def draw_run(folder: Path, summary: CurveSummary, recipe: Recipe) -> list[str]:
    """Draw accuracy, densities and firing rates into the run's `folder`, and a table; their names.

    There is nothing to draw of runs that pruned nothing.

    Raises:
        OutputError: a file cannot be written.
    """
    if not summary.points:
        return []
    with replace_together(*(folder / name for name in SHOWN), within=folder) as staged:
        return _draw_pictures(staged[0].parent, summary, recipe)


def _draw_pictures(folder: Path, summary: CurveSummary, recipe: Recipe) -> list[str]:
    searched = EDGE_POPUP in summary.list_methods()
    conditions = format_conditions(recipe, searched=searched)
    classes = _count_classes(recipe)
    pictures = {"densities": plot_densities, "firing-rates": plot_firing_rates}
    if searched and classes is not None:
        plot_search(_list_paths(folder, "accuracy"), summary, conditions, classes)
    else:
        plot_tickets(_list_paths(folder, "accuracy"), summary, conditions)
    for name, plot in pictures.items():
        plot(_list_paths(folder, name), summary, conditions)
    write_text(folder / TABLE, f"{conditions}\n\n{format_markdown_table(summary)}\n")
    names = [path.name for name in ("accuracy", *pictures) for path in _list_paths(folder, name)]
    return [*names, TABLE]


def draw_grid(folder: Path, runs: Sequence[tuple[Recipe, CurveSummary]]) -> list[str]:
    """Draw the accuracies of several networks and data sets into `folder`, and their tables.

    The recipes are resolved. There is nothing to draw of runs that pruned nothing.

    Raises:
        OutputError: a file cannot be written.
    """
    searched = any(EDGE_POPUP in summary.list_methods() for _, summary in runs)
    tiles = [
        Tile(
            title=format_conditions(recipe, searched=searched),
            summary=summary,
            classes=_count_classes(recipe),
        )
        for recipe, summary in runs
        if summary.points
    ]
    if not tiles:
        return []
    texts = (f"{tile.title}\n\n{format_markdown_table(tile.summary)}" for tile in tiles)
    paths = [*_list_paths(folder, "accuracy"), folder / TABLE]
    with replace_together(*paths, within=folder) as (*pictures, table):
        plot_grid(pictures, tiles, searched=searched)
        write_text(table, "\n".join(texts))
    return [path.name for path in paths]


def format_conditions(recipe: Recipe, *, searched: bool = False) -> str:
    """What a number of the run depends on, in a line."""
    steps = read_argument(spec_of(recipe), "time_steps", field="model.name")
    time = [] if steps is None else [f"T = {steps}"]
    return ", ".join([recipe.model.name, *time, recipe.data.name, _format_epochs(recipe, searched)])


def _count_classes(recipe: Recipe) -> int | None:
    classes = read_argument(spec_of(recipe), "classes", field="model.name")
    return classes if isinstance(classes, int) else None


def _format_epochs(recipe: Recipe, searched: bool) -> str:
    """How long the networks were trained, and the scores where that differs."""
    epochs = recipe.training.epochs
    text = f"{epochs} epoch{'s' * (epochs != 1)}"
    own = recipe.search.epochs if searched and recipe.search else None
    return text if own in (None, epochs) else f"{text} (scores {own})"


def _list_paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{suffix}" for suffix in SUFFIXES]
