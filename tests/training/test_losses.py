"""Losses that a recipe names, held against other people's code and sums by hand."""

from pathlib import Path
from typing import Any

import pytest
import snntorch.functional
import torch
from pydantic import ValidationError
from small_runs import CPU, recipe_for, write_images
from spikingjelly.activation_based import functional as spikingjelly_functional
from torch import Tensor
from torch.nn import functional

from snnprune.errors import InputError
from snnprune.recipe.sections import TrainingSection
from snnprune.training import LOSSES
from snnprune.training.losses import load_loss
from snnprune.training.setup import open_recipe_data, set_up
from snnprune.training.train import train_network

T, N, CLASSES = 5, 7, 4


def section(loss: str, **settings: Any) -> TrainingSection:
    return TrainingSection(epochs=1, learning_rate=0.1, loss=loss, **settings)


def logits() -> Tensor:
    return torch.randn(T, N, CLASSES, generator=torch.Generator().manual_seed(0))


def spikes() -> Tensor:
    return (logits() > 0.3).float()


LABELS = torch.tensor([0, 3, 2, 2, 1, 0, 3])


def test_cross_entropy_is_the_mean_over_time_as_spikingjelly_has_it() -> None:
    expected = spikingjelly_functional.temporal_efficient_training_cross_entropy(logits(), LABELS)
    assert load_loss(section("cross-entropy"))(logits(), LABELS) == pytest.approx(expected.item())


def test_the_name_of_before_stands_for_the_same_loss() -> None:
    assert (
        section("per-step")
        == section("cross-entropy")
        == TrainingSection(epochs=1, learning_rate=0.1)
    )


@pytest.mark.parametrize(("correct", "incorrect"), [(1.0, 0.0), (0.8, 0.2)])
def test_mse_count_is_that_of_snntorch(correct: float, incorrect: float) -> None:
    theirs = snntorch.functional.mse_count_loss(correct_rate=correct, incorrect_rate=incorrect)
    ours = load_loss(section("mse-count", loss_args={"correct": correct, "incorrect": incorrect}))
    assert ours(spikes(), LABELS) == pytest.approx(theirs(spikes(), LABELS).item())


def test_mse_rate_is_the_squared_error_of_the_firing_rate() -> None:
    # as in SpikingJelly's examples: mse_loss(net(x).mean(0), one_hot(y))
    expected = functional.mse_loss(
        spikes().mean(0), functional.one_hot(LABELS, CLASSES).float()
    ).item()
    assert load_loss(section("mse-rate"))(spikes(), LABELS) == pytest.approx(expected)
    by_hand = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])  # rates 0.5 and 0 for class 0
    assert load_loss(section("mse-rate"))(by_hand, torch.tensor([0])).item() == 0.125
    args = {"correct": 0.5, "incorrect": 0.5}
    assert load_loss(section("mse-rate", loss_args=args))(by_hand, torch.tensor([0])) == 0.125


@pytest.mark.parametrize("lamb", [0.0, 0.05, 1.0])
def test_tet_is_the_sum_over_steps_of_equations_9_and_10(lamb: float) -> None:
    outputs = logits().double()
    by_step = apart = 0.0
    for step in outputs:
        for row, label in zip(step, LABELS.tolist(), strict=True):
            by_step -= float(row[label] - row.exp().sum().log()) / (T * N)
            apart += sum((float(one) - 0.5) ** 2 for one in row) / (T * N * CLASSES)
    expected = (1 - lamb) * by_step + lamb * apart
    ours = load_loss(section("tet", loss_args={"lamb": lamb, "target": 0.5}))
    assert ours(outputs, LABELS).item() == pytest.approx(expected)


def test_tet_of_no_lamb_is_the_cross_entropy() -> None:
    plain = load_loss(section("cross-entropy", label_smoothing=0.1))(logits(), LABELS)
    tet = load_loss(section("tet", loss_args={"lamb": 0.0}, label_smoothing=0.1))
    assert torch.equal(tet(logits(), LABELS), plain)


@pytest.mark.parametrize("name", LOSSES.rows)
def test_every_loss_has_a_gradient_at_every_output(name: str) -> None:
    outputs = logits().requires_grad_()
    load_loss(section(name))(outputs, LABELS).backward()
    assert outputs.grad is not None
    assert bool((outputs.grad != 0).all())


OWN = """
import torch

def hinge(steps, y, *, margin=1.0):
    scores = steps.mean(0)
    return torch.nn.functional.multi_margin_loss(scores, y, margin=margin)

def number(steps, y):
    return 3

def detached(steps, y):
    return steps.detach().mean()

def failing(steps, y):
    return steps[99].mean()
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own_losses.py"
    path.write_text(OWN)
    return str(path)


def test_a_function_of_the_users_is_a_loss_with_its_own_arguments(own: str) -> None:
    loss = load_loss(section(f"{own}:hinge", loss_args={"margin": 2.0}))
    expected = functional.multi_margin_loss(logits().mean(0), LABELS, margin=2.0)
    assert torch.equal(loss(logits(), LABELS), expected)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("number", "training.loss: gave int"),
        ("detached", "training.loss: gave a number without a gradient"),
        ("failing", "index 99 is out of bounds"),
        ("none", "none"),
    ],
)
def test_what_a_function_does_wrong_is_one_line(own: str, function: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_loss(section(f"{own}:{function}"))(logits().requires_grad_(), LABELS)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_names_and_arguments_are_refused(own: str) -> None:
    with pytest.raises(InputError, match=r"unknown loss 'tett'.*tet"):
        load_loss(section("tett"))
    with pytest.raises(InputError, match=r"training\.loss_args: tet has no argument 'lam'.*lamb"):
        load_loss(section("tet", loss_args={"lam": 0.1}))
    with pytest.raises(InputError, match=r"label_smoothing: mse-rate smoothes no labels"):
        load_loss(section("mse-rate", label_smoothing=0.1))
    with pytest.raises(InputError, match="smoothes no labels"):
        load_loss(section(f"{own}:hinge", label_smoothing=0.1))
    with pytest.raises(ValidationError):
        section("tet", loss_args={"lamb": "much"})


def test_a_run_goes_down_its_loss(tmp_path: Path) -> None:
    images = write_images(tmp_path / "x.safetensors")
    recipe = recipe_for(images, training={"loss": "mse-rate", "epochs": 6, "learning_rate": 0.05})
    setup = set_up(recipe, open_recipe_data(recipe), device=CPU)

    def loss() -> float:
        x, y = next(iter(setup.images.batches(12)))
        assert y is not None
        with torch.no_grad():
            return float(setup.trainer().objective(setup.module.train()(x), x, y))

    before = loss()
    train_network(setup)
    assert loss() < before
