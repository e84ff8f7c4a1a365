"""Batches that are run in pieces."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.distributed.ranks import BatchPart, Ranks
from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.recipe.sections import TrainingSection
from snnprune.training.step import Trainer, split_batch

STEPS = 3


class Events(nn.Module):
    """Logits (T, N, 3) of events (T, N, 4), or of the same input at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        steps = x.expand(STEPS, -1, -1) if x.dim() == 2 else x.flatten(2)
        self.seen.append(steps.shape[1])
        over_time = torch.arange(1, len(steps) + 1, dtype=steps.dtype).view(-1, 1, 1)
        return torch.tanh(self.linear(steps)) * over_time


def trainer(**settings: Any) -> Trainer:
    torch.manual_seed(0)
    training = TrainingSection(epochs=4, learning_rate=0.1, **settings)
    return Trainer(Network(module=Events().double()), training, steps_per_epoch=5)


def batch(samples: int, *steps: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    x = torch.randn(*steps, samples, 4, generator=drawn, dtype=torch.float64)
    return x, torch.arange(samples) % 3


def weights(of: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in of.module.parameters()])


@pytest.mark.parametrize(("count", "sizes"), [(2, [4, 3]), (3, [3, 2, 2]), (7, [1] * 7)])
@pytest.mark.parametrize("steps", [(), (STEPS,)], ids=["images", "events"])
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.05, "label_smoothing": 0.1}])
def test_pieces_give_the_step_of_the_whole_batch(
    count: int, sizes: list[int], steps: tuple[int, ...], settings: dict[str, Any]
) -> None:
    whole, pieces = trainer(**settings), trainer(accumulate=count, **settings)
    for _ in range(3):
        expected, found = (one.train_on(*batch(7, *steps)) for one in (whole, pieces))
        assert found == pytest.approx(expected, rel=1e-6)
    # the loss is reckoned in float32
    torch.testing.assert_close(weights(pieces), weights(whole), rtol=1e-5, atol=1e-7)
    assert isinstance(pieces.module, Events)
    assert pieces.module.seen == sizes * 3


def test_a_batch_of_fewer_samples_than_pieces_is_run_one_by_one() -> None:
    whole, pieces = trainer(), trainer(accumulate=5)
    expected, found = (one.train_on(*batch(2)) for one in (whole, pieces))
    assert found == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(weights(pieces), weights(whole), rtol=1e-5, atol=1e-7)


def test_time_and_samples_that_cannot_be_told_apart_are_refused() -> None:
    x, y = torch.zeros(4, 4, 1, 2, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match=r"training\.accumulate: a batch of shape \(4, 4, 1, 2, 2"):
        trainer(accumulate=2).train_on(x, y)
    trainer().train_on(x, y)


class Left(Ranks):
    """A process for which no sample is left: it gets the first to stand in."""

    def part(self, x: Any, y: Tensor, *, along: int | None = None) -> BatchPart:
        return BatchPart(x=x[:1], y=y[:1], share=0.0)


def test_samples_that_stand_in_for_none_count_for_nothing() -> None:
    training = TrainingSection(epochs=4, learning_rate=0.1, accumulate=2, schedule="constant")
    left = Trainer(Network(module=Events().double()), training, steps_per_epoch=5, ranks=Left())
    before = weights(left).clone()
    assert left.train_on(*batch(6)) == (0, 0)
    assert isinstance(left.module, Events)
    assert left.module.seen == [1, 1]
    decayed = before * (1 - 0.1 * training.weight_decay)
    torch.testing.assert_close(weights(left), decayed)


def test_a_batch_that_is_no_tensor_is_one_piece_or_refused() -> None:
    held, y = {"x": torch.zeros(2, 4)}, torch.zeros(2).long()
    for count in (1, 2):
        ((x, labels),) = split_batch(held, y[:1], count)  # a sample alone cannot be cut
        assert x is held
        assert len(labels) == 1
    with pytest.raises(InputError, match=r"^training\.accumulate: .* cannot be cut"):
        list(split_batch(held, y, 2))


@pytest.mark.parametrize(
    ("shape", "along", "shapes"),
    [
        ((4, 4, 1, 2, 2), 0, [(2, 4, 1, 2, 2)] * 2),
        ((4, 4, 1, 2, 2), 1, [(4, 2, 1, 2, 2)] * 2),
        ((4, 4, 3), None, [(2, 4, 3)] * 2),  # no events: samples come first
        ((3, 4, 1, 2, 2), None, [(3, 2, 1, 2, 2)] * 2),
    ],
)
def test_pieces_are_cut_along_the_samples(
    shape: tuple[int, ...], along: int | None, shapes: list[tuple[int, ...]]
) -> None:
    x, y = torch.rand(shape), torch.arange(4)
    found = list(split_batch(x, y, 2, along=along))
    assert [tuple(piece.shape) for piece, _ in found] == shapes
    assert [labels.tolist() for _, labels in found] == [[0, 1], [2, 3]]
