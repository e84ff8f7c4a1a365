"""Inputs as membranes add them up, against loops by hand."""

import pytest
import torch
from pruned_networks import made
from torch import Tensor

from snnprune.measure.layer_inputs import InputCourse, find_course

STEPS, SAMPLES, DECAY = 4, 3, 0.5


def inputs() -> Tensor:
    """(T, N, C, H)"""
    return torch.rand(STEPS, SAMPLES, 2, 5, generator=torch.Generator().manual_seed(0))


def added_up(x: Tensor, decay: float) -> Tensor:
    """v_t = decay v_{t-1} + x_t, (T, ...)."""
    found = [x[0]]
    for now in x[1:]:
        found.append(decay * found[-1] + now)
    return torch.stack(found)


def course(calls: int, *, ends: bool = False, batch_first: bool = False) -> InputCourse:
    return InputCourse(calls=calls, steps=STEPS, decay=DECAY, ends=ends, batch_first=batch_first)


def test_all_steps_at_once_are_added_up_along_time() -> None:
    x = inputs()
    found = course(1).begun(SAMPLES)(x.flatten(0, 1))
    torch.testing.assert_close(found, added_up(x, DECAY).flatten(0, 1))


def test_where_samples_come_first_each_has_its_steps_beside_each_other() -> None:
    x = inputs()
    found = course(1, batch_first=True).begun(SAMPLES)(x.transpose(0, 1).flatten(0, 1))
    torch.testing.assert_close(found, added_up(x, DECAY).transpose(0, 1).flatten(0, 1))


@pytest.mark.parametrize(
    ("name", "expected"), [("sinabs", True), ("snnTorch", False), ("SpikingJelly at once", False)]
)
def test_samples_come_first_where_the_library_of_the_neurons_says_so(
    name: str, expected: bool
) -> None:
    network = made(name)
    layer = next(iter(network.layers.values()))
    assert find_course(network, layer, calls=1, steps=STEPS).batch_first is expected


@pytest.mark.parametrize("at_once", [False, True])
def test_two_steps_are_time_enough_to_add_up(at_once: bool) -> None:
    x = inputs()[:2]
    two = InputCourse(calls=1 if at_once else 2, steps=2, decay=DECAY).begun(SAMPLES)
    found = two(x.flatten(0, 1)) if at_once else [two(now) for now in x][1]
    assert found is not None
    torch.testing.assert_close(found[-SAMPLES:], x[1] + DECAY * x[0])


def test_step_by_step_each_call_gives_what_has_come_together_so_far() -> None:
    x, gathered = inputs(), course(STEPS).begun(SAMPLES)
    found = [gathered(now) for now in x]
    torch.testing.assert_close(
        torch.stack([one for one in found if one is not None]), added_up(x, DECAY)
    )


@pytest.mark.parametrize("batch_first", [False, True])
def test_an_output_has_the_mean_over_time_at_once(batch_first: bool) -> None:
    x = inputs()
    whole = (x.transpose(0, 1) if batch_first else x).flatten(0, 1)
    found = course(1, ends=True, batch_first=batch_first).begun(SAMPLES)(whole)
    torch.testing.assert_close(found, x.mean(0))


def test_an_output_has_the_mean_over_time_at_the_last_step_alone() -> None:
    ends = InputCourse(calls=STEPS, steps=STEPS, decay=1.0, ends=True)
    x, gathered = inputs(), ends.begun(SAMPLES)
    found = [gathered(now) for now in x]
    assert found[:-1] == [None] * (STEPS - 1)
    torch.testing.assert_close(found[-1], x.mean(0))


@pytest.mark.parametrize(
    "unknown",
    [
        InputCourse(calls=1, steps=STEPS, decay=None),
        InputCourse(calls=1, steps=None, decay=DECAY),
        InputCourse(calls=1, steps=1, decay=DECAY),
        InputCourse(calls=2, steps=STEPS, decay=DECAY),
    ],
)
def test_what_is_not_known_or_has_no_time_stays_as_it_is(unknown: InputCourse) -> None:
    x = inputs().flatten(0, 1)
    assert unknown.begun(SAMPLES)(x) is x


def test_one_input_for_all_steps_stays_as_it_is() -> None:
    x = inputs()[0]
    assert course(1).begun(SAMPLES)(x) is x


def test_the_inputs_of_the_network_are_not_written_to() -> None:
    x = inputs().flatten(0, 1)
    before = x.clone()
    course(1).begun(SAMPLES)(x)
    stepwise = course(STEPS).begun(SAMPLES)
    for now in x.unflatten(0, (STEPS, SAMPLES)):
        stepwise(now)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "one",
    [
        course(1),
        course(1, batch_first=True),
        course(1, ends=True),
        course(1, ends=True, batch_first=True),
        InputCourse(calls=1, steps=None, decay=None),
    ],
)
def test_of_some_samples_comes_what_comes_of_all(one: InputCourse) -> None:
    x, picked = inputs().flatten(0, 1), torch.tensor([2, 0])
    found = one.begun(SAMPLES)(x, lambda _: picked)
    whole = one.begun(SAMPLES)(x)
    assert found is not None
    assert whole is not None
    assert torch.equal(found, whole[picked])


@pytest.mark.parametrize("batch_first", [False, True])
def test_any_step_of_any_sample_may_be_picked(batch_first: bool) -> None:
    x, order = inputs().flatten(0, 1), [11, 4, 7, 0, 4]
    asked: list[int] = []

    def pick(count: int) -> Tensor:
        asked.append(count)
        return torch.tensor(order)

    found = course(1, batch_first=batch_first).begun(SAMPLES)(x, pick)
    whole = course(1, batch_first=batch_first).begun(SAMPLES)(x)
    assert whole is not None
    assert found is not None
    assert torch.equal(found, whole[order])
    assert asked == [STEPS * SAMPLES]


def test_step_by_step_each_call_picks_of_its_own() -> None:
    x, picked = inputs(), torch.tensor([1])
    some, all_ = course(STEPS).begun(SAMPLES), course(STEPS).begun(SAMPLES)
    for now in x:
        found, whole = some(now, lambda _: picked), all_(now)
        assert found is not None
        assert whole is not None
        assert torch.equal(found, whole[picked])
