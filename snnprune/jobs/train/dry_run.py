"""`--dry-run`: what a run would do and take, told after a batch; nothing is written."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from snnprune.data import DataSet
from snnprune.data.images import ImageSplit
from snnprune.distributed.ranks import choose_device
from snnprune.errors import StoppedError
from snnprune.jobs.train.finetune import FinetuneSources, load_for_finetune, read_sources
from snnprune.jobs.train.looping import make_data_spec
from snnprune.jobs.train.options import FinetuneFiles, LoopOptions
from snnprune.jobs.train.plans import Training, TrainingPlan, make_plan
from snnprune.jobs.train.recipes import require_names
from snnprune.measure import Natural
from snnprune.measure.evaluation import evaluate
from snnprune.recipe.schema import Recipe
from snnprune.report import make_report
from snnprune.training.finetune import make_finetune_recipe, prepare_finetune
from snnprune.training.imp import imp
from snnprune.training.runs import Groups, StopSignal, Unsaved
from snnprune.training.runs.ownership import require_ready
from snnprune.training.search import search
from snnprune.training.setup import TrainingSetup, open_recipe_data, resolve_recipe, set_up
from snnprune.training.tickets import count_parameters
from snnprune.training.train import train_network

T = TypeVar("T")
BATCHES = 2  # the first one pays for what is done once
PATIENCE = 5.0  # seconds; one batch that takes longer is enough


class BatchTimer:
    """Progress that times each batch with the step that is done on it, all in seconds."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begun: float | None = None
        self.given = 0
        self.seconds: list[float] = []

    def is_enough(self) -> bool:
        """Whether the batch at hand is the last that is needed."""
        slow = self.begun is not None and time.monotonic() - self.begun > PATIENCE
        return self.given >= BATCHES or (self.given > 0 and slow)

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002  # see Progress
        """Pass batches on."""
        start = time.monotonic()
        self.begun = self.begun or start
        for item in items:
            self.given += 1
            try:
                yield item
            finally:  # a loop that was left does not come back
                finish_work(self.device)
                start, before = time.monotonic(), start
                self.seconds.append(start - before)

    def within(self, label: str, *, total: int, done: int = 0) -> AbstractContextManager[None]:  # noqa: ARG002  # likewise
        """Nothing around the block."""
        return nullcontext()

    def note(self, text: str) -> None:
        """Say nothing."""

    def announce(self, text: str) -> None:
        """Likewise."""


class TrialStop(StopSignal):
    """True once a loop has done what there is to see."""

    def __init__(self, watch: BatchTimer) -> None:
        super().__init__()
        self.watch = watch

    def __bool__(self) -> bool:
        return self.watch.is_enough()


class StateSizeRun(Unsaved):
    """A run that keeps nothing but the size of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.state_bytes = 0

    def save(self, number: int, position: Mapping[str, Any], groups: Groups) -> None:  # noqa: ARG002  # see Run
        """Weigh the tensors."""
        tensors = (tensor for named in groups.values() for tensor in named.values())
        self.state_bytes = sum(tensor.nbytes for tensor in tensors)


def finish_work(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """Measure the memory of the GPU from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def read_peak_bytes(device: torch.device) -> int:
    """What the GPU had to hold at once, or without one, this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # BSD counts bytes, Linux kilobytes


def count_model_bytes(module: nn.Module) -> int:
    """What its tensors take in a file."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


STATES = 2  # that a run keeps


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run would take; all seeds together where there are several."""

    runs: Natural
    """One for each seed."""
    parameters: Natural
    prunable: Natural
    images: Mapping[str, Natural | None]
    """By split; None where a loader of the user's does not say."""
    steps_per_epoch: Natural
    trainings: tuple[Training, ...]
    """Of one run."""
    epochs: Natural
    steps: Natural
    seconds_per_step: float
    seconds_per_evaluated_batch: float
    seconds: float
    """Of the whole, as estimated."""
    peak_bytes: Natural
    """Of the GPU, or without one, of the process."""
    state_bytes: Natural
    """Of the states that are kept on disk."""
    result_bytes: Natural
    """Of models and masks on disk."""


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """What the first batches of a loop came to."""

    seconds_per_step: float
    peak_bytes: int
    state_bytes: int


