"""One run, or several that differ by their seed, and what they come to together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from snnprune.distributed.device import choose_device
from snnprune.files.writing import hash_file, write_text
from snnprune.jobs.train.looping import LoopOptions, LoopRun, Say
from snnprune.jobs.train.pictures import draw_run
from snnprune.recipe.dumping import dump_recipe
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe
from snnprune.report.curves import CurveSummary, describe_curves, summarize_runs
from snnprune.report.frame import make_report
from snnprune.report.pages.writing import write_report
from snnprune.runtime import SILENT, Progress, read_process_rank
from snnprune.training.runs.changes import require_same
from snnprune.training.runs.opening import holds_run, require_ready
from snnprune.training.runs.ownership import (
    RECIPE,
    REPORT,
    begin_again,
    find_sums,
    require_ours,
    vouch,
)

Job = Callable[[LoopOptions, Progress, Say], LoopRun]


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
        warnings=[warning for run in runs for warning in run.report["warnings"]],
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
