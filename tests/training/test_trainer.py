"""One step of training."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.network import Network
from snnprune.recipe.sections import TrainingSection
from snnprune.training.step import Trainer, find_first_nonfinite, require_finite


class TwoSteps(nn.Module):
    """Logits (2, N, 3) of two linear maps: enough time to tell the losses apart."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([step(x) for step in self.steps])


def trainer(**settings: Any) -> Trainer:
    torch.manual_seed(0)
    plain = {"epochs": 4, "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    network = Network(module=TwoSteps())
    return Trainer(network, TrainingSection(**{**plain, **settings}), steps_per_epoch=5)


def batch() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    return torch.randn(6, 4, generator=drawn), torch.tensor([0, 1, 2, 0, 1, 2])


def weights(of: Trainer) -> Tensor:
    return torch.cat([p.detach().clone().flatten() for p in of.module.parameters()])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_per_step_loss_is_the_mean_over_time_of_the_cross_entropies(smoothing: float) -> None:
    target, (x, y) = trainer(label_smoothing=smoothing), batch()
    losses = [
        functional.cross_entropy(step, y, label_smoothing=smoothing).item()
        for step in target.module(x)
    ]
    assert target.train_on(x, y)[0] == pytest.approx(sum(losses) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_mean_loss_is_the_cross_entropy_of_the_mean_logits(smoothing: float) -> None:
    target, (x, y) = trainer(loss="mean", label_smoothing=smoothing), batch()
    first, second = target.module(x)
    expected = functional.cross_entropy((first + second) / 2, y, label_smoothing=smoothing)
    assert target.train_on(x, y)[0] == pytest.approx(expected.item())


def test_the_right_ones_are_counted_on_the_sum_over_time_before_the_step() -> None:
    target, (x, y) = trainer(), batch()
    first, second = target.module(x)
    expected = int(((first + second).argmax(1) == y).sum())
    assert target.train_on(x, y)[1] == expected


def test_a_step_of_sgd_goes_against_the_gradient_and_the_decay() -> None:
    target, (x, y) = trainer(weight_decay=0.01, schedule="constant"), batch()
    before = weights(target)
    target.objective(target.module(x), x, y).backward()
    gradients = [p.grad for p in target.module.parameters() if p.grad is not None]
    gradient = torch.cat([each.flatten() for each in gradients])
    target.train_on(x, y)
    torch.testing.assert_close(weights(target), before - 0.1 * (gradient + 0.01 * before))


def test_a_first_step_of_adamw_moves_every_weight_by_the_rate() -> None:
    target, (x, y) = trainer(optimizer="adamw", learning_rate=0.01, schedule="constant"), batch()
    before = weights(target)
    target.train_on(x, y)
    moved = (weights(target) - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01), rtol=1e-3, atol=0)


def test_steps_count_and_take_the_rate_of_the_schedule() -> None:
    target, (x, y) = trainer(schedule="step", step_epochs=(1,)), batch()
    seen = []
    for _ in range(6):
        target.train_on(x, y)
        seen.append(target.optimizer.param_groups[0]["lr"])
    assert target.step == 6
    assert seen == pytest.approx([0.1] * 5 + [0.01])


def test_many_steps_learn_the_batch() -> None:
    target, (x, y) = trainer(learning_rate=1.0, momentum=0.9, schedule="constant"), batch()
    losses = [target.train_on(x, y)[0] for _ in range(20)]
    assert losses[-1] < losses[0] / 4


def test_clip_norm_bounds_the_whole_step() -> None:
    # at a rate of 1 the step is the clipped gradient
    settings: dict[str, Any] = {"learning_rate": 1.0, "schedule": "constant"}
    free, clipped, (x, y) = trainer(**settings), trainer(clip_norm=0.01, **settings), batch()
    before = weights(clipped)
    free.train_on(x, y)
    clipped.train_on(x, y)
    whole, short = weights(free) - before, weights(clipped) - before
    assert float(whole.norm()) > 0.1
    assert float(short.norm()) == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(short / short.norm(), whole / whole.norm(), rtol=1e-3, atol=1e-4)


def test_a_clip_norm_above_the_gradient_changes_nothing() -> None:
    free, clipped, (x, y) = trainer(), trainer(clip_norm=100.0), batch()
    free.train_on(x, y)
    clipped.train_on(x, y)
    assert torch.equal(weights(free), weights(clipped))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_and_changes_no_weight(value: float) -> None:
    target, (x, y) = trainer(momentum=0.9, weight_decay=0.1), batch()
    target.train_on(x, y)
    before = weights(target)
    x[2, 1] = value
    with pytest.raises(NonFiniteError) as caught:
        target.train_on(x, y)
    assert "loss is nan: the batch itself is not finite. lower the learning rate" in str(
        caught.value
    )
    assert torch.equal(weights(target), before)
    assert target.step == 1


class Spoiling(nn.Module):
    """Gives what it gets, with one infinite value."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.flatten()[:-1], x.new_tensor([math.inf])]).view(x.shape)


@pytest.mark.parametrize(
    ("spoilt", "weight", "told"),
    [
        (Spoiling(), 1.0, "the output of 1.0 is not finite"),
        (nn.Identity(), math.nan, "1.1.weight is not finite"),
        (nn.Identity(), 1.0, None),
    ],
)
def test_the_first_layer_whose_output_is_not_finite_is_named(
    spoilt: nn.Module, weight: float, told: str | None
) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(spoilt, nn.Linear(2, 1)), nn.Dropout())
    with torch.no_grad():
        module.get_parameter("1.1.weight").fill_(weight)
    x = torch.ones(3, 2)
    assert find_first_nonfinite(module, lambda: module(x), x) == told
    assert not any(child._forward_hooks for child in module.modules())


def test_a_module_that_is_one_layer_is_named_the_network() -> None:
    module, x = Spoiling(), torch.ones(3, 2)
    assert find_first_nonfinite(module, lambda: module(x), x) == (
        "the output of the network is not finite"
    )


def test_the_run_can_go_on_after_a_loss_that_was_not_finite() -> None:
    target, undisturbed, (x, y) = trainer(momentum=0.9), trainer(momentum=0.9), batch()
    with pytest.raises(NonFiniteError):
        target.train_on(x * math.nan, y)
    target.train_on(x, y)
    undisturbed.train_on(x, y)
    assert torch.equal(weights(target), weights(undisturbed))


def test_bf16_trains_weights_that_stay_in_float32() -> None:
    target, (x, y) = trainer(precision="bf16"), batch()
    before = weights(target)
    loss, _ = target.train_on(x, y)
    assert loss == pytest.approx(trainer().train_on(x, y)[0], rel=0.02)
    assert weights(target).dtype == torch.float32
    assert not torch.equal(weights(target), before)


def test_fp16_is_refused_without_a_gpu() -> None:
    with pytest.raises(InputError) as caught:
        trainer(precision="fp16")
    assert str(caught.value) == "training.precision: fp16 needs a GPU. choose bf16"


def test_weights_that_an_infinite_gradient_spoilt_are_refused_by_name() -> None:
    module = torch.nn.Linear(2, 2)
    require_finite(module, 0)
    with torch.no_grad():
        module.bias[1] = float("inf")
    with pytest.raises(NonFiniteError, match="bias is not finite after epoch 3"):
        require_finite(module, 2)


def test_an_8_bit_float_in_the_network_is_looked_at_too() -> None:
    module = torch.nn.Linear(2, 2)
    module.register_buffer("scale", torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn))
    require_finite(module, 0)
    module.register_buffer("scale", torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn))
    with pytest.raises(NonFiniteError, match="scale is not finite after epoch 1"):
        require_finite(module, 0)


SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "weight_decay": 0.1},
    "without momentum": {},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01},
}


def taken_up(from_: Trainer, **settings: Any) -> Trainer:
    """A fresh trainer that was given what `from_` gives, by way of JSON and of copies."""
    fresh = trainer(**settings)
    with torch.no_grad():
        for parameter in fresh.module.parameters():
            parameter.zero_()
    groups = {
        name: {key: tensor.clone() for key, tensor in group.items()}
        for name, group in from_.groups().items()
    }
    if from_.scaler.is_enabled():
        fresh.scaler = torch.amp.GradScaler("cpu")
    fresh.restore(json.loads(json.dumps(from_.position())), groups)
    return fresh


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_trainer_goes_on_from_what_another_gave(settings: dict[str, Any]) -> None:
    first, (x, y) = trainer(**settings), batch()
    for _ in range(3):
        first.train_on(x, y)
    second = taken_up(first, **settings)
    for _ in range(3):
        assert first.train_on(x, y) == second.train_on(x, y)
    assert second.step == 6
    assert torch.equal(weights(first), weights(second))
    assert first.learning_rate == second.learning_rate


def test_the_loss_scale_and_skipped_steps_are_taken_up_too() -> None:
    first, (x, y) = trainer(), batch()
    first.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=3)
    first.train_on(x, y)
    first.skipped = 2
    second = taken_up(first)
    assert second.skipped == 2
    for _ in range(4):
        assert first.train_on(x, y) == second.train_on(x, y)
    assert first.scaler.state_dict() == second.scaler.state_dict()
    assert first.scaler.get_scale() == 2.0**13  # after three good steps
    assert torch.equal(weights(first), weights(second))


def test_fifty_steps_in_a_row_that_overflow_are_told_and_a_good_one_ends_the_row() -> None:
    target, (x, y) = trainer(), batch()
    target.skipped = 48
    target._count_skipped()
    with pytest.raises(NonFiniteError, match="50 steps in a row overflowed in fp16"):
        target._count_skipped()
    target.train_on(x, y)
    assert target.skipped == 0


def test_what_is_of_another_network_is_not_taken() -> None:
    target = trainer(momentum=0.9)
    target.train_on(*batch())
    groups = {**target.groups()}
    groups["optimizer"] = {"momentum_buffer/nothing.weight": torch.zeros(3, 4)}
    with pytest.raises(KeyError, match="nothing"):
        trainer(momentum=0.9).restore(target.position(), groups)
    groups["optimizer"] = {"momentum_buffer/steps.0.weight": torch.zeros(3, 5)}
    with pytest.raises(ValueError, match="has shape"):
        trainer(momentum=0.9).restore(target.position(), groups)
