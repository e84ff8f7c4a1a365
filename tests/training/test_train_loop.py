"""Training from a recipe, on the bundled images and on images with a number each."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from snnprune.data import DataOptions, open_data
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe
from snnprune.training.setup import open_recipe_data
from snnprune.training.step import Trainer
from snnprune.training.train import TrainedNetwork, train

CPU = torch.device("cpu")
# A fifth of the bundled images and half the width: enough to learn from, in a second.
SHORT = ("data.validation=0.8", "model.args.width=4")


def trained_by(recipe: Recipe) -> TrainedNetwork:
    return train(recipe, open_recipe_data(recipe), device=CPU)


def run(*overrides: str) -> TrainedNetwork:
    recipe = load_recipe("smoke", [*SHORT, *overrides])
    data = open_recipe_data(recipe)
    assert isinstance(data.validation, ImageSplit)
    few = data.validation.subset(slice(200))  # the others would take longer than the training
    return train(recipe, replace(data, validation=few), device=CPU)


@cache
def short_run() -> TrainedNetwork:
    return run()


def weights(trained: TrainedNetwork) -> dict[str, Tensor]:
    return dict(trained.network.module.state_dict())


def numbered(folder: Path, samples: int) -> Path:
    """Images that all have one value of their own, and labels 0, 1, 0, 1, ..."""
    values = torch.arange(1.0, samples + 1).view(-1, 1, 1, 1) / samples
    path = folder / "numbered.safetensors"
    x, y = values.expand(-1, 1, 6, 6).contiguous(), torch.arange(samples) % 2
    save_file({"x": x, "y": y, "x_test": x + 1, "y_test": y.clone()}, path)
    return path


def recipe_for(file: Path, **training: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"name": "conv-snn", "args": {"width": 2, "depth": 2, "time_steps": 2}},
            "data": {"name": f"tensors:{file}", "validation": 0.25},
            "training": {"epochs": 3, "batch_size": 4, "learning_rate": 0.05, **training},
        }
    )


def numbers(x: Tensor, samples: int) -> list[int]:
    """Which of `numbered` these are."""
    return [round(float(image) * samples) for image in x[:, 0, 0, 0]]


class Spy:
    """A split that writes down whenever it is read."""

    def __init__(self, split: Any, name: str, log: list[str]) -> None:
        self.split, self.name, self.log = split, name, log

    def batches(self, *args: Any, **more: Any) -> Any:
        self.log.append(self.name)
        return self.split.batches(*args, **more)


class Watcher:
    """Progress that writes the epochs down."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def track(self, items: Iterable[Any], *, label: str, total: int | None = None) -> Iterator[Any]:
        self.log.append(label)
        given = list(items)
        assert len(given) == total
        yield from given

    def within(self, label: str, *, total: int, done: int = 0) -> AbstractContextManager[None]:
        assert (label, total, done) == ("run", 6, 0)
        return nullcontext()

    def note(self, text: str) -> None:
        assert text.startswith("loss ")

    def announce(self, text: str) -> None:
        pytest.fail(text)


def test_the_same_recipe_gives_the_same_weights_to_the_bit() -> None:
    torch.manual_seed(123)  # the recipe's seed counts, not the state of the process
    first, second = weights(short_run()), weights(run())
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_another_seed_gives_other_weights() -> None:
    first, second = weights(short_run()), weights(run("seed=1"))
    same = [key for key in first if torch.equal(first[key], second[key])]
    assert same == ["encoder.norm.num_batches_tracked", "blocks.0.norm.num_batches_tracked"]


def test_training_leaves_the_random_state_of_the_process_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run()
    assert torch.equal(torch.rand(3), expected)


def test_the_loss_falls_and_the_network_learns_more_than_chance() -> None:
    trained = run("training.epochs=3")
    losses = [epoch.train_loss for epoch in trained.epochs]
    assert losses[2] < losses[1] < losses[0] < 2.4
    assert trained.test is not None
    assert trained.test.accuracy is not None
    assert trained.test.accuracy > 0.4


def test_the_result_tells_of_every_epoch_and_of_its_own_origin() -> None:
    trained = run("training.epochs=2", "training.schedule=constant", "seed=3")
    assert [epoch.epoch for epoch in trained.epochs] == [0, 1]
    assert {epoch.learning_rate for epoch in trained.epochs} == {0.1}
    assert all(epoch.validation_accuracy is not None for epoch in trained.epochs)
    assert trained.recipe.model.args == {
        "in_channels": 1,
        "size": 28,
        "classes": 10,
        "width": 4,
        "depth": 2,
        "time_steps": 2,
    }


