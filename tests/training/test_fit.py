"""A stretch of epochs, taken up within one of them."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.data import Augmentation
from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.graph.network import Network
from snnprune.recipe.sections import TrainingSection
from snnprune.runtime import Silent, seed_draws
from snnprune.training.fit import Hooks, Position, TrainSpan, fit
from snnprune.training.step import Trainer

CPU = torch.device("cpu")
BATCHES = 4
KEY = (3, "dense")


class Drawing(nn.Module):
    """Logits (1, N, 2), and a number drawn for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drawn = nn.Linear(3, 2), list[float]()

    def forward(self, x: Tensor) -> Tensor:
        self.drawn.append(float(torch.rand(())))
        return self.linear(x)[None]


class Samples:
    """The same few batches of two samples in every epoch."""

    def shuffle(self, size: int, *, start: int = 0, **_: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(start, BATCHES):
            yield torch.full((size, 3), float(number)), torch.tensor([0, 1])


class Told(Silent):
    """Writes down how many items it was told of, and how many came."""

    def __init__(self) -> None:
        self.totals: list[tuple[str, int | None, int]] = []

    def track(self, items: Iterable[Any], *, label: str, total: int | None = None) -> Iterator[Any]:
        count = 0
        for count, item in enumerate(items, start=1):  # noqa: B007  # it is told after the last
            yield item
        self.totals.append((label, total, count))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(module=Drawing())


def train_on(network: Network, at: Position, ranks: Ranks = ALONE) -> tuple[Told, list[Position]]:
    """Two epochs from `at`; what progress was told, and where states were saved."""
    told, saved = Told(), list[Position]()
    span = TrainSpan(
        images=Samples(),  # type: ignore[arg-type]  # a split in so far as it is shuffled
        batch_size=2,
        augment=Augmentation(),
        key=KEY,
        epochs=2,
        device=CPU,
    )
    section = TrainingSection(epochs=2, learning_rate=0.1)
    trainer = Trainer(network, section, BATCHES, ranks=ranks)
    fit(trainer, span, Hooks(held_out=lambda: None, save=saved.append), at=at, progress=told)
    return told, saved


def test_progress_is_told_of_the_batches_that_are_left(network: Network) -> None:
    told, saved = train_on(network, Position(step=1, seen=2, loss_sum=1.0))
    assert told.totals == [("epoch 1/2", 3, 3), ("epoch 2/2", 4, 4)]
    assert saved == [Position(epoch=1), Position(epoch=2)]


def test_what_a_network_draws_is_of_its_key_the_epoch_and_the_batch_alone(network: Network) -> None:
    module = network.module
    assert isinstance(module, Drawing)
    train_on(network, Position(step=2, seen=4, loss_sum=1.0))
    assert module.drawn == drawn_by_hand()


def drawn_by_hand(*own: int) -> list[float]:
    """A number for each batch from the third on, by its key."""
    found = []
    for epoch, step in ((0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)):
        with seed_draws(*KEY, epoch, "network", step, *own):
            found.append(float(torch.rand(())))
    return found


def test_each_of_several_processes_has_draws_of_its_own(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []

    def drawing(*_: object) -> tuple[float, int]:
        drawn.append(float(torch.rand(())))
        return 1.0, 1

    monkeypatch.setattr(Trainer, "train_on", drawing)  # nobody is there to share a batch with
    train_on(network, Position(step=2, seen=4, loss_sum=1.0), Ranks(rank=1, size=2))
    assert drawn == drawn_by_hand(1)
