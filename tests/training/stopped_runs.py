"""Runs that are stopped while a chosen batch is trained on, and all that they leave."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from snnprune.errors import StoppedError
from snnprune.jobs.train import looping
from snnprune.jobs.train.looping import LoopRun
from snnprune.jobs.train.options import LoopOptions
from snnprune.training.runs import StopSignal
from snnprune.training.step import Trainer


class After(StopSignal):
    """A stop that is asked for while that batch, from 1, is trained on."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.left = batch

    def __bool__(self) -> bool:
        return self.left <= 0


@contextlib.contextmanager
def stopped_after(batch: int) -> Iterator[None]:
    """In the block a run is stopped so."""
    stop, train_on = After(batch), Trainer.train_on

    def counting(trainer: Trainer, x: Tensor, y: Tensor) -> tuple[float, int]:
        done = train_on(trainer, x, y)
        stop.left -= 1
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_on", counting)
        patch.setattr(looping, "catch_signals", lambda: contextlib.nullcontext(stop))
        yield


def stopped_after_every_step(job: Callable[[LoopOptions], LoopRun], asked: LoopOptions) -> int:
    """Run it to its end, a batch at a time; how many there were."""
    for done in range(200):
        try:
            with stopped_after(1):
                job(replace(asked, resume=done > 0))
        except StoppedError:
            continue
        return done + 1
    raise AssertionError("it does not end")


def results(folder: Path) -> dict[str, bytes]:
    """All that a run keeps but its states and its report, which tells of times and machines."""
    kept = [path for path in folder.rglob("*.safetensors") if path.parent.name != "state"]
    tables = [folder / name for name in ("metrics.jsonl", "recipe.yaml")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*kept, *tables]}
