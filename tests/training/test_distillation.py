"""Learning from a teacher, against a formula of our own in NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.trace import trace
from snnprune.models.networks import conv_snn
from snnprune.recipe.sections import TrainingSection
from snnprune.training.optimization import Distillation, LabelLoss, Teacher

CLASSES, SAMPLES, STEPS = 3, 4, 2


def training(**settings: Any) -> TrainingSection:
    return TrainingSection(epochs=1, learning_rate=0.1, **settings)


def teacher(**settings: Any) -> Teacher:
    torch.manual_seed(1)
    module = conv_snn(in_channels=1, size=6, classes=CLASSES, width=4, depth=2, time_steps=STEPS)
    return Teacher(trace(module.train(), images()), training(**settings))


def images() -> Tensor:
    return torch.rand(SAMPLES, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 3


def labels() -> Tensor:
    return torch.arange(SAMPLES) % CLASSES


def student() -> Tensor:
    draws = torch.Generator().manual_seed(2)
    return torch.randn(STEPS, SAMPLES, CLASSES, generator=draws).requires_grad_()


def softmax(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def expected_divergence(q: Tensor, p: Tensor, temperature: float) -> float:
    """T^2 sum_c p_c log(p_c / q_c), mean over samples, in float64."""
    taught = softmax(p.detach().double().numpy() / temperature)
    learnt = softmax(q.detach().double().numpy() / temperature)
    return float(temperature**2 * (taught * np.log(taught / learnt)).sum(axis=1).mean())


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_that_of_the_labels_and_the_divergence_from_the_teacher(
    share: float, temperature: float
) -> None:
    asked, steps, x, y = teacher(), student(), images(), labels()
    loss = Distillation(asked, training(), share=share, temperature=temperature)(steps, x, y)
    apart = expected_divergence(steps.mean(0), asked(x, SAMPLES), temperature)
    of_labels = LabelLoss(training())(steps, x, y).item()
    assert apart > 0.01
    assert loss.item() == pytest.approx((1 - share) * of_labels + share * apart, rel=1e-5)


def test_a_student_that_says_what_the_teacher_says_learns_nothing_from_it() -> None:
    asked, x = teacher(), images()
    steps = asked(x, SAMPLES).repeat(STEPS, 1, 1).requires_grad_()
    loss = Distillation(asked, training(), share=0.5, temperature=2.0)(steps, x, labels())
    alone = 0.5 * LabelLoss(training())(steps, x, labels())
    assert loss.item() == pytest.approx(alone.item())


def test_the_gradient_reaches_the_student_alone() -> None:
    asked, steps = teacher(), student()
    Distillation(asked, training(), share=0.5, temperature=2.0)(
        steps, images(), labels()
    ).backward()
    assert steps.grad is not None
    assert float(steps.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in asked.network.module.parameters())


def test_the_teacher_is_at_rest_and_in_eval_mode_for_every_batch() -> None:
    asked, x = teacher(), images()
    before = {key: value.clone() for key, value in asked.network.module.state_dict().items()}
    first, second = asked(x, SAMPLES), asked(x, SAMPLES)
    assert torch.equal(first, second)
    after = asked.network.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    norms = [m for m in asked.network.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(norm.training for norm in norms)  # its own mode again


def test_the_teacher_runs_in_the_precision_of_the_student() -> None:
    exact, rounded = teacher()(images(), SAMPLES), teacher(precision="bf16")(images(), SAMPLES)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.5)
