"""What a state says of a run is believed where it can be so."""

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch

from snnprune.training import Round
from snnprune.training.fit import Position
from snnprune.training.runs.state import read_count, read_number, require_alike, require_names
from snnprune.training.tickets import require_epochs
from snnprune.training.weights import BestWeights

AT = Position(epoch=1, step=2, loss_sum=5.5, correct=3, seen=8)


def taken_up(**changed: Any) -> Position:
    return Position.from_state({**asdict(AT), **changed}, epochs=3, steps=4)


def test_a_position_comes_back_as_it_was() -> None:
    assert taken_up() == AT
    last = Position(epoch=3)
    assert Position.from_state(asdict(last), epochs=3, steps=4) == last


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": 4},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": 1.0},
        {"epoch": 3},  # with batches after the end
        {"step": 5},
        {"step": 2**70},
        {"step": 0},  # with samples of no batch
        {"correct": 9},
        {"seen": 0},
        {"seen": 2**60},
        {"seen": 2**53 + 1},
        {"loss_sum": math.nan},
        {"loss_sum": "5.5"},
        {"more": 1},
    ],
)
def test_a_position_that_cannot_be_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises((ValueError, LookupError)):
        taken_up(**changed)


def test_a_batch_later_the_sums_are_those_of_its_samples_too() -> None:
    later = AT.after(0.5, 2, 4, skipped=True)
    assert later == Position(epoch=1, step=3, loss_sum=7.5, correct=5, seen=12, skipped=1)
    assert (later.train_loss, later.train_accuracy) == (7.5 / 12, 5 / 12)
    assert later.after(0.0, 0, 4, skipped=False).skipped == 1


def rows(count: int, **told: Any) -> list[dict[str, Any]]:
    """Metrics of so many epochs."""
    epoch = {
        "kind": "epoch",
        "train_loss": 0.5,
        "train_accuracy": 0.5,
        "validation_accuracy": None,
        "learning_rate": 0.1,
    }
    return [{**epoch, "epoch": number, **told} for number in range(count)]


def test_metrics_of_the_only_training_tell_of_the_epochs_before() -> None:
    require_epochs(rows(2), Position(epoch=2, step=1, seen=4))
    for told in (rows(1), rows(3), [*rows(2), *rows(1, method="imp", round=0)]):
        with pytest.raises(ValueError, match=r"tell of \d epochs, it is after 2"):
            require_epochs(told, Position(epoch=2))
    with pytest.raises(ValueError, match="hold what is no row"):
        require_epochs(rows(2, train_loss="0.5"), Position(epoch=2))


def test_metrics_of_a_round_tell_of_its_epochs_or_of_fewer_where_it_was_ended_early() -> None:
    round_ = Round(method="imp", round=1, sparsity=0.5, epochs=4, folder="round-01", last=False)
    others = [*rows(4, method="dense", round=0), *rows(4, method="sf", round=1)]
    for count, epoch in ((0, 0), (2, 2), (4, 4), (2, 4), (1, 4)):
        told = [*others, *rows(count, method="imp", round=1)]
        require_epochs(told, Position(epoch=epoch), round_)
    for count, epoch in ((0, 4), (5, 4), (2, 3), (3, 2)):
        told = [*others, *rows(count, method="imp", round=1)]
        with pytest.raises(ValueError, match=f"tell of {count} epochs, it is after {epoch}"):
            require_epochs(told, Position(epoch=epoch), round_)


def test_a_count_is_a_whole_number_up_to_the_most() -> None:
    assert read_count({"a": 3}, "a", most=3) == 3
    with pytest.raises(ValueError, match="a cannot be 4"):
        read_count({"a": 4}, "a", most=3)
    with pytest.raises(KeyError):
        read_count({}, "a")


def test_a_number_of_many_digits_is_told_in_few() -> None:
    with pytest.raises(ValueError, match=r"a cannot be 1,180,591") as told:
        read_count({"a": 2**70 * 10**300}, "a", most=1)
    assert len(str(told.value)) < 120


def test_a_number_is_finite() -> None:
    assert read_number({"a": 3}, "a") == 3.0
    for wrong in (math.inf, True, None, "3"):
        with pytest.raises(ValueError, match="a cannot be"):
            read_number({"a": wrong}, "a")


def test_names_are_exactly_those() -> None:
    require_names({"a": 1, "b": 2}, ("b", "a"))
    for wrong in ({"a": 1}, {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(ValueError, match="does not say a, b alone"):
            require_names(wrong, ("a", "b"))


def test_tensors_are_alike_by_name_shape_and_type() -> None:
    wanted = {"w": torch.zeros(2, 3)}
    require_alike({"w": torch.ones(2, 3)}, wanted)
    for wrong, why in (
        ({}, "w is missing"),
        ({**wanted, "x": torch.ones(1)}, "x is too many"),
        ({"w": torch.ones(())}, r"shape \[\], wanted"),
        ({"w": torch.ones(2, 3).int()}, "torch.int32"),
    ):
        with pytest.raises(ValueError, match=why):
            require_alike(wrong, wanted)


def test_the_best_weights_are_of_an_epoch_that_was() -> None:
    module = torch.nn.Linear(2, 3)
    tensors = module.state_dict()
    best = BestWeights()
    best.restore({"epoch": 1, "accuracy": 0.5}, tensors, module=module, epochs=2)
    assert (best.epoch, best.accuracy) == (1, 0.5)
    for accuracy in (0.0, 1.0):
        BestWeights().restore({"epoch": 0, "accuracy": accuracy}, tensors, module=module, epochs=2)
    BestWeights().restore({"epoch": None, "accuracy": None}, {}, module=module, epochs=2)
    for position, held in (
        ({"epoch": 2, "accuracy": 0.5}, tensors),
        ({"epoch": 1, "accuracy": 1.5}, tensors),
        ({"epoch": 1, "accuracy": None}, tensors),
        ({"epoch": 1, "accuracy": None}, {}),
        ({"epoch": None, "accuracy": 0.5}, {}),
        ({"epoch": None, "accuracy": None}, tensors),
        ({"epoch": 1, "accuracy": 0.5}, {}),
    ):
        with pytest.raises(ValueError, match=r"cannot be|missing|too many"):
            BestWeights().restore(position, held, module=module, epochs=2)
