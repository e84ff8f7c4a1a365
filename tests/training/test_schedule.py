"""Learning rates worked out by hand."""

import math
from typing import Any

import pytest
import torch

from snnprune.recipe.sections import TrainingSection
from snnprune.training.optimization import compute_learning_rate

STEPS_PER_EPOCH = 5


def rates(**settings: Any) -> list[float]:
    """The rate of every step of a run of ten epochs of five steps, with a peak of 0.8."""
    training = TrainingSection(**{"epochs": 10, "learning_rate": 0.8, **settings})
    steps = training.epochs * STEPS_PER_EPOCH
    return [compute_learning_rate(training, step, STEPS_PER_EPOCH) for step in range(steps)]


def test_cosine_starts_at_the_peak_is_half_in_the_middle_and_ends_near_zero() -> None:
    course = rates(schedule="cosine")
    assert course[0] == 0.8
    assert course[25] == pytest.approx(0.4)
    assert course[-1] == pytest.approx(0.4 * (1 + math.cos(math.pi * 49 / 50)))
    assert course == sorted(course, reverse=True)


def test_cosine_by_epochs_is_what_a_scheduler_stepped_once_an_epoch_gives() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.8)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0)
    expected = []
    for _ in range(10):
        expected += [optimizer.param_groups[0]["lr"]] * STEPS_PER_EPOCH
        optimizer.step()
        scheduler.step()
    assert rates(schedule="cosine-epoch") == pytest.approx(expected)


def test_constant_stays() -> None:
    assert set(rates(schedule="constant")) == {0.8}


def test_step_multiplies_at_each_of_its_epochs() -> None:
    course = rates(schedule="step", step_epochs=(3, 7), step_factor=0.5)
    expected = [0.8] * 15 + [0.4] * 20 + [0.2] * 15
    assert course == pytest.approx(expected)


def test_one_cycle_rises_from_a_25th_over_three_tenths_and_falls_to_zero() -> None:
    course = rates(schedule="one-cycle")
    assert course[0] == pytest.approx(0.8 / 25)
    assert course[15] == pytest.approx(0.8)
    assert max(course) == course[15]
    # halfway up and halfway down, where the cosine is zero; 7.5 and 32.5 of 50 steps
    assert (course[7] + course[8]) / 2 == pytest.approx(0.8 * (1 + 1 / 25) / 2)
    assert (course[32] + course[33]) / 2 == pytest.approx(0.4)
    assert course[-1] == pytest.approx(0.4 * (1 + math.cos(math.pi * 34 / 35)))


@pytest.mark.parametrize("schedule", ["cosine", "cosine-epoch", "constant", "step"])
def test_warm_up_is_a_straight_line_to_the_peak(schedule: str) -> None:
    course = rates(schedule=schedule, warmup_epochs=2, step_epochs=(9,))
    assert course[:10] == pytest.approx([0.08 * step for step in range(1, 11)])
    assert course[10] == 0.8


def test_cosine_after_a_warm_up_is_stretched_over_what_is_left() -> None:
    course = rates(schedule="cosine", warmup_epochs=2)
    assert course[30] == pytest.approx(0.4)
    assert course[-1] == pytest.approx(0.4 * (1 + math.cos(math.pi * 39 / 40)))


def test_cosine_by_epochs_after_a_warm_up_has_the_epochs_that_are_left() -> None:
    course = rates(schedule="cosine-epoch", warmup_epochs=2)
    assert course[10:15] == [0.8] * 5
    assert course[30:35] == pytest.approx([0.4] * 5)
    assert course[-5:] == pytest.approx([0.4 * (1 + math.cos(math.pi * 7 / 8))] * 5)


def test_the_epochs_of_a_step_schedule_are_counted_from_the_start_of_the_run() -> None:
    course = rates(schedule="step", warmup_epochs=2, step_epochs=(4,))
    assert course[19] == 0.8
    assert course[20] == pytest.approx(0.08)


def test_a_run_of_one_step_takes_it_at_the_peak() -> None:
    training = TrainingSection(epochs=1, learning_rate=0.5)
    assert compute_learning_rate(training, 0, 1) == 0.5
