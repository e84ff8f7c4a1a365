"""How pictures lie in memory, and what precision is used where."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.models.lif import fire
from snnprune.models.networks import conv_snn
from snnprune.recipe.sections import TrainingSection
from snnprune.training.step import Trainer


def trainer(**settings: Any) -> Trainer:
    torch.manual_seed(0)
    module = conv_snn(in_channels=2, size=6, classes=3, width=4, depth=2, time_steps=2)
    training = TrainingSection(epochs=4, learning_rate=0.1, **settings)
    return Trainer(trace(module, torch.rand(2, 2, 6, 6)), training, steps_per_epoch=5)


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    for _ in range(3):
        yield torch.rand(6, 2, 6, 6, generator=drawn) * 2, torch.arange(6) % 3


def test_channels_last_gives_the_same_numbers() -> None:
    plain, last = trainer(), trainer(channels_last=True)
    first_layer = last.module.get_parameter("encoder.conv.weight")
    assert first_layer.is_contiguous(memory_format=torch.channels_last)
    assert not first_layer.is_contiguous()
    for x, y in batches():
        assert last.train_on(x, y)[0] == pytest.approx(plain.train_on(x, y)[0], rel=1e-5)
    for key, value in plain.module.state_dict().items():
        torch.testing.assert_close(last.module.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_channels_last_leaves_the_weights_of_volumes_as_they_are() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    training = TrainingSection(epochs=1, learning_rate=0.1, channels_last=True)
    target = Trainer(Network(module=module), training, steps_per_epoch=1)
    target.train_on(torch.rand(4, 1, 3, 3, 3), torch.arange(4) % 2)


def test_under_autocast_the_layers_are_narrow_and_the_membranes_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, drives = [], []

    def seen(current: Tensor, dynamics: Any) -> Tensor:
        entered.append(current.dtype)
        return fire(current, dynamics)

    monkeypatch.setattr("snnprune.models.lif.fire", seen)
    target = trainer(precision="bf16")
    entered.clear()
    convolution = target.module.get_submodule("blocks.0.conv")
    convolution.register_forward_hook(lambda *call: drives.append(call[-1].dtype))
    for x, y in batches():
        target.train_on(x, y)
    assert entered == [torch.float32] * 2 * 3
    assert drives == [torch.bfloat16] * 3
    assert {p.dtype for p in target.module.parameters()} == {torch.float32}
