"""Widths by hand, by their defining inequalities, and against exact chances."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snnprune.errors import UsageError
from snnprune.theory import widths
from snnprune.theory.trials import exact_interval
from snnprune.theory.widths import Setting

THREE = Setting(neurons=3, threshold=0.5, delta=0.2)
some_settings = st.builds(
    Setting,
    neurons=st.integers(1, 64),
    layers=st.integers(1, 8),
    steps=st.integers(1, 16),
    threshold=st.floats(0.05, 0.95),
    beta=st.floats(0, 0.95),
    p_sup=st.floats(0.1, 10),
    delta=st.floats(0.001, 0.5),
    span=st.floats(1, 3),
)


def test_one_weight_by_hand() -> None:
    # C_th = 1/4, so that one of 4 fires, and one of 1/0.1 of these is near: 40 log 5
    assert widths.single_weight(THREE, 0.1, 0.2) == math.ceil(40 * math.log(5))


def test_a_layer_by_hand() -> None:
    assert widths.layer_weights(THREE, 0.3, 0.2) == 3 * math.ceil(40 * math.log(15))
    assert widths.layer_to_layer(THREE, 0.3, 0.2) == 3 * math.ceil(40 * math.log(45))


def test_a_network_by_hand() -> None:
    setting = Setting(neurons=2, layers=3, steps=4, beta=0.5, p_sup=1.0, delta=0.2)
    assert setting.flips == 2 * 4 * 3 * 4
    eps = 0.001
    block = math.ceil(2 / (0.25 * eps) * math.log(4 * 3 / (0.2 - 96 * eps)))
    assert widths.network_width(setting, eps) == 2 * block
    assert widths.network_width_as_printed(setting, eps) == 4 * block


def test_a_width_by_the_margin_by_hand() -> None:
    setting = Setting(neurons=3, layers=2, steps=9, threshold=0.5, beta=0.5, delta=0.2)
    width, error = widths.width_by_margin(setting, 0.3)
    assert error == 0.15
    # one of 4 fires, and one of 1/0.05 of these is near
    assert width == 3 * math.ceil(80 * math.log(9 * 2 / 0.2))


def test_the_chance_of_failure_by_hand() -> None:
    assert widths.failure(THREE, 0.3, 200) == pytest.approx(9 * (1 - 0.25 * 0.1) ** 200)
    assert widths.failure(THREE, 0.3, 10) == 1  # 9 * 0.78


def test_larger_weights_fire_more_and_are_farther_apart() -> None:
    wide = Setting(neurons=3, threshold=0.5, delta=0.2, span=2.0)
    assert wide.firing == pytest.approx(1.5 / 4)
    block = widths.single_weight(wide, 0.1, 0.2)
    assert block == math.ceil(2 / (1.5 / 4 * 0.1) * math.log(5))


@pytest.mark.slow
@given(some_settings)
@settings(max_examples=1000)
def test_the_best_error_is_allowed_and_none_beside_it_is_better(setting: Setting) -> None:
    best = widths.best_error(setting)
    assert 0 < best < setting.reach

    def smooth(eps: float) -> float:
        left = setting.delta - setting.flips * eps
        return math.log(setting.neurons**2 * setting.layers / left) / eps

    for factor in (0.999, 1.001, 0.5):
        if 0 < best * factor < setting.reach:
            assert smooth(best) <= smooth(best * factor) * (1 + 1e-12)


@pytest.mark.slow
@given(some_settings)
@settings(max_examples=1000)
def test_the_chances_of_failure_stay_below_delta(setting: Setting) -> None:
    eps = widths.best_error(setting)
    block = widths.network_width(setting, eps) // setting.neurons
    lost = widths.failure(setting, eps, block) * setting.layers + setting.flips * eps
    assert lost <= setting.delta * (1 + 1e-9)


def exact_of_layer(setting: Setting, eps: float, block: int) -> float:
    n = setting.neurons
    return widths.exact_failure(setting, eps / n, block, outputs=n, inputs=n)


@pytest.mark.slow
@given(st.integers(2, 12), st.floats(0.05, 0.9), st.floats(0.01, 0.5), st.floats(0.2, 1.0))
@settings(max_examples=1000)
def test_the_exact_chance_is_within_the_union_bound_and_the_bound_within_delta(
    neurons: int, threshold: float, delta: float, eps: float
) -> None:
    setting = Setting(neurons=neurons, threshold=threshold, delta=delta)
    block = widths.layer_to_layer(setting, eps, delta) // neurons
    assume(block < 4000)
    exact, bound = exact_of_layer(setting, eps, block), widths.failure(setting, eps, block)
    assert exact <= bound * (1 + 1e-9)
    assert bound <= delta


def test_the_paper_s_own_constant_fails_far_more_often_than_it_promises() -> None:
    setting = Setting(neurons=3, threshold=0.5, delta=0.2)
    printed = widths.layer_to_layer_as_printed(setting, 0.3, 0.2) // 3
    corrected = widths.layer_to_layer(setting, 0.3, 0.2) // 3
    assert exact_of_layer(setting, 0.3, printed) == pytest.approx(0.44, abs=0.005)
    assert exact_of_layer(setting, 0.3, corrected) == pytest.approx(0.17, abs=0.005)


def test_the_exact_chance_of_one_weight_is_a_power() -> None:
    setting = Setting(neurons=1, threshold=0.5, delta=0.2)
    for block in (1, 30, 10**5):
        one = (1 - 0.25 * 0.1 / block) ** block
        assert widths.exact_failure(setting, 0.1 / block, block) == pytest.approx(one, rel=1e-9)


def test_the_exact_chance_of_a_huge_block_takes_no_memory_for_all_of_it() -> None:
    setting = Setting(neurons=1, threshold=0.5, delta=0.2)
    found = widths.exact_failure(setting, 1e-9, 10**9, outputs=2)
    assert found == pytest.approx(1 - (1 - math.exp(-0.25)) ** 2, rel=1e-6)


@pytest.mark.parametrize("threshold", [1.0, 1.5])
def test_a_threshold_that_no_weight_reaches_empties_the_theorem(threshold: float) -> None:
    with pytest.raises(UsageError, match="the theorem is empty") as caught:
        widths.require_sense(Setting(neurons=3, threshold=threshold))
    assert "--span" in str(caught.value)
    widths.require_sense(Setting(neurons=3, threshold=threshold, span=2.0))


@pytest.mark.parametrize("change", ["beta", "delta", "p_sup", "span", "threshold"])
def test_a_number_outside_its_range_is_refused_by_its_flag(change: str) -> None:
    setting = Setting(**{"neurons": 3, change: -1.0})  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        widths.require_sense(setting)
    assert caught.value.field == f"--{change.replace('_', '-')}"


def test_a_margin_of_nothing_holds_nothing() -> None:
    with pytest.raises(UsageError, match="on the threshold itself"):
        widths.width_by_margin(THREE, 0.0)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (1, 300, 8e-5, 0.0184)],
    ids=str,
)
def test_the_interval_is_clopper_s_and_pearson_s(
    hits: int, trials: int, low: float, high: float
) -> None:
    assert exact_interval(hits, trials) == pytest.approx((low, high), abs=1e-4)


def test_a_target_that_the_span_does_not_hold_is_refused() -> None:
    with pytest.raises(UsageError, match=r"weights up to 0\.577"):
        widths.require_sense(Setting(neurons=3, span=0.55, threshold=0.3))
    widths.require_sense(Setting(neurons=3, span=0.58, threshold=0.3))


@pytest.mark.slow
@given(some_settings, st.floats(0.01, 1), st.floats(1e-6, 10))
@settings(max_examples=1000)
def test_the_chance_of_a_near_weight_is_the_least_there_is(
    setting: Setting, top: float, near: float
) -> None:
    a = setting.span
    setting = replace(setting, largest=top * a)
    overlaps = [
        max(0.0, min(a, w + near) - max(-a, w - near)) / (2 * a)
        for w in (-top * a, -top * a / 3, 0.0, top * a / 2, top * a)
    ]
    needed = widths.single_weight(setting, near, 0.1)
    least = math.log(10) / (setting.firing * min(overlaps))
    assert needed == pytest.approx(least, abs=1, rel=1e-9)


def test_a_width_that_nobody_can_count_is_refused() -> None:
    with pytest.raises(UsageError, match="virtual neurons"):
        widths.width_by_margin(Setting(neurons=3), 1e-320)
