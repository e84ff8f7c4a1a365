"""Calls that mix samples or draw in eval mode, and what is told of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from snnprune.graph.calls import (
    BY_BATCH,
    DROPPING,
    describe_restless,
    find_restless_reason,
)

X, MEAN, VARIANCE = torch.rand(2, 3, 4), torch.zeros(3), torch.ones(3)


@pytest.mark.parametrize(
    ("function", "args", "named", "reason"),
    [
        (functional.batch_norm, (X, MEAN, VARIANCE), {}, None),
        (functional.batch_norm, (X, MEAN, VARIANCE), {"training": True}, BY_BATCH),
        (functional.batch_norm, (X, None, None), {}, BY_BATCH),
        (functional.dropout, (X,), {}, DROPPING),
        (functional.dropout, (X, 0.5, False), {}, None),
        (functional.dropout, (X,), {"p": 0.0}, None),
        (functional.dropout2d, (X,), {"p": 0.1}, DROPPING),
        (functional.alpha_dropout, (X,), {}, None),  # by default it does not train
        (functional.feature_alpha_dropout, (X,), {"training": True}, DROPPING),
        (functional.relu, (X,), {}, None),
    ],
)
def test_a_call_is_restless_where_its_batch_or_chance_decides(
    function: Callable[..., Tensor], args: tuple[Any, ...], named: dict[str, Any], reason: str
) -> None:
    assert find_restless_reason(function, args, named) == reason


NORMS = "BatchNorm by the batch's own mean and variance in eval mode: "
DROPS = "dropout stays active in eval mode: "


@pytest.mark.parametrize(
    ("found", "draws", "beginnings"),
    [
        ({}, False, []),
        ({}, True, ["the network draws at random in eval mode"]),
        ({"a": DROPPING, "b": BY_BATCH}, True, [f"{NORMS}b; ", f"{DROPS}a; "]),
        ({"": DROPPING}, False, [f"{DROPS}the network itself; "]),
        (dict.fromkeys("abcde", BY_BATCH), False, [f"{NORMS}a, b, c, d, e; "]),
        (dict.fromkeys("abcdefg", DROPPING), True, [f"{DROPS}a, b, c, d, e and 2 more; "]),
    ],
)
def test_each_kind_is_told_once_with_the_first_five_of_its_modules(
    found: dict[str, str], draws: bool, beginnings: list[str]
) -> None:
    lines = [*describe_restless(found, draws=draws)]
    assert len(lines) == len(beginnings)
    assert all(line.startswith(one) for line, one in zip(lines, beginnings, strict=True))
