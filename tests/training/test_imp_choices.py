"""Surgery within a round, rounds that end early, rounds of fewer time steps."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import EPOCHS, PASSING, Found, recipe_for, same, write_images
from torch import nn

from snnprune.graph.network import Network
from snnprune.masks import Masks
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import TrainingSection
from snnprune.training.early_bird import EarlyBirdDetector, compute_hamming
from snnprune.training.ranking import DynamicSurgery
from snnprune.training.step import Trainer

SPARSITIES = [0.4, 0.7, 0.9]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


def recipe(images: Path, training: Mapping[str, Any] | None = None, **imp: Any) -> Recipe:
    section = {"methods": ["imp"], "sparsities": SPARSITIES, **imp}
    return recipe_for(images, training, imp=section)


def operated(weights: list[float], alive: list[bool], kept: int) -> list[bool]:
    """The mask of a layer of these weights after surgery."""
    layer = nn.Linear(len(weights), 1, bias=False)
    training = TrainingSection(epochs=1, learning_rate=0.1)
    trainer = Trainer(Network(module=layer), training, steps_per_epoch=1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
    trainer.hold({}, {"weight": torch.tensor([alive])})
    DynamicSurgery(trainer, kept, (0,))()
    assert torch.equal(layer.weight.detach(), torch.tensor([weights]))  # they stay latent
    return trainer.masking.passing["weight"].flatten().tolist()


def test_between_the_two_thresholds_a_weight_stays_what_it_is() -> None:
    # t is the third largest of all, 1.0: below 0.9 dies, above 1.1 lives
    weights = [2.0, -1.2, 1.0, 0.95, -0.92, 0.89, 0.1]
    pruned = operated(weights, [False] * 7, kept=3)
    assert pruned == [True, True, False, False, False, False, False]
    alive = operated(weights, [True] * 7, kept=3)
    assert alive == [True, True, True, True, True, False, False]


def test_at_either_threshold_a_weight_stays_what_it_is() -> None:
    weights = [11.0, 10.0, 9.0, 1.0]  # t is 10
    assert operated(weights, [False] * 4, kept=2) == [False] * 4
    assert operated(weights, [True] * 4, kept=2) == [True, True, True, False]


@pytest.mark.parametrize(("kept", "expected"), [(0, False), (3, True)])
def test_a_round_that_keeps_nothing_or_all_operates_on_nothing_else(
    kept: int, expected: bool
) -> None:
    assert operated([3.0, 2.0, 2.9], [expected] * 3, kept)[0] is expected


def test_surgery_becomes_rarer_with_the_steps() -> None:
    layer = nn.Linear(2, 1, bias=False)
    training = TrainingSection(epochs=1, learning_rate=0.1)
    trainer = Trainer(Network(module=layer), training, steps_per_epoch=1)
    counts = []
    for step in (0, 10_000, 90_000):
        done = 0
        for seed in range(400):
            before = torch.zeros(1, 2, dtype=torch.bool)
            trainer.masking.passing = {"weight": before}
            trainer.step = step
            DynamicSurgery(trainer, 2, (seed,))()
            done += trainer.masking.passing["weight"] is not before
        counts.append(done / 400)
    assert counts[0] == 1
    assert counts[1] == pytest.approx(1 / 2, abs=0.08)  # three standard deviations
    assert counts[2] == pytest.approx(1 / 10, abs=0.05)


def test_dns_changes_masks_within_a_round_and_ranking_alone_does_not(images: Path) -> None:
    for how, changes in (("dns", True), ("rank", False)):
        found = Found(recipe(images, {"learning_rate": 1.0}, methods=["sf-imp-2"], surgery=how))
        moved = set()
        for folder in ("round-01", "round-02"):
            first, last = found.starts[folder].masks, found.kept.masks[folder]
            moved |= {key for key in first if not torch.equal(first[key], last[key])}
        assert bool(moved) == changes
        assert moved <= set(PASSING)


def test_what_dns_leaves_is_counted_as_it_is_and_not_as_it_was_asked_for(images: Path) -> None:
    asked = recipe(images, {"learning_rate": 1.0}, methods=["sf-imp-2"], surgery="dns")
    found = Found(asked)
    for number, row in enumerate(found.tickets.rows[1:], start=1):
        masks = found.kept.masks[f"round-{number:02}"]
        tensors = found.kept.tensors[f"round-{number:02}"]
        assert row["pruned"] == sum(int((~mask).sum()) for mask in masks.values())
        assert all(not tensors[key][~mask].any() for key, mask in masks.items())


def test_the_distance_of_masks_is_the_share_of_weights_that_one_of_both_keeps() -> None:
    one = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True])}
    other = {"a": torch.tensor([True, False, True, False]), "b": torch.tensor([True])}
    assert compute_hamming(one, other) == pytest.approx(2 / 5)
    assert compute_hamming(one, one) == 0


def bird(distance: float, *places: int) -> list[bool]:
    """What it says after each epoch, if then weight number `place` of ten would be pruned."""

    def masks() -> Iterator[Masks]:
        for place in places:
            yield {"a": torch.arange(10) != place}

    given = masks()
    watched = EarlyBirdDetector(distance, lambda: next(given))
    return [watched.look() for _ in places]


def test_five_masks_must_be_closer_than_the_distance() -> None:
    assert bird(0.1, 3, 3, 3, 3, 3, 3) == [False, False, False, False, True, True]
    assert bird(0.1, 3, 4, 4, 4, 4, 4, 5) == [False] * 5 + [True, False]
    assert bird(0.2, 3, 4, 3, 4, 3) == [False] * 5  # two of ten are apart: not less than 0.2
    assert bird(0.21, 3, 4, 3, 4, 3) == [False] * 4 + [True]


def test_early_bird_ends_rounds_but_neither_the_dense_one_nor_the_last(images: Path) -> None:
    found = Found(recipe(images, {"epochs": 7}, methods=["random"], early_bird=0.01))
    lengths = [len(found.epochs("dense", 0)), *(len(found.epochs("random", n)) for n in (1, 2, 3))]
    assert lengths == [7, 5, 5, 7]  # random scores do not move
    rows = [row["pruned"] for row in found.tickets.rows]
    assert rows == [0, *(round(s * found.tickets.rows[0]["prunable"]) for s in SPARSITIES)]


def test_a_bird_that_never_sees_quiet_changes_nothing(images: Path) -> None:
    training = {"epochs": 6, "learning_rate": 1.0}
    plain = Found(recipe(images, training))
    watched = Found(recipe(images, training, early_bird=1e-6))
    assert watched.kept.rows == plain.kept.rows
    assert same(plain.kept.tensors["round-03"], watched.kept.tensors["round-03"])


def test_early_rounds_run_fewer_time_steps_and_the_last_one_all(images: Path) -> None:
    found = Found(recipe(images, methods=["imp", "random"], early_time_steps=1))
    steps = {folder: start.time_steps for folder, start in found.starts.items()}
    assert steps == {
        "round-00": 1,
        **{f"{m}/round-{n:02}": 2 if n == 3 else 1 for m in ("imp", "random") for n in (1, 2, 3)},
    }


def test_the_last_round_takes_the_masks_of_the_early_network(images: Path) -> None:
    found = Found(recipe(images, early_time_steps=1))
    before, after = found.kept.tensors["round-02"], found.kept.masks["round-03"]
    alive = torch.cat([before[key][after[key]].abs() for key in after])
    gone = torch.cat([before[key][~after[key]].abs() for key in after])
    assert gone.max() <= alive.min()


def test_as_many_early_steps_as_there_are_change_nothing(images: Path) -> None:
    plain, early = Found(recipe(images)), Found(recipe(images, early_time_steps=2))
    assert plain.kept.rows == early.kept.rows
    for folder, tensors in plain.kept.tensors.items():
        assert same(tensors, early.kept.tensors[folder])


def test_learning_rate_rewinding_with_a_longer_round_is_refused(images: Path) -> None:
    section: dict[str, Any] = {"rewind": "learning-rate", "rewind_epoch": 1, "round_epochs": 3}
    whole = recipe(images, **section).model_dump()
    with pytest.raises(ValueError, match="3 are more than the 2 of the schedule after epoch 1"):
        Recipe.model_validate(whole, context=("imp",))
    whole["imp"]["round_epochs"] = EPOCHS - 1
    Recipe.model_validate(whole, context=("imp",))
