"""Each rule violated and just met, and that what is suggested makes a network fit."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from making_needs import IF, chain, change_chip, conv, linear

from snnprune.chips import Chip, load_chip
from snnprune.chips.check import ChipFit, check_design
from snnprune.chips.needs import LayerNeeds, Pool, change_channels, thin_out
from snnprune.chips.placement import (
    count_excess,
    find_fitting,
    list_cores,
    measure_memory,
    measure_totals,
    place,
    plan_channels,
    plan_density,
)

SPECK = load_chip("speck")
SMALL = chain(conv("a", 2, 8), linear("b", 512, 4))


def check(needs: Sequence[LayerNeeds], chip: Chip = SPECK) -> ChipFit:
    return check_design(needs, chip, "here")


def rules(needs: Sequence[LayerNeeds], chip: Chip = SPECK) -> list[str]:
    return [one.rule for one in check(needs, chip).misfits]


def test_a_small_network_fits_speck_on_cores_of_its_own() -> None:
    fit = check(SMALL)
    assert fit.fits
    assert not fit.misfits
    assert len({one.cores for one in fit.layers}) == 2


POOL = Pool(kind="average", sides=(2, 2), strides=(2, 2))


@pytest.mark.parametrize(
    ("rule", "wrong", "right"),
    [
        ("kind", {"kind": "conv1d"}, {}),
        ("groups", {"groups": 2}, {}),
        ("dilation", {"dilation": (2, 2)}, {"dilation": (1, 1)}),
        ("square", {"kernel": (3, 1)}, {"kernel": (3, 3)}),
        ("kernel_side", {"kernel": (17, 17)}, {"kernel": (16, 16)}),
        ("input_side", {"input_size": (129, 8)}, {"input_size": (128, 8)}),
        ("padding", {"padding": (8, 8)}, {"padding": (7, 7)}),
        ("stride", {"stride": (3, 3)}, {"stride": (8, 8)}),
        ("pooling", {"pools": (replace(POOL, kind="max"),)}, {"pools": (POOL,)}),
        ("pooling", {"pools": (replace(POOL, strides=(1, 1)),)}, {"pools": (POOL,)}),
        (
            "pooling",
            {"pools": (Pool(kind="average", sides=(3, 3), strides=(3, 3)),)},
            {"pools": (Pool(kind="average", sides=(4, 4), strides=(4, 4)),)},
        ),
        ("output", {"neurons": ()}, {"neurons": (IF,)}),
        ("neuron", {"neurons": (replace(IF, kind="lif", decay=0.5),)}, {"neurons": (IF,)}),
        ("summed_currents", {"beside": ("c",)}, {}),
        ("obstacle", {"obstacles": ("a tanh between it and its neuron",)}, {}),
        ("bits", {"bits": 9}, {"bits": 8}),
        ("bits", {"bits": None, "channel_bits": 8}, {"channel_bits": None}),
    ],
)
def test_a_rule_is_violated_and_just_met(
    rule: str, wrong: dict[str, Any], right: dict[str, Any]
) -> None:
    first, last = SMALL
    assert rules([replace(first, **wrong), last]) == [rule]
    assert rules([replace(first, **right), last]) == []


def test_what_leaks_is_told_with_what_the_user_can_do() -> None:
    first, last = SMALL
    fit = check([replace(first, neurons=(replace(IF, kind="lif", decay=0.5),)), last])
    assert "its neurons leak (keeping 0.5 a step), the chip's are IF" in fit.misfits[0].message
    assert "IF neurons in the network's code" in str(fit.misfits[0].change)


@pytest.mark.parametrize(
    ("chip", "stride", "change"),
    [
        ("loihi-2", 3, "average pooling or a convolution of stride 3"),
        ("speck", 2, "average pooling or a convolution of stride 2"),
        ("speck", 3, "average pooling"),  # it has strides of 1, 2, 4 and 8
        ("xylo-audio-3", 2, None),
    ],
)
def test_a_pool_of_the_largest_is_told_with_what_may_take_its_place(
    chip: str, stride: int, change: str | None
) -> None:
    pool = Pool(kind="max", sides=(stride, stride), strides=(stride, stride))
    misfits = check([SMALL[0], replace(SMALL[1], pools=(pool,))], load_chip(chip)).misfits
    told = [one.change for one in misfits if one.rule == "pooling"]
    assert told == [change and f"train it with {change} in its place"]


@pytest.mark.parametrize(("side", "outputs", "fits"), [(32, 64, True), (33, 64, False)])
def test_sides_are_rounded_up_to_powers_of_two(side: int, outputs: int, fits: bool) -> None:
    needs = chain(conv("a", 2, outputs, side), conv("b", outputs, 1, 1))
    assert measure_memory(needs[0], SPECK).neurons == outputs * (32 if fits else 64) ** 2
    assert check(needs).fits is fits


@pytest.mark.parametrize(("outputs", "entries"), [(64, 65_536), (65, 131_072)])
def test_kernels_are_rounded_up_to_powers_of_two(outputs: int, entries: int) -> None:
    assert measure_memory(conv("a", 64, outputs), SPECK).weights == entries


def test_what_is_suggested_for_one_layer_makes_it_fit_and_one_channel_more_does_not() -> None:
    needs = chain(conv("a", 2, 16), conv("b", 16, 512, 4), linear("c", 512, 4))
    misfit = next(one for one in check(needs).misfits if one.layer == "b")
    assert misfit.rule == "weights"
    assert (misfit.need, misfit.limit) == (16 * 16 * 512, 65_536)
    assert misfit.change == (
        "at most 256 of its 512 output channels or at most 8 of its 16 input channels"
    )
    for group, most in (("b", 256), ("a", 8)):
        assert find_fitting(change_channels(needs, {group: most})[1], SPECK)
        assert not find_fitting(change_channels(needs, {group: most + 1})[1], SPECK)


def test_layers_that_fit_one_by_one_and_not_together_are_matched() -> None:
    large = [conv(name, 64, 64, 4) for name in "abc"]  # 65,536 entries: cores 5 and 6
    needs = chain(*large, linear("d", 1024, 4))
    assert [find_fitting(one, SPECK) for one in needs[:3]] == [(5, 6)] * 3
    fit = check(needs)
    assert [one.rule for one in fit.misfits] == ["cores"]
    assert "cores that hold it are taken" in fit.misfits[0].message
    assert check(change_channels(needs, fit.channels or {})).fits


def test_a_matching_moves_layers_that_fit_elsewhere() -> None:
    needs = [conv("a", 2, 8), conv("b", 64, 64, 4), conv("c", 64, 64, 4)]
    cores = place(needs, SPECK).cores
    assert cores["a"] == (0,)
    assert {cores["b"], cores["c"]} == {(5,), (6,)}
    anywhere = [conv(f"l{n}", 2, 8) for n in range(7)]  # takes cores 0 to 6 first
    assert not place([*anywhere, *needs[1:]], SPECK).left
    assert place([*anywhere, *needs], SPECK).left


WIDTHS = [*itertools.product((32, 96, 200), (48, 256), (64, 300))]


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.many(4)
def test_a_plan_fits_and_no_group_may_have_a_channel_more(widths: tuple[int, int, int]) -> None:
    first, second, third = widths
    needs = chain(
        conv("a", 2, first, 32),
        conv("b", first, second, 16),
        conv("c", second, third, 8),
        linear("d", third, 10, kernel=(4, 4)),
    )
    plan = plan_channels(needs, SPECK)
    assert plan is not None
    assert count_excess(change_channels(needs, plan), SPECK) == 0
    whole = {"a": first, "b": second, "c": third}
    for name, count in plan.items():
        if count < whole[name]:
            assert count_excess(change_channels(needs, {**plan, name: count + 1}), SPECK)


def test_a_network_of_more_layers_than_cores_has_no_plan() -> None:
    needs = chain(*(conv(f"l{n}", 2, 2) for n in range(10)))
    fit = check(needs)
    assert fit.channels is None
    assert [one.rule for one in fit.misfits] == ["cores"]
    assert fit.misfits[0].change is None


def test_single_zeros_free_nothing_of_a_dense_chip_and_synapses_of_a_sparse_one() -> None:
    thin = thin_out(SMALL, 0.1)
    assert measure_memory(thin[0], SPECK) == measure_memory(SMALL[0], SPECK)
    template = load_chip("template")
    assert measure_memory(thin[0], template).weights == 14
    assert measure_memory(SMALL[0], template).weights == 144


def test_a_sparse_chip_has_room_for_a_share_of_the_weights_and_not_for_more() -> None:
    needs = chain(linear("a", 2048, 1024), linear("b", 1024, 10))
    chip = change_chip("template", limits={"synapses": 1_000_000})
    fit = check(needs, chip)
    assert {one.rule for one in fit.misfits} == {"synapses", "cores"}
    density = plan_density(needs, chip)
    assert density is not None
    assert density < 1
    assert not check(thin_out(needs, density), chip).misfits
    assert check(thin_out(needs, density + 0.002), chip).misfits


def test_fan_in_is_told_by_the_fullest_neuron() -> None:
    chip = change_chip("template", limits={"fan_in": 500})
    needs = chain(linear("a", 512, 16), linear("b", 16, 4))
    fit = check(needs, chip)
    assert fit.misfits[0].rule == "fan_in"
    assert fit.misfits[0].change == "prune 12 of the 512 synapses of its fullest neuron"
    assert check([replace(needs[0], fan_in=500), needs[1]], chip).fits


XYLO: Mapping[str, Any] = {
    "neurons": (replace(IF, kind="lif", decay=0.75, reset="subtract"),),
    "bits": None,
}


def mlp(*widths: int) -> tuple[LayerNeeds, ...]:
    """Linear layers with LIF neurons that subtract, with scales of channels."""
    layers = chain(*(linear(f"l{n}", *pair) for n, pair in enumerate(itertools.pairwise(widths))))
    named = [replace(XYLO["neurons"][0], name=f"n{n}") for n in range(len(layers))]
    return tuple(
        replace(one, neurons=(neuron,), bits=None)
        for one, neuron in zip(layers, named, strict=True)
    )


@pytest.mark.parametrize(
    ("chip", "widths", "wrong"),
    [
        ("xylo-audio-2", (16, 1000, 8), []),
        ("xylo-audio-2", (17, 1000, 8), ["input_channels"]),
        ("xylo-audio-2", (16, 1001, 8), ["hidden_neurons", "cores"]),
        ("xylo-audio-2", (16, 100, 9), ["output_neurons"]),
        ("xylo-audio-2", (16, 8), ["layers"]),
        ("xylo-audio-3", (16, 128, 700, 128, 32), []),
        ("xylo-audio-3", (16, 129, 128, 32), ["first_neurons"]),
        ("xylo-audio-3", (16, 128, 129, 32), ["last_hidden_neurons"]),
        ("xylo-imu", (16, 128, 240, 128, 16), []),
        ("xylo-imu", (16, 128, 241, 128, 16), ["hidden_neurons", "cores"]),
    ],
)
def test_xylo_has_so_many_neurons(chip: str, widths: tuple[int, ...], wrong: list[str]) -> None:
    assert rules(mlp(*widths), load_chip(chip)) == wrong


@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        ({"input_size": (4, 2)}, 3 * 4 * 2),
        ({"kind": "linear", "input_size": (), "kernel": (5, 2)}, 3 * 5 * 2),  # flattened places
        ({"kind": "linear", "input_size": (), "kernel": ()}, 3),
    ],
)
def test_a_value_enters_at_each_place_of_each_channel(shape: dict[str, Any], inputs: int) -> None:
    first = replace(conv("a", 3, 1), **shape)
    found = {name: need for name, need, _ in measure_totals([first], load_chip("xylo-audio-2"))}
    assert found["input_channels"] == inputs


def test_the_neurons_that_a_plan_keeps_fit_xylo() -> None:
    needs, chip = mlp(16, 800, 700, 8), load_chip("xylo-audio-2")
    plan = plan_channels(needs, chip)
    assert plan is not None
    assert sum(plan.values()) == 1000
    assert check(change_channels(needs, plan), chip).fits


def test_a_decay_that_is_no_shift_is_remarked_and_not_refused() -> None:
    first, last = mlp(16, 8, 4)
    odd = replace(first, neurons=(replace(first.neurons[0], decay=0.9),))
    fit = check([odd, last], load_chip("xylo-audio-2"))
    assert fit.fits
    assert any("keeps 0.9 a step, the chip the nearest 0.875" in text for text in fit.remarks)


def test_spikes_that_come_back_are_for_chips_that_have_it() -> None:
    first, last = mlp(16, 8, 4)
    looped = replace(first, sources=(first.layer,))
    assert "recurrent" in rules([looped, last], change_chip("template", weight_scale="channel"))
    assert "recurrent" not in rules([looped, last], load_chip("xylo-audio-2"))


def test_spikes_go_to_so_many_layers() -> None:
    first = conv("a", 2, 4)
    others = [replace(conv(f"b{n}", 4, 4), sources=("a",)) for n in range(3)]
    assert rules([first, *others]) == ["fan_out"]
    assert rules([first, *others[:2]]) == []


def test_loihi_spreads_a_layer_over_as_many_cores_as_it_needs() -> None:
    needs = chain(conv("a", 2, 64, 32), linear("b", 100, 10))
    fit = check(needs, load_chip("loihi-2"))
    assert fit.fits
    assert [len(one.cores) for one in fit.layers] == [8, 1]  # 65,536 neurons, 8,192 a core
    assert len(list_cores(load_chip("loihi-2"))) == 120
