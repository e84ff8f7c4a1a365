"""Membranes that people's own neurons keep in any place are at rest before and after each batch."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.graph.network import Network

LEAK, THRESHOLD = 0.5, 0.3


class State:
    """A plain object, as people write them."""

    def __init__(self) -> None:
        self.u: Any = None


class Cell(nn.Module):
    """A leaky neuron whose membrane is an item of `place`, or an attribute of it."""

    def __init__(self, place: Any, key: Any) -> None:
        super().__init__()
        self.place, self.key = place, key

    def held(self) -> Any:
        return self.place

    def forward(self, x: Tensor) -> Tensor:
        place = self.held()
        if isinstance(place, list | dict | deque):
            before, put = place[self.key], place.__setitem__
        else:
            before, put = getattr(place, self.key), place.__setattr__
        u = x if before is None else LEAK * before + x
        put(self.key, u)
        return (u > THRESHOLD).float()


class Below(Cell):
    """The same two levels further down, in a tuple and a list."""

    def held(self) -> Any:
        return self.place[0][1]


class InPlace(Cell):
    """The same with a membrane that is changed in place, past autograd."""

    def forward(self, x: Tensor) -> Tensor:
        u = self.held()[self.key]
        if u.shape != x.shape:
            u.resize_(x.shape).zero_()
        u.data.mul_(LEAK).add_(x)
        return (u > THRESHOLD).float()


class Begun(Cell):
    """A membrane that is there from the first call on alone."""

    def forward(self, x: Tensor) -> Tensor:
        self.u: Tensor = LEAK * self.u + x if hasattr(self, "u") else x
        return (self.u > THRESHOLD).float()


CELLS = {
    "list": lambda: Cell([None], 0),
    "dict": lambda: Cell({"u": None}, "u"),
    "ordered dict": lambda: Cell(OrderedDict(u=None), "u"),
    "default dict": lambda: Cell(defaultdict(lambda: None), "u"),
    "deque": lambda: Cell(deque([None], maxlen=1), 0),
    "namespace": lambda: Cell(SimpleNamespace(u=None), "u"),
    "object": lambda: Cell(State(), "u"),
    "attribute that was not there": lambda: Begun(None, "u"),
    "object below": lambda: Below(([0, State()],), "u"),
    "dict below": lambda: Below([{1: {"u": None}}], "u"),
    "in place": lambda: InPlace([torch.zeros(2, 3)], 0),
    "resized": lambda: InPlace([torch.zeros(1)], 0),
}


@pytest.mark.parametrize("kind", CELLS)
@torch.no_grad()
def test_every_batch_begins_at_rest_and_nothing_is_left_behind(kind: str) -> None:
    cell, x = CELLS[kind](), torch.full((2, 3), 0.25)
    with Network(module=cell).reset_between_batches() as reset:
        for _ in range(2):
            reset()
            # 0.25, then 0.5 * 0.25 + 0.25 = 0.375 > 0.3
            assert [float(cell(x).mean()) for _ in range(2)] == [0, 1]
    assert float(cell(x).mean()) == 0


@torch.no_grad()
def test_what_two_modules_share_is_shared_afterwards() -> None:
    shared: dict[str, Any] = {"u": None, "beside": [1]}
    one, other = Cell(shared, "u"), Cell(shared, "u")
    with Network(module=nn.ModuleList([one, other])).reset_between_batches() as reset:
        one(torch.ones(1))
        shared["new"] = 1
        shared["beside"].append(2)
        reset()
        assert one.place is other.place is shared
    assert shared == {"u": None, "beside": [1]}
    assert one(torch.full((1,), 0.25)) == 0
    assert other(torch.full((1,), 0.25)) == 1  # it has what the other left


def test_what_holds_itself_is_looked_at_once() -> None:
    ring: list[Any] = [torch.zeros(2)]
    ring.append(ring)
    with Network(module=Cell(ring, 0)).reset_between_batches():
        ring[0].add_(1)
        del ring[1]
    assert ring[1] is ring
    assert ring[0].tolist() == [0, 0]


def test_parameters_and_objects_of_installed_packages_are_left_alone() -> None:
    weight, foreign = nn.Parameter(torch.zeros(2)), pytest.MonkeyPatch()
    foreign.__dict__["seen"] = False
    with Network(module=Cell([weight, foreign], 0)).reset_between_batches():
        weight.data.add_(1)
        foreign.__dict__["seen"] = True
    assert weight.tolist() == [1, 1]
    assert foreign.__dict__["seen"]


def test_a_constant_that_cannot_be_written_does_no_harm() -> None:
    cell = Cell([torch.tensor(0.3).expand(4), torch.zeros(2).to_sparse()], 0)
    with Network(module=cell).reset_between_batches() as reset:
        reset()
    assert cell.place[0].tolist() == pytest.approx([0.3] * 4)
