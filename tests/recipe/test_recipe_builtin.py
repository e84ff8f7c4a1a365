"""The recipes that come with snnprune."""

from pathlib import Path

import pytest

from snnprune.recipe import loading
from snnprune.recipe.errors import RecipeError
from snnprune.recipe.loading import builtin_recipes, load_recipe
from snnprune.recipe.schema import expand_grid


def test_the_built_in_recipes_are_these() -> None:
    assert list(builtin_recipes()) == [
        "cifar10",
        "cifar10-kim",
        "cifar100",
        "cifar100-kim",
        "dvs-gesture",
        "fashion-mnist",
        "fashion-mnist-mini",
        "fashion-mnist-resnet19",
        "moving-mini",
        "paper-figure-3",
        "paper-figure-5",
        "shd",
        "smoke",
    ]


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_built_in_recipe_loads_by_name_with_suffix_and_by_path(name: str) -> None:
    recipe = load_recipe(name)
    assert load_recipe(f"{name}.yaml") == recipe
    assert load_recipe(str(builtin_recipes()[name])) == recipe


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_built_in_recipe_says_first_what_it_is_and_what_it_needs(name: str) -> None:
    lines = builtin_recipes()[name].read_text().splitlines()
    comment = "\n".join(lines[: lines.index("model:")])
    assert all(line.startswith("# ") for line in comment.splitlines())
    assert "# Needs: " in comment
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("cifar10", "cosine"),
        ("cifar100", "cosine"),
        ("cifar10-kim", "cosine-epoch"),
        ("cifar100-kim", "cosine-epoch"),
    ],
)
def test_the_cifar_recipes_follow_appendix_e_of_the_paper(name: str, schedule: str) -> None:
    recipe = load_recipe(name)
    training = recipe.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (300, 128, 0.3)
    assert (training.optimizer, training.momentum, training.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (training.schedule, recipe.model.args["time_steps"]) == (schedule, 5)


@pytest.mark.parametrize("name", ["cifar10-kim", "cifar100-kim"])
def test_the_recipes_of_kim_et_al_do_as_their_code(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.args["neuron"] == {"beta": 0.25, "decay_input": True}
    data = recipe.data
    assert (data.validation, data.crop, data.flip, data.cutout) == (0, 4, True, 16)
    assert recipe.imp is not None
    # `iter_ == rewinding_epoch` is met after epoch 21; `end_iter - rewinding_epoch` are 280
    assert (recipe.imp.rewind_epoch, recipe.imp.round_epochs) == (21, 280)
    assert not recipe.imp.rewind_statistics
    assert round(recipe.imp.targets[-1], 4) == 0.9822  # their 98.13 % of all parameters


def test_the_recipes_of_figures_have_what_the_figures_show() -> None:
    three, five = load_recipe("paper-figure-3"), load_recipe("paper-figure-5")
    assert list(expand_grid(three)) == [
        *("snn-vgg-16-cifar10", "snn-vgg-16-cifar100"),
        *("res-snn-19-cifar10", "res-snn-19-cifar100"),
    ]
    assert list(expand_grid(five)) == ["res-snn-19-cifar10", "res-snn-19-cifar100"]
    assert three.search is not None
    assert five.imp is not None
    assert three.search.dense
    assert three.search.sparsities == (0.1, 0.3, 0.5, 0.7, 0.9)
    assert five.imp.methods == ("imp", "sf-imp-1", "sf-imp-2")
    epochs = {name: recipe.training.epochs for name, recipe in (("3", three), ("5", five))}
    assert epochs == {"3": 300, "5": 300}
    texts = {name: builtin_recipes()[f"paper-figure-{name}"].read_text() for name in epochs}
    assert f"{4 * 6 * 300:,} epochs" in texts["3"]
    assert f"{2 * (300 + 3 * 14 * 280):,} epochs" in texts["5"]


def test_an_error_over_a_built_in_recipe_is_told_by_its_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text("seed: -1\n")
    monkeypatch.setattr(loading, "builtin_recipes", lambda: {"own": tmp_path / "own.yaml"})
    with pytest.raises(RecipeError) as caught:
        load_recipe("own")
    assert "own.yaml:1: seed: -1 should be greater than or equal to 0" in caught.value.lines
