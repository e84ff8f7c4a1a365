"""A network that is run several times on each batch, to compare."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.graph.hooks import SharedBatch, run_side_by_side
from snnprune.graph.network import Network

X = torch.arange(6.0).view(2, 3)


class InPlace(nn.Module):
    """Works on what it is given; in training it would give something else."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        x += 1
        return x * self.factor + self.training


def watched(log: list[str]) -> Any:
    @contextlib.contextmanager
    def block() -> Iterator[Any]:
        log.append("begun")
        yield lambda: log.append("at rest")
        log.append("ended")

    return block()


@torch.no_grad()
def test_each_run_sees_the_same_batch_with_tensors_of_its_own() -> None:
    network, log = Network(module=InPlace().train()), list[str]()
    found: list[Tensor] = []

    def compare(batch: SharedBatch) -> None:
        for tensors in ({}, {"factor": torch.tensor(5.0)}):
            found.append(batch.run(tensors, watched(log), read=lambda y: y.clone()))
        found.append(batch.run({}, watched(log), disturb=lambda x: x * 0, read=torch.clone))

    run_side_by_side(network, [(X, None)], compare)
    expected = [(X + 1) * 2, (X + 1) * 5, torch.full((2, 3), 2.0)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert log == ["begun", "at rest", "ended"] * 3
    assert float(network.module.get_parameter("factor")) == 2
    assert network.module.training


def test_batches_come_one_by_one_with_their_labels_and_number_of_samples() -> None:
    met: list[tuple[int, list[int] | None]] = []

    def compare(batch: SharedBatch) -> None:
        met.append((batch.count_samples(), None if batch.y is None else batch.y.tolist()))

    events = torch.zeros(5, 3, 1, 2, 2)  # (T, N, C, H, W)
    batches = [(X, torch.tensor([4, 1])), (events, torch.tensor([1, 2, 0])), (X[:1], None)]
    run_side_by_side(Network(module=InPlace()), batches, compare)
    assert met == [(2, [4, 1]), (3, [1, 2, 0]), (1, None)]


@pytest.mark.parametrize("batches", [[], [(X[:0], None)]])
def test_without_a_sample_there_is_nothing_to_compare(batches: list[Any]) -> None:
    with pytest.raises(InputError, match="no samples to compare on"):
        run_side_by_side(Network(module=InPlace()), batches, lambda _: None)
