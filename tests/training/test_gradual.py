"""Pruning inside one training run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_runs import CPU, EPOCHS, STEPS, WEIGHTS, Kept, recipe_for, write_images
from torch import Tensor

from snnprune.errors import InputError
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import GradualSection
from snnprune.training.ranking import compute_targets
from snnprune.training.setup import open_recipe_data
from snnprune.training.step import Trainer
from snnprune.training.train import TrainedNetwork, train


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


def recipe(images: Path, training: Mapping[str, Any] | None = None, **gradual: Any) -> Recipe:
    return recipe_for(images, training, gradual={"sparsity": 0.8, "steps": 4, **gradual})


def trained(asked: Recipe, run: Kept | None = None) -> TrainedNetwork:
    return train(asked, open_recipe_data(asked), device=CPU, run=run)


class After:
    """What the network is after each batch, once it was pruned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pruned: list[int] = []
        self.zeros: list[int] = []
        train_on = Trainer.train_on

        def watched(trainer: Trainer, x: Tensor, y: Tensor) -> tuple[float, int]:
            self.look(trainer)  # after the batch before
            return train_on(trainer, x, y)

        monkeypatch.setattr(Trainer, "train_on", watched)

    def look(self, trainer: Trainer) -> None:
        masks = trainer.masking.copy_masks()
        weights = {key: trainer.module.get_parameter(key).detach() for key in WEIGHTS}
        for key, mask in masks.items():
            assert not weights[key][~mask].any()
        self.pruned.append(sum(int((~mask).sum()) for mask in masks.values()))
        self.zeros.append(sum(int((weight == 0).sum()) for weight in weights.values()))


def test_the_schedule_is_cubic_and_prunes_at_even_distances() -> None:
    section = GradualSection(sparsity=0.8, start_epoch=1, end_epoch=3, steps=4)
    # from batch 10 to 30, by fives; 0.8 (1 - (3/4)^3) = 0.4625, then 0.7, 0.7875, 0.8
    expected = {15: 0.4625, 20: 0.7, 25: 0.7875, 30: 0.8}
    assert compute_targets(section, epochs=8, steps_per_epoch=10) == pytest.approx(expected)


def test_the_schedule_goes_on_from_what_is_pruned_already() -> None:
    section = GradualSection(sparsity=0.8, end_epoch=1, steps=2)
    found = compute_targets(section, epochs=2, steps_per_epoch=4, first=0.4)
    assert found == pytest.approx({2: 0.8 - 0.4 / 8, 4: 0.8})


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "steps", "settings"),
    [(1, 3, 20, {}), (3, 1, 20, {}), (100, 7, 20, {}), (5, 2, 3, {"start_epoch": 4})],
)
def test_it_ends_by_the_sparsity_whatever_the_number_of_steps(
    epochs: int, per_epoch: int, steps: int, settings: dict[str, int]
) -> None:
    section = GradualSection(sparsity=0.9, steps=steps, **settings)  # type: ignore[arg-type]  # whole numbers
    found = compute_targets(section, epochs, per_epoch)
    assert found[max(found)] == pytest.approx(0.9)
    assert 1 <= min(found) <= max(found) <= epochs * per_epoch
    assert list(found.values()) == sorted(found.values())
    assert len(found) == min(steps, max(found) - settings.get("start_epoch", 0) * per_epoch)


def test_at_each_pruning_exactly_as_many_go_and_between_them_nothing_moves(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, asked = After(monkeypatch), recipe(images, end_epoch=2)
    found = trained(asked)
    total = sum(mask.numel() for mask in found.masks.values())
    # twice three batches, pruned after 2 (1.5), 3, 4 (4.5) and 6, rounded to even
    shares = [0.8 * (1 - (1 - i / 4) ** 3) for i in (1, 2, 3, 4)]
    expected = [0, 0, shares[0], shares[1], shares[2], shares[2], *[shares[3]] * 3]
    assert after.pruned == [round(share * total) for share in expected]
    assert after.zeros == after.pruned
    assert sum(int((~mask).sum()) for mask in found.masks.values()) == round(0.8 * total)
    for key, mask in found.masks.items():
        assert not found.tensors[key][~mask].any()


def test_the_best_is_one_that_is_pruned_whole(images: Path) -> None:
    run = Kept()
    found = trained(recipe(images, {"epochs": 5}, end_epoch=3), run)
    assert found.best_epoch in (2, 3, 4)
    accuracies = [row["validation_accuracy"] for row in run.rows_of("epoch")]
    late = accuracies[2:]
    assert found.best_epoch == 2 + late.index(max(late))
    for key, mask in found.masks.items():
        assert not found.best[key][~mask].any()
    (row,) = run.rows_of("ticket")
    assert (row["method"], row["sparsity_asked"]) == ("gradual", 0.8)
    assert row["pruned"] == round(0.8 * row["prunable"])


def test_what_the_average_remembers_of_pruned_weights_is_not_kept(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    as_kept = Trainer.use_kept_weights

    def watched(trainer: Trainer) -> Any:
        context = as_kept(trainer)

        class Looking:
            def __enter__(self) -> None:
                context.__enter__()
                masks = trainer.masking.held
                weights = {key: trainer.module.get_parameter(key) for key in masks}
                seen.extend(bool(weights[key][~mask].any()) for key, mask in masks.items())

            def __exit__(self, *error: Any) -> None:
                context.__exit__(*error)

        return Looking()

    monkeypatch.setattr(Trainer, "use_kept_weights", watched)
    trained(recipe(images, {"ema": 0.9}, end_epoch=EPOCHS))
    assert len(seen) >= EPOCHS * len(WEIGHTS)
    assert not any(seen)


def test_batches_that_fp16_skips_do_not_delay_the_pruning(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descend = Trainer._descend

    def skipping(trainer: Trainer) -> None:
        if trainer.batches > 2:  # the first two overflow
            descend(trainer)

    monkeypatch.setattr(Trainer, "_descend", skipping)
    found = trained(recipe(images, end_epoch=EPOCHS))
    total = sum(mask.numel() for mask in found.masks.values())
    assert sum(int((~mask).sum()) for mask in found.masks.values()) == round(0.8 * total)
    assert found.best_epoch == EPOCHS - 1


@pytest.mark.parametrize("criterion", ["sf", "random"])
def test_any_criterion_ranks(criterion: str, images: Path) -> None:
    found = trained(recipe(images, criterion=criterion))
    total = sum(mask.numel() for mask in found.masks.values())
    assert sum(int((~mask).sum()) for mask in found.masks.values()) == round(0.8 * total)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"criterion": "magnitud"}, r"^gradual\.criterion: .*magnitud"),
        ({"allocation": "pool"}, r"^gradual\.allocation: .*pool"),
        ({"criterion": "sf", "allocation": "global"}, r"^gradual\.allocation: global cannot rank"),
    ],
)
def test_what_cannot_prune_is_refused_before_the_first_step(
    settings: dict[str, Any], told: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "train_on", lambda *_: pytest.fail("trained"))
    with pytest.raises(InputError, match=told):
        trained(recipe(images, **settings))


def test_by_default_it_is_done_after_three_quarters_of_the_epochs(images: Path) -> None:
    section = recipe(images).gradual
    assert section is not None
    assert max(compute_targets(section, 8, STEPS)) == 6 * STEPS
    assert list(compute_targets(section, EPOCHS, STEPS)) == [2, 3, 4, 6]
