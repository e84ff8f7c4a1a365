"""Rows times weights against torch's own layers."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from snnprune.graph.calls import LayerCall
from snnprune.graph.network import LayerKind
from snnprune.measure.layer_inputs import compute_currents, count_places, extract_patches

LAYERS: dict[LayerKind, Callable[..., Tensor]] = {
    "conv1d": functional.conv1d,
    "conv2d": functional.conv2d,
    "conv3d": functional.conv3d,
    "linear": functional.linear,
}


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def made(call: LayerCall) -> tuple[Tensor, int]:
    """What the rows of a call give, (samples, places, out), and the places that were announced."""
    x = call.samples
    rows = extract_patches(x, call)
    by_group = compute_currents(rows, call.weight)  # (groups, samples * places, out / groups)
    given = by_group.transpose(0, 1).flatten(1).unflatten(0, (len(x), -1))
    return given, count_places(x, call)


@pytest.mark.parametrize(
    ("kind", "x", "weight", "groups", "geometry"),
    [
        ("conv1d", (3, 4, 9), (5, 4, 3), 1, {"stride": 2, "padding": 1}),
        ("conv1d", (3, 4, 9), (6, 2, 2), 2, {"padding": "same", "dilation": (2,)}),
        ("conv2d", (3, 2, 8, 8), (5, 2, 3, 3), 1, {}),
        ("conv2d", (3, 2, 8, 7), (5, 2, 3, 2), 1, {"stride": (2, 1), "padding": (1, 0)}),
        ("conv2d", (2, 4, 8, 8), (6, 2, 3, 3), 2, {"dilation": 2, "padding": "valid"}),
        ("conv2d", (2, 4, 8, 8), (6, 2, 5, 3), 2, {"padding": "same"}),
        ("conv2d", (2, 4, 6, 6), (8, 1, 3, 3), 4, {"stride": 2, "padding": 1}),
        ("conv2d", (2, 4, 6, 6), (8, 4, 1, 1), 1, {}),
        ("conv3d", (2, 2, 5, 6, 4), (4, 1, 2, 3, 2), 2, {"stride": (1, 2, 1), "padding": 1}),
        ("linear", (7, 5), (3, 5), 1, {}),
    ],
)
def test_rows_times_a_weight_are_what_the_layer_gives(
    kind: LayerKind,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    groups: int,
    geometry: Mapping[str, Any],
) -> None:
    call = LayerCall(
        kind=kind, input=drawn(*x), weight=drawn(*weight), groups=groups, geometry=geometry
    )
    given, announced = made(call)
    own = {} if kind == "linear" else {"groups": groups, **geometry}
    expected = LAYERS[kind](call.input, call.weight, **own).flatten(2 if kind != "linear" else 1)
    if kind == "linear":
        expected = expected.unsqueeze(2)
    torch.testing.assert_close(given.transpose(1, 2), expected, rtol=1e-5, atol=1e-5)
    assert announced == given.shape[1]
    whole = extract_patches(call.samples, call)
    picked = torch.tensor([3, 0, whole.shape[1] - 1])
    assert torch.equal(extract_patches(call.samples, call, picked), whole[:, picked])


def test_rows_of_a_transposed_convolution_are_picked_too() -> None:
    call = LayerCall(
        kind="conv_transpose2d", input=drawn(2, 3, 4, 4), weight=drawn(5, 3, 2, 2), groups=1
    )
    whole, picked = extract_patches(call.samples, call), torch.tensor([7, 1])
    assert torch.equal(extract_patches(call.samples, call, picked), whole[:, picked])


def test_rows_of_pictures_that_do_not_lie_in_order_are_the_same() -> None:
    x = drawn(3, 6, 5, 2).permute(0, 3, 1, 2)
    call = LayerCall(kind="conv2d", input=x, weight=drawn(4, 2, 3, 3), groups=1)
    whole = extract_patches(x, call)
    assert torch.equal(whole, extract_patches(x.contiguous(), call))
    assert torch.equal(whole, extract_patches(x[:, :, :], call))


def test_time_and_tokens_before_the_channels_are_samples() -> None:
    x, weight = drawn(3, 2, 6, 4), drawn(5, 4)
    call = LayerCall(kind="linear", input=x, weight=weight, groups=1)
    torch.testing.assert_close(made(call)[0].reshape(3, 2, 6, 5), functional.linear(x, weight))


def test_an_image_without_a_batch_is_one_sample() -> None:
    x, weight = drawn(2, 6, 6), drawn(3, 2, 3, 3)
    call = LayerCall(kind="conv2d", input=x, weight=weight, groups=1, geometry={"padding": 1})
    given = made(call)[0]
    expected = functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(given[0].T, expected.flatten(1), rtol=1e-5, atol=1e-5)
