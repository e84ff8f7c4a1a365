"""Several runs of a recipe: one for each of its seeds, and for every network on every data set.

What they come to together is written beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from snnprune.distributed.ranks import choose_device
from snnprune.files.reading import hash_file
from snnprune.files.writing import write_text
from snnprune.jobs.train.dry_run import DryRun, dry_run
from snnprune.jobs.train.looping import Job, LoopRun, Say, draw_grid, draw_run
from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.recipes import require_names
from snnprune.models import build_model
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe, expand_grid
from snnprune.recipe.yaml_text import dump_recipe
from snnprune.report import list_told, make_report
from snnprune.report.curves import (
    CurveSummary,
    SummaryRow,
    describe_curves,
    make_summary_row,
    summarize_runs,
)
from snnprune.report.pages import write_report
from snnprune.runtime import SILENT, Progress, read_process_rank
from snnprune.training.runs.ownership import (
    RECIPE,
    REPORT,
    begin_again,
    find_sums,
    holds_run,
    require_ours,
    require_ready,
    vouch,
)
from snnprune.training.runs.state import require_same
from snnprune.training.setup import open_recipe_data, resolve_recipe, spec_of


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What came of all runs."""

    summary: CurveSummary
    report: Mapping[str, Any]
    finished_before: bool


def run_seeds(
    job: Job, options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> Sweep:
    """Run `job` for the recipe's seed, or for each of its seeds in `OUT/seed-N`, one by one.

    Raises:
        SnnpruneError: whatever ends a run; those before it are whole.
    """
    if not options.recipe.seeds:
        run = job(options, progress, say)
        return Sweep(
            summary=summarize_runs([run.report["tickets"]]),
            report=run.report,
            finished_before=run.finished_before,
        )
    if read_process_rank().first:
        begin_around(options)
    runs = [job(_make_seed_options(options, seed), progress, say) for seed in options.recipe.seeds]
    return _write_sweep(options, runs)


def begin_around(options: LoopOptions, *, begun: bool = False, runs: Collection[str] = ()) -> None:
    """Make the folder around several runs; more seeds may join those that were there.

    `begun`: runs are known to be in it, perhaps of other machines. `runs` are the names of their
    folders, where they are not those of seeds.

    Raises:
        InputError: there is no run to resume, or one of another recipe.
        OutputError: the folder is not free, cannot be written, or what has the name of a file or
            folder of ours is none.
    """
    if not (options.resume and begun):
        require_ready(options.out, resume=options.resume, force=options.force)
    require_ours(options.out, runs)
    path = options.out / RECIPE
    if options.resume and path.exists():  # seeds that ran on other machines made none
        before = load_recipe(str(path))
        now = options.recipe.model_copy(update={"seeds": before.seeds})
        require_same(now, before, options.out)
    begin_again(options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(path, dump_recipe(options.recipe), within=options.out)


def _make_seed_options(options: LoopOptions, seed: int) -> LoopOptions:
    folder = options.out / f"seed-{seed}"
    recipe = options.recipe.model_copy(update={"seed": seed, "seeds": ()})
    return replace(options, recipe=recipe, out=folder, resume=options.resume and holds_run(folder))


def _write_sweep(options: LoopOptions, runs: list[LoopRun]) -> Sweep:
    """Write what the runs come to: pictures and a report of their mean and spread."""
    summary = summarize_runs([run.report["tickets"] for run in runs])
    done = all(run.finished_before for run in runs)
    if not read_process_rank().first:
        return Sweep(summary=summary, report={}, finished_before=done)
    recipe = Recipe.model_validate(runs[0].report["recipe"], strict=False)
    pictures = draw_run(options.out, summary, recipe)
    found = make_report(
        options.command,
        device=choose_device(options.device),
        seed=options.recipe.seeds[0],
        seeds=list(options.recipe.seeds),
        inputs=[
            {"path": str(run.out / REPORT), "sha256": hash_file(run.out / REPORT)} for run in runs
        ],
        warnings=[line for run in runs for line in list_told(run.report)],
        recipe=options.recipe.model_dump(mode="json"),
        model=runs[0].report["model"],
        data=runs[0].report["data"],
        summary=describe_curves(summary),
        outputs=[{"path": str(options.out / name)} for name in pictures],
    )
    pages = [path.name for path in write_report(options.out, found, within=options.out)]
    below = find_sums(options.out, (run.out.name for run in runs))
    vouch(options.out, [RECIPE, *pictures, *pages, *below])
    return Sweep(summary=summary, report=found, finished_before=done)


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """One run, as the report of the grid has it."""

    folder: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    summary: SummaryRow


@dataclass(frozen=True, kw_only=True)
class TriedRun:
    """One run that was tried, likewise."""

    folder: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    dry_run: DryRun


@dataclass(frozen=True, kw_only=True)
class GridResult:
    """What came of all runs."""

    runs: Mapping[str, Sweep]
    """By the name of the folder."""
    report: Mapping[str, Any]

    @property
    def finished_before(self) -> bool:
        """Whether there was nothing left to do."""
        return all(sweep.finished_before for sweep in self.runs.values())


def run_grid(
    job: Job, options: LoopOptions, progress: Progress = SILENT, say: Say = lambda _: None
) -> GridResult:
    """Run `job` for every pair of the recipe's grid, each in `OUT/MODEL-DATA`, all its seeds too.

    Raises:
        SnnpruneError: whatever ends a run; those before it are whole, and the grid can be resumed.
    """
    require_names(options.recipe)
    runs: dict[str, Sweep] = {}
    each = dict(_iter_options(options))
    if read_process_rank().first:
        _require_all(each.values())
        begun = any(own.resume for own in each.values())
        begin_around(options, begun=begun, runs=each.keys())
    for number, (name, own) in enumerate(each.items(), start=1):
        say(f"run {number} of {len(each)}: {name}")
        runs[name] = run_seeds(job, own, progress, say)
    return GridResult(
        runs=runs, report=_write_grid(options, runs) if read_process_rank().first else {}
    )


def dry_grid(options: LoopOptions) -> tuple[Mapping[str, DryRun], dict[str, Any]]:
    """Try every pair of the recipe's grid: what was found by the folder's name, and a report.

    Raises:
        SnnpruneError: what a run would raise before or in its first batch.
    """
    require_ready(options.out, resume=False, force=options.force)
    tried = {name: dry_run(own) for name, own in _iter_options(options)}
    reports = [told for _, told in tried.values()]
    found = make_report(
        options.command,
        device=choose_device(options.device),
        seed=options.recipe.seed,
        recipe=options.recipe.model_dump(mode="json"),
        model=None,
        data=None,
        runs=[
            asdict(TriedRun(folder=name, model=told["model"], data=told["data"], dry_run=one))
            for (name, (one, _)), told in zip(tried.items(), reports, strict=True)
        ],
    )
    return {name: one for name, (one, _) in tried.items()}, found


def _require_all(each: Iterable[LoopOptions]) -> None:
    """Open every data set and build every network once: what the last run needs is there.

    Raises:
        InputError: a data set is missing, or a network cannot be built for it.
    """
    for own in each:
        recipe = resolve_recipe(own.recipe, open_recipe_data(own.recipe, own.places))
        build_model(spec_of(recipe), field="model")


def _iter_options(options: LoopOptions) -> Iterator[tuple[str, LoopOptions]]:
    """The options of each run by the name of its folder."""
    for name, recipe in expand_grid(options.recipe).items():
        folder = options.out / name
        resume = options.resume and holds_run(folder)
        own = replace(options, recipe=recipe, out=folder, around=options.out, resume=resume)
        yield name, own


def _write_grid(options: LoopOptions, runs: Mapping[str, Sweep]) -> dict[str, Any]:
    """Write what the runs come to: a picture and a report of all."""
    reports = {name: sweep.report for name, sweep in runs.items()}
    pictures = draw_grid(
        options.out,
        [(_read_resolved(reports[name]), sweep.summary) for name, sweep in runs.items()],
    )
    paths = [options.out / name / REPORT for name in runs]
    found = make_report(
        options.command,
        device=choose_device(options.device),
        seed=options.recipe.seed,
        inputs=[{"path": str(path), "sha256": hash_file(path)} for path in paths],
        warnings=[
            type(line)(f"{name}: {line}")
            for name, one in reports.items()
            for line in list_told(one)
        ],
        recipe=options.recipe.model_dump(mode="json"),
        model=None,
        data=None,
        runs=[
            asdict(
                GridRun(
                    folder=name,
                    model=reports[name]["model"],
                    data=reports[name]["data"],
                    summary=make_summary_row(sweep.summary),
                )
            )
            for name, sweep in runs.items()
        ],
        outputs=[{"path": str(options.out / name)} for name in pictures],
    )
    pages = [path.name for path in write_report(options.out, found, within=options.out)]
    vouch(options.out, [RECIPE, *pictures, *pages, *find_sums(options.out, runs)])
    return found


def _read_resolved(told: Mapping[str, Any]) -> Recipe:
    """The recipe of a run with what the data filled in, as its report has it."""
    recipe = Recipe.model_validate(told["recipe"], strict=False)
    model = recipe.model.model_copy(update={"args": told["model"]["args"]})
    return recipe.model_copy(update={"model": model})
