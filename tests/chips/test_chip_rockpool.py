"""Xylo as snnprune describes it, held against rockpool's mappers."""

import itertools
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from test_chip_rules import mlp
from without_samna import without_drivers

from snnprune.chips import load_chip
from snnprune.chips.placement import measure_totals, place

DEVICES = {"xylo-audio-2": "syns61201", "xylo-audio-3": "syns65302", "xylo-imu": "syns63300"}


@pytest.fixture(scope="module")
def rockpool() -> Iterator[Any]:
    """What makes a network in rockpool."""
    with without_drivers("rockpool"):
        yield import_module("rockpool.nn.combinators"), import_module("rockpool.nn.modules")


def is_mapped(rockpool: Any, chip: str, widths: tuple[int, ...]) -> bool:
    """Whether the chip's mapper takes a network of these widths, without a warning."""
    combinators, modules = rockpool
    parts = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [modules.LinearTorch((inputs, outputs), has_bias=False)]
        parts += [modules.LIFTorch(outputs, dt=1e-3)]
    mapper = import_module(f"rockpool.devices.xylo.{DEVICES[chip]}.xylo_mapper")
    with warnings.catch_warnings():
        warnings.simplefilter("error", mapper.DRCWarning)
        try:
            mapper.mapper(combinators.Sequential(*parts).as_graph())
        except (mapper.DRCError, mapper.DRCWarning):
            return False
    return True


def fits(chip: str, widths: tuple[int, ...]) -> bool:
    """Whether there are as many neurons, inputs and layers."""
    found, needs = load_chip(chip), mlp(*widths)
    over = [name for name, n, limit in measure_totals(needs, found) if limit and n > limit]
    return not over and not place(needs, found).left and len(needs) >= (found.limits.layers or 0)


CASES = [
    ("xylo-audio-2", (16, 100, 8)),
    ("xylo-audio-2", (17, 100, 8)),
    ("xylo-audio-2", (16, 100, 9)),
    ("xylo-imu", (16, 64, 64, 16)),
    ("xylo-imu", (16, 64, 64, 17)),
    ("xylo-audio-2", (16, 600, 400, 8)),
    ("xylo-audio-2", (16, 600, 401, 8)),
    ("xylo-audio-2", (16, 8)),
    ("xylo-imu", (16, 128, 240, 128, 16)),
    ("xylo-imu", (16, 128, 241, 128, 16)),
    ("xylo-audio-3", (16, 128, 736, 128, 16)),
    ("xylo-audio-3", (16, 128, 737, 128, 16)),
]


@pytest.mark.parametrize(("chip", "widths"), CASES)
@pytest.mark.many(1)
def test_a_network_fits_where_the_mapper_takes_it(
    chip: str, widths: tuple[int, ...], rockpool: Any
) -> None:
    assert fits(chip, widths) == is_mapped(rockpool, chip, widths)