def dry_run(
    options: LoopOptions, files: FinetuneFiles | None = None
) -> tuple[DryRun, dict[str, Any]]:
    """Check all that a run checks, train on a batch, evaluate one; what was found, and as report.

    `files` are those of `finetune`.

    Raises:
        SnnpruneError: what the run would raise before or in its first batch.
    """
    sources = read_sources(files) if files else None
    require_names(options.recipe)
    require_ready(options.out, resume=False, force=options.force)
    device = choose_device(options.device)
    recipe = _select_one_run(options.recipe)
    data = open_recipe_data(recipe, options.places)
    recipe = resolve_recipe(recipe, data)
    tried = _try_loop(options.command, recipe, data, device, sources)
    gc.collect()  # the network of the trial
    setup = set_up(make_finetune_recipe(recipe) if sources else recipe, data, device=device)
    masks = load_for_finetune(setup, sources)[0].masks if sources else {}
    plan = make_plan(options.command, setup, masks)
    found = _make_dry_run(setup, plan, tried, runs=max(1, len(options.recipe.seeds)))
    return found, make_report(
        options.command,
        device=device,
        seed=recipe.seed,
        config=options.config,
        inputs=sources.entries if sources else (),
        recipe=options.recipe.model_dump(mode="json"),
        model=recipe.model.model_dump(mode="json"),
        data=make_data_spec(recipe).as_dict(),
        dry_run=asdict(found),
    )


def _select_one_run(recipe: Recipe) -> Recipe:
    if not recipe.seeds:
        return recipe
    return recipe.model_copy(update={"seed": recipe.seeds[0], "seeds": ()})


def _try_loop(
    command: str,
    recipe: Recipe,
    data: DataSet,
    device: torch.device,
    sources: FinetuneSources | None,
) -> TrialOutcome:
    """Run the command's own loop until it has trained on a batch or two."""
    forget_peak(device)
    watch, sizes = BatchTimer(device), StateSizeRun()
    how: dict[str, Any] = {
        "device": device,
        "run": sizes,
        "stop": TrialStop(watch),
        "progress": watch,
    }
    with contextlib.suppress(StoppedError):
        if command == "imp":
            imp(_use_all_steps(recipe), data, **how)
        elif command == "search":
            search(recipe, data, **how)
        elif sources is None:
            train_network(set_up(recipe, data, **how))
        else:
            _try_finetune(set_up(make_finetune_recipe(recipe), data, **how), sources)
    return TrialOutcome(
        seconds_per_step=min(watch.seconds),
        peak_bytes=read_peak_bytes(device),
        state_bytes=sizes.state_bytes,
    )


def _try_finetune(setup: TrainingSetup, sources: FinetuneSources) -> None:
    held, teacher = load_for_finetune(setup, sources)
    train_network(setup, masks=held.masks, objective=prepare_finetune(setup, held.masks, teacher))


def _use_all_steps(recipe: Recipe) -> Recipe:
    """With the network of the last round, which takes the most."""
    if recipe.imp is None:
        return recipe
    section = recipe.imp.model_copy(update={"early_time_steps": None})
    return recipe.model_copy(update={"imp": section})


def _make_dry_run(
    setup: TrainingSetup, plan: TrainingPlan, tried: TrialOutcome, *, runs: int
) -> DryRun:
    evaluated = _time_evaluation(setup)
    weighed = sum(training.steps * training.speed for training in plan.trainings)
    model = count_model_bytes(setup.module)
    return DryRun(
        runs=runs,
        parameters=count_parameters(setup.network),
        prunable=plan.prunable,
        images={name: _count_images(setup.data, name) for name in ("train", "validation", "test")},
        steps_per_epoch=setup.steps_per_epoch,
        trainings=plan.trainings,
        epochs=runs * sum(training.epochs for training in plan.trainings),
        steps=runs * sum(training.steps for training in plan.trainings),
        seconds_per_step=tried.seconds_per_step,
        seconds_per_evaluated_batch=evaluated,
        seconds=runs * (weighed * tried.seconds_per_step + plan.evaluated_batches * evaluated),
        peak_bytes=tried.peak_bytes,
        state_bytes=runs * STATES * (tried.state_bytes + plan.models_in_state * model),
        result_bytes=runs * (plan.models * model + plan.masks * -(-plan.prunable // 8)),
    )


def _time_evaluation(setup: TrainingSetup) -> float:
    """How long a batch takes in eval mode, its spikes counted."""
    batches = setup.calibration_batches(setup.recipe.training.batch_size)
    start = time.monotonic()
    evaluate(setup.network, batches)
    finish_work(setup.device)
    return time.monotonic() - start


def _count_images(data: DataSet, split: str) -> int | None:
    """Images of a split; 0 where there is none."""
    images = getattr(data, split)
    if images is None:
        return 0
    return len(images) if isinstance(images, ImageSplit) else None
