"""Masks that are held, and masks that act in the forward pass alone."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.recipe.sections import TrainingSection
from snnprune.training.step import Trainer
from snnprune.training.weights import MaskKeeper

KEYS = ("first.weight", "second.weight")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "adamw": {"optimizer": "adamw"},
}


class TwoLayers(nn.Module):
    """Logits (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


class StraightThrough(torch.autograd.Function):
    """w where the mask is True, else 0; the gradient reaches all of w."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def trainer(**settings: Any) -> Trainer:
    torch.manual_seed(0)
    plain = {"epochs": 4, "learning_rate": 0.1, "weight_decay": 0.1, "schedule": "constant"}
    network = Network(module=TwoLayers())
    return Trainer(network, TrainingSection(**{**plain, **settings}), steps_per_epoch=5)


def batches(count: int = 6) -> Iterator[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn(6, 4, generator=drawn), torch.tensor([0, 1, 2, 0, 1, 2])


def masks(seed: int = 2) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    shapes = {KEYS[0]: (5, 4), KEYS[1]: (3, 5)}
    return {key: torch.rand(shape, generator=drawn) < 0.5 for key, shape in shapes.items()}


def weight(of: Trainer, key: str) -> Tensor:
    return of.module.get_parameter(key).detach().clone()


@pytest.mark.parametrize("settings", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_held_weights_and_all_that_is_remembered_of_them_are_zero_after_every_step(
    settings: dict[str, Any],
) -> None:
    target, chosen = trainer(**settings), masks()
    given = list(batches())
    for x, y in given[:2]:  # there is something to forget
        target.train_on(x, y)
    target.hold(chosen)
    for x, y in given[2:]:
        target.train_on(x, y)
        for key, mask in chosen.items():
            parameter = target.module.get_parameter(key)
            about = [v for v in target.optimizer.state[parameter].values() if v.shape == mask.shape]
            assert len(about) == (2 if "optimizer" in settings else 1)
            for tensor in (parameter.detach(), *about):
                assert not tensor[~mask].any()
                assert tensor[mask].all()


@pytest.mark.parametrize("settings", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_masks_that_change_forget_what_is_pruned_before_the_next_step(
    settings: dict[str, Any],
) -> None:
    target, chosen = trainer(**settings), masks()
    for x, y in batches():
        target.train_on(x, y)
    target.hold(chosen)
    for key, mask in chosen.items():
        parameter = target.module.get_parameter(key)
        for about in target.optimizer.state[parameter].values():
            assert about.shape != mask.shape or not about[~mask].any()


def test_the_gradients_of_held_weights_are_no_part_of_the_norm_that_is_clipped() -> None:
    target, chosen = trainer(clip_norm=0.01, momentum=0.0, weight_decay=0.0), masks()
    target.hold(chosen)
    (x, y) = next(batches())
    functional.cross_entropy(target.module(x), y).backward()
    gradients = {name: p.grad for name, p in target.module.named_parameters()}
    alive = {
        name: g * chosen.get(name, torch.ones(())) for name, g in gradients.items() if g is not None
    }
    norm = torch.cat([g.flatten() for g in alive.values()]).norm()
    everything = torch.cat([g.flatten() for g in gradients.values() if g is not None]).norm()
    assert everything > 1.05 * norm
    before = {name: p.detach().clone() for name, p in target.module.named_parameters()}
    target.train_on(x, y)
    for name, parameter in target.module.named_parameters():
        step = before[name] - parameter.detach()
        torch.testing.assert_close(step, 0.1 * 0.01 * alive[name] / norm, rtol=1e-3, atol=1e-7)


def test_a_passing_mask_gives_every_weight_the_gradient_of_the_masked_one_and_its_decay() -> None:
    target, chosen = trainer(momentum=0.0), masks()
    target.hold({}, chosen)
    x, y = next(batches())
    before = {name: p.detach().clone() for name, p in target.module.named_parameters()}
    latent = {name: p.clone().requires_grad_() for name, p in before.items()}
    through = {key: StraightThrough.apply(latent[key], chosen[key]) for key in KEYS}
    logits = torch.func.functional_call(target.module, {**latent, **through}, (x,))
    functional.cross_entropy(logits, y).backward()
    target.train_on(x, y)
    for name, parameter in target.module.named_parameters():
        gradient = latent[name].grad
        assert gradient is not None
        expected = before[name] - 0.1 * (gradient + 0.1 * before[name])
        torch.testing.assert_close(parameter.detach(), expected)
    for key, mask in chosen.items():
        pruned = latent[key].grad
        assert pruned is not None
        assert pruned[~mask].abs().max() > 1e-3  # plain autograd would give them 0


def test_the_loss_of_a_passing_mask_is_that_of_the_masked_network() -> None:
    target, chosen = trainer(), masks()
    target.hold({}, chosen)
    x, y = next(batches())
    zeroed = {key: weight(target, key) * mask for key, mask in chosen.items()}
    expected = functional.cross_entropy(
        torch.func.functional_call(target.module, zeroed, (x,)), y
    ).item()
    assert target.train_on(x, y)[0] == pytest.approx(expected)


def test_what_is_kept_is_masked_and_what_is_trained_on_is_not() -> None:
    target, chosen = trainer(), masks()
    target.hold({}, chosen)
    target.train_on(*next(batches()))
    latent = {key: weight(target, key) for key in KEYS}
    with target.use_kept_weights():
        for key, mask in chosen.items():
            assert torch.equal(weight(target, key), latent[key] * mask)
    for key, mask in chosen.items():
        assert torch.equal(weight(target, key), latent[key])
        assert latent[key][~mask].all()


def test_an_error_in_a_step_leaves_the_latent_weights_as_they_were() -> None:
    target = trainer()
    target.hold({}, masks())
    before = {key: weight(target, key) for key in KEYS}
    x, y = next(batches())
    with pytest.raises(InputError, match="label 10"):
        target.train_on(x, y + 100)
    assert all(torch.equal(weight(target, key), before[key]) for key in KEYS)


def test_a_taken_up_trainer_goes_on_with_both_kinds_of_masks() -> None:
    chosen, settings = masks(), {"momentum": 0.9, "ema": 0.5}
    first, second = trainer(**settings), trainer(**settings)
    first.hold({KEYS[0]: chosen[KEYS[0]]}, {KEYS[1]: chosen[KEYS[1]]})
    given = list(batches())
    for x, y in given[:3]:
        first.train_on(x, y)
    groups = {
        name: {key: tensor.clone() for key, tensor in group.items()}
        for name, group in first.groups().items()
    }
    second.restore(first.position(), groups)
    for x, y in given[3:]:
        assert first.train_on(x, y) == second.train_on(x, y)
    assert first.masking.copy_masks().keys() == second.masking.copy_masks().keys() == set(KEYS)
    for key in KEYS:
        assert torch.equal(weight(first, key), weight(second, key))
        assert torch.equal(first.average.tensors[key], second.average.tensors[key])


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of first\.weight has shape \[2, 2\]"):
        trainer().hold({KEYS[0]: torch.ones(2, 2, dtype=torch.bool)})


def test_weights_that_are_pruned_are_zero_from_the_moment_that_their_masks_are_held() -> None:
    module = TwoLayers()
    before = {key: module.get_parameter(key).detach().clone() for key in KEYS}
    keeper, held = MaskKeeper(module), masks()
    keeper.set(held, passing={})
    for key in KEYS:
        assert torch.equal(module.get_parameter(key), before[key] * held[key])
        assert not held[key].all()
