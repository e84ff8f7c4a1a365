"""The average of the weights over the steps."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.network import Network
from snnprune.recipe.sections import TrainingSection
from snnprune.training.step import Trainer

DECAY = 0.75


class Normalised(nn.Module):
    """Logits (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def trainer(**settings: Any) -> Trainer:
    torch.manual_seed(0)
    training = TrainingSection(epochs=4, learning_rate=0.3, ema=DECAY, **settings)
    return Trainer(Network(module=Normalised()), training, steps_per_epoch=5)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, generator=drawn), torch.tensor([0, 1, 2, 0, 1, 2])


def state(of: Trainer) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in of.module.state_dict().items()}


def test_it_is_the_sum_of_the_weights_after_each_step_by_powers_of_the_decay() -> None:
    target = trainer()
    seen = [state(target)]
    for step in range(5):
        target.train_on(*batch(step))
        seen.append(state(target))
    with target.use_kept_weights():
        kept = state(target)
    for key, parameter in target.module.named_parameters():
        expected = DECAY**5 * seen[0][key]
        for step in range(1, 6):
            expected = expected + (1 - DECAY) * DECAY ** (5 - step) * seen[step][key]
        torch.testing.assert_close(kept[key], expected)
        assert not torch.allclose(kept[key], parameter)


def test_running_statistics_are_kept_as_they_are_and_the_weights_come_back() -> None:
    target = trainer()
    target.train_on(*batch(0))
    before = state(target)
    with target.use_kept_weights():
        kept = state(target)
    after = state(target)
    assert all(torch.equal(before[key], after[key]) for key in before)
    for name, _ in target.module.named_buffers():
        assert torch.equal(kept[name], before[name])


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_what_is_pruned_has_no_part_in_it(steps: int) -> None:
    target, mask = trainer(), torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    target.train_on(*batch(0))
    target.hold({"linear.weight": mask})
    for step in range(steps):
        target.train_on(*batch(step + 1))
    with target.use_kept_weights():
        kept = state(target)["linear.weight"]
    assert not kept[~mask].any()
    assert kept[mask].all()