def test_test_images_are_read_once_and_at_the_end(tmp_path: Path) -> None:
    log: list[str] = []
    recipe = recipe_for(numbered(tmp_path, 12))
    data = open_recipe_data(recipe)
    spied = replace(
        data,
        validation=Spy(data.validation, "validation", log),
        test=Spy(data.test, "test", log),
    )
    train(recipe, spied, device=CPU, progress=Watcher(log))
    epochs = [f"epoch {number}/3" for number in (1, 2, 3)]
    assert log == [*(entry for epoch in epochs for entry in (epoch, "validation")), "test"]


def test_each_epoch_takes_every_training_image_once_and_no_validation_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[int] = []
    train_on = Trainer.train_on

    def recorded(self: Trainer, x: Tensor, y: Tensor) -> tuple[float, int]:
        assert self.module.training
        met.extend(numbers(x, 16))
        return train_on(self, x, y)

    monkeypatch.setattr(Trainer, "train_on", recorded)
    recipe = recipe_for(numbered(tmp_path, 16))
    trained_by(recipe)
    data = open_data(recipe.data.name, options=DataOptions(validation=0.25, seed=recipe.seed))
    assert data.train is not None
    assert data.validation is not None
    kept, held_out = (
        {number for x, _ in split.batches(4) for number in numbers(x, 16)}
        for split in (data.train, data.validation)
    )
    assert (len(kept), len(held_out)) == (12, 4)
    assert len(met) == 36
    by_epoch = [met[:12], met[12:24], met[24:]]
    assert all(set(epoch) == kept for epoch in by_epoch)
    assert by_epoch[0] != by_epoch[1]
    assert not set(met) & held_out


def test_without_a_validation_part_there_is_no_validation_accuracy(tmp_path: Path) -> None:
    recipe = recipe_for(numbered(tmp_path, 8))
    whole = recipe.model_copy(update={"data": recipe.data.model_copy(update={"validation": 0.0})})
    trained = trained_by(whole)
    assert [epoch.validation_accuracy for epoch in trained.epochs] == [None] * 3


def test_without_a_validation_part_all_images_are_trained_on_and_the_last_epoch_is_kept(
    tmp_path: Path,
) -> None:
    recipe = recipe_for(numbered(tmp_path, 12))
    whole = recipe.model_copy(update={"data": recipe.data.model_copy(update={"validation": 0.0})})
    data = open_recipe_data(whole)
    assert len(data.train) == 12  # type: ignore[arg-type]  # an ImageSplit
    found = train(whole, data, device=CPU)
    assert (found.best, found.best_epoch) == ({}, None)
    assert all(torch.equal(found.tensors[key], now) for key, now in weights(found).items())


def test_data_without_labels_cannot_be_trained_on(tmp_path: Path) -> None:
    save_file({"x": torch.rand(8, 1, 6, 6)}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match=r"data\.name: has no labelled samples to train on"):
        trained_by(recipe_for(tmp_path / "bare.safetensors"))


def test_a_model_of_other_settings_than_its_data_is_as_the_recipe_says(tmp_path: Path) -> None:
    recipe = recipe_for(numbered(tmp_path, 8))
    args = {**recipe.model.args, "classes": 5}
    wide = recipe.model_copy(update={"model": recipe.model.model_copy(update={"args": args})})
    assert trained_by(wide).recipe.model.args["classes"] == 5


def test_fewer_classes_than_the_data_have_are_refused(tmp_path: Path) -> None:
    recipe = recipe_for(numbered(tmp_path, 8))
    args = {**recipe.model.args, "classes": 1}
    narrow = recipe.model_copy(update={"model": recipe.model.model_copy(update={"args": args})})
    with pytest.raises(InputError, match=r"^model\.args\.classes: 1, but the data have 2$"):
        trained_by(narrow)


def test_an_unknown_model_or_argument_is_a_fault_of_the_recipe() -> None:
    recipe = load_recipe("smoke", ["model.args.widht=3"])
    with pytest.raises(InputError, match=r"^model: conv-snn has no argument 'widht'"):
        trained_by(recipe)
