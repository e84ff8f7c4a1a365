"""Early-Bird as published: tickets drawn while the dense network trains, then trained whole."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Found, recipe_for, same, write_images
from torch import Tensor

from snnprune.masks import Masks
from snnprune.recipe.schema import Recipe
from snnprune.training.early_bird import EarlyTickets, compute_hamming, describe_early_tickets
from snnprune.training.rounds import ImpRun, _require_drawn

SPARSITIES = [0.5, 0.8]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


def recipe(images: Path, epochs: int, *, distance: float = 0.9, **imp: Any) -> Recipe:
    """With a distance of 0.9 five masks of any kind have settled."""
    section = {
        "methods": ["imp"],
        "sparsities": SPARSITIES,
        "early_bird": distance,
        "early_bird_ends": "dense",
        **imp,
    }
    return recipe_for(images, {"epochs": epochs}, imp=section)


class Watched(Found):
    """A run, with the masks that each epoch of the dense network gave each round."""

    def __init__(self, asked: Recipe) -> None:
        self.given: dict[int, list[Masks]] = {}
        with pytest.MonkeyPatch.context() as patch:
            cut = ImpRun._cut

            def watched(rounds: ImpRun, round_: Any) -> Masks:
                masks = cut(rounds, round_)
                self.given.setdefault(round_.round, []).append(masks)
                return masks

            patch.setattr(ImpRun, "_cut", watched)
            super().__init__(asked)


def pruning(place: int) -> Masks:
    return {"a": torch.arange(10) != place}


def drawn_of(*places: int, distance: float = 0.1) -> tuple[EarlyTickets, list[bool]]:
    """A ticket from masks that each prune one place of ten, and when it was all drawn."""
    given = iter(places)
    cuts = {1: lambda: pruning(next(given))}
    found = EarlyTickets(distance, cuts, dict)
    last = len(places)
    return found, [found.look(epoch, last=epoch == last) for epoch in range(1, last + 1)]


def test_a_ticket_is_drawn_when_its_mask_is_close_to_each_of_the_four_before() -> None:
    found, complete = drawn_of(3, 4, 4, 4, 4, 4, 9, 9)
    assert complete == [False] * 5 + [True] * 3
    drawn = found.drawn[1]
    assert same(drawn.masks, pruning(4))  # it is not drawn again
    assert (drawn.epochs, drawn.distance, drawn.settled) == (6, 0, True)


def test_the_last_epoch_draws_what_has_not_settled() -> None:
    found, complete = drawn_of(3, 4, 3, 4, 5, 6)
    assert complete == [False] * 5 + [True]
    drawn = found.drawn[1]
    assert same(drawn.masks, pruning(6))
    assert drawn.distance == pytest.approx(0.2)
    assert (drawn.epochs, drawn.settled) == (6, False)


def test_fewer_epochs_than_the_window_do_not_settle() -> None:
    found, _ = drawn_of(3, 3, 3)
    assert (found.drawn[1].distance, found.drawn[1].settled) == (0, False)


def test_the_dense_run_ends_when_all_tickets_are_drawn_and_each_is_trained_whole(
    images: Path,
) -> None:
    found = Watched(recipe(images, 9))
    lengths = [len(found.epochs("dense", 0)), *(len(found.epochs("imp", n)) for n in (1, 2))]
    assert lengths == [5, 9, 9]
    for number in (1, 2):
        masks = found.given[number][-1]
        assert len(found.given[number]) == 5
        assert same(found.starts[f"round-{number:02}"].masks, masks)
        assert max(compute_hamming(masks, other) for other in found.given[number]) < 0.9


def test_each_ticket_is_of_the_epoch_in_which_its_own_masks_settled(images: Path) -> None:
    asked = recipe(images, 9, distance=0.03)
    found = Watched(asked)
    drawn = [row["early_bird"] for row in found.tickets.rows if row["round"] > 0]
    for number, about in enumerate(drawn, start=1):
        given, epochs = found.given[number], about["epochs"]
        assert len(given) == epochs
        far = [
            max(compute_hamming(given[last], mask) for mask in given[max(0, last - 4) : last + 1])
            for last in range(epochs)
        ]
        assert far[-1] == about["distance"]
        assert all(one >= 0.03 for one in far[4:-1])
        assert about["settled"] == (far[-1] < 0.03)
        assert about["settled"] or epochs == 9


@pytest.mark.slow
def test_the_network_that_tickets_are_drawn_from_is_to_the_bit_a_dense_one(images: Path) -> None:
    early = Found(recipe(images, 9))
    rows = Found(recipe(images, 9, early_bird=None, early_bird_ends="rounds")).epochs("dense", 0)
    assert early.epochs("dense", 0) == rows[:5]


def test_tickets_go_back_to_the_first_weights_and_statistics(images: Path) -> None:
    found = Found(recipe(images, 6))
    start = found.starts["round-01"]
    first = found.starts["round-00"].tensors
    for key, tensor in start.tensors.items():
        mask = start.masks.get(key)
        assert torch.equal(tensor, first[key] if mask is None else first[key] * mask), key


def test_learning_rate_rewinding_goes_on_with_the_weights_of_the_epoch_that_drew(
    images: Path,
) -> None:
    found = Found(recipe(images, 7, rewind="learning-rate", sparsities=[0.5]))
    start, dense = found.starts["round-01"], found.kept.tensors["round-00"]
    assert len(found.epochs("dense", 0)) == 5
    for key, tensor in start.tensors.items():
        mask = start.masks.get(key)
        assert torch.equal(tensor, dense[key] if mask is None else dense[key] * mask), key


def test_the_dense_run_goes_on_until_it_has_the_weights_to_rewind_to(images: Path) -> None:
    found = Found(recipe(images, 9, rewind_epoch=6))
    assert len(found.epochs("dense", 0)) == 7
    assert len(found.epochs("imp", 1)) == 3
    assert found.tickets.rows[0]["early_bird"]["epochs"] == 5
    start, dense = found.starts["round-01"], found.kept.tensors["round-00"]
    key = "blocks.0.norm.weight"
    assert not torch.equal(start.tensors[key], dense[key])
    assert not torch.equal(start.tensors[key], found.starts["round-00"].tensors[key])


@pytest.mark.slow
def test_a_dense_run_that_was_ended_is_no_baseline_and_a_whole_one_is(images: Path) -> None:
    ended, whole = Found(recipe(images, 9)), Found(recipe(images, 4))
    assert [row["round"] for row in ended.tickets.rows] == [1, 2]
    assert [row["round"] for row in whole.tickets.rows] == [0, 1, 2]
    assert "round-00" in ended.kept.tensors
    assert describe_early_tickets(ended.kept.rows) == [
        "the dense run ended after epoch 5, when all tickets were drawn: there is no dense "
        "accuracy to compare with; train gives one"
    ]
    lines = describe_early_tickets(whole.kept.rows)
    assert len(lines) == 2
    assert lines[0].startswith("imp at 50%: masks did not settle")


def ticket(number: int, *, settled: bool = True, epochs: int = 6) -> dict[str, Any]:
    """A row of metrics, of a ticket at 50 %."""
    drawn = {"settled": settled, "epochs": epochs, "distance": 0.125}
    row = {"kind": "ticket", "method": "imp", "round": number, "sparsity_asked": 0.5}
    return {**row, "early_bird": drawn} if number else row


DENSE_EPOCHS = [{"kind": "epoch", "round": 0}] * 3
LATER_EPOCHS = [{"kind": "epoch", "round": 1}] * 2
ENDED = (
    "the dense run ended after epoch 3, when all tickets were drawn: there is no dense accuracy "
    "to compare with; train gives one"
)
UNSETTLED = (
    "imp at 50%: masks did not settle, those after the last epoch of the dense run were taken; "
    "distance 0.125"
)


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], []),
        (DENSE_EPOCHS, []),  # no ticket is there yet
        ([*DENSE_EPOCHS, *LATER_EPOCHS, ticket(1)], [ENDED]),
        ([*DENSE_EPOCHS, ticket(0), *LATER_EPOCHS, ticket(1)], []),
        ([ticket(0), ticket(1, settled=False, epochs=5)], [UNSETTLED]),
        (
            [ticket(0), ticket(1, settled=False, epochs=4)],
            [f"{UNSETTLED} over 4 epochs, of which 5 are compared"],
        ),
    ],
)
def test_what_is_told_of_tickets_is_what_did_not_settle_and_a_missing_baseline(
    rows: list[dict[str, Any]], lines: list[str]
) -> None:
    assert describe_early_tickets(rows) == lines


def test_early_time_steps_are_those_of_the_dense_run_alone(images: Path) -> None:
    found = Found(recipe(images, 6, early_time_steps=1, methods=["imp", "random"]))
    steps = {folder: start.time_steps for folder, start in found.starts.items()}
    rounds = {f"{method}/round-{n:02}": 2 for method in ("imp", "random") for n in (1, 2)}
    assert steps == {"round-00": 1, **rounds}


@pytest.mark.slow
def test_exactly_the_sparsity_asked_for_is_drawn_each_time(images: Path) -> None:
    found = Watched(recipe(images, 6, methods=["sf-imp-1"]))
    for row in found.tickets.rows:
        assert row["pruned"] == round(row["sparsity_asked"] * row["prunable"])


def test_the_rule_that_ends_rounds_is_as_it_was(images: Path) -> None:
    plain = recipe(images, 7, methods=["random"], early_bird_ends="rounds", sparsities=[0.5, 0.7])
    found = Found(plain)
    lengths = [len(found.epochs("dense", 0)), *(len(found.epochs("random", n)) for n in (1, 2))]
    assert lengths == [7, 5, 7]
    assert all("early_bird" not in row for row in found.tickets.rows)


def test_to_end_the_dense_run_a_distance_is_needed(images: Path) -> None:
    with pytest.raises(ValueError, match="dense needs a distance, early_bird"):
        recipe(images, 7, early_bird=None)


def test_a_state_gives_back_what_is_drawn_and_what_waits() -> None:
    def masks() -> Iterator[Masks]:
        yield from (pruning(place) for place in (1, 1, 1, 1, 1))

    def weights() -> dict[str, Tensor]:
        return {"w": torch.ones(2)}

    settled, moving = masks(), iter(range(5))
    cuts = {1: lambda: next(settled), 2: lambda: pruning(next(moving))}
    found = EarlyTickets(0.1, cuts, weights)
    for epoch in range(1, 6):
        found.look(epoch, last=False)
    again = EarlyTickets(0.1, cuts, weights)
    again.restore(found.position(), found.groups())
    assert list(again.waiting) == list(found.waiting) == [2]
    assert again.position() == found.position()
    assert list(again.groups()) == list(found.groups())
    assert all(same(again.groups()[name], group) for name, group in found.groups().items())


MASKS = {"a": torch.ones(10).bool()}
WHOLE = {"a": torch.ones(10), "norm": torch.ones(2)}


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"drawn-1": MASKS, "drawn-weights-1": WHOLE, "bird-2-0": MASKS}, None),
        ({"model": {}, "early": {}}, None),  # others look at these
        ({"drawn-1": {}}, "a is missing"),
        ({"bird-2-0": {"a": torch.ones(9).bool()}}, "a is torch.bool of shape"),
        ({"drawn-weights-1": MASKS}, "norm is missing"),
        ({"drawn-weights-1": {**WHOLE, "b": torch.ones(1)}}, "b is too many"),
    ],
)
def test_a_state_with_tickets_of_another_network_is_refused(
    groups: dict[str, Masks], told: str | None
) -> None:
    with pytest.raises(ValueError, match=told) if told else nullcontext():
        _require_drawn(groups, MASKS, WHOLE)
