"""Learning rates as a function of the step, so that a schedule has no state to save."""

import math

from snnprune.recipe import TrainingSection

ONE_CYCLE_RISE = 0.3  # share of the steps until the peak
ONE_CYCLE_START = 1 / 25  # of the peak


def learning_rate(training: TrainingSection, step: int, steps_per_epoch: int) -> float:
    """The rate of step `step` (from 0) of the whole run."""
    warmup = training.warmup_epochs * steps_per_epoch
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    steps = training.epochs * steps_per_epoch - warmup
    done = (step - warmup) / steps
    if training.schedule == "cosine-epoch":  # as a scheduler that is stepped once an epoch
        epoch = (step - warmup) // steps_per_epoch
        done = epoch / (training.epochs - training.warmup_epochs)
    return training.learning_rate * _factor(training, done, step // steps_per_epoch)


def _factor(training: TrainingSection, done: float, epoch: int) -> float:
    """What is left of the full rate after the share `done` of the run, in `epoch`."""
    if training.schedule in ("cosine", "cosine-epoch"):
        return (1 + math.cos(math.pi * done)) / 2
    if training.schedule == "step":
        passed = sum(epoch >= milestone for milestone in training.step_epochs)
        return float(training.step_factor**passed)
    if training.schedule == "one-cycle":
        return _one_cycle(done)
    return 1.0


def _one_cycle(done: float) -> float:
    """Cosine up to the peak and down again; Smith and Topin 2017, arXiv 1708.07120."""
    if done < ONE_CYCLE_RISE:
        rise = (1 - math.cos(math.pi * done / ONE_CYCLE_RISE)) / 2
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * rise
    return (1 + math.cos(math.pi * (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))) / 2
