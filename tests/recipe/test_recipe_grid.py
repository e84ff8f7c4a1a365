"""Several networks on several data sets in one recipe."""

from typing import Any

import pytest

from snnprune.recipe.schema import Recipe, expand_grid
from snnprune.recipe.yaml_text import dump_recipe, parse_text


def recipe(grid: dict[str, Any] | None = None, **data: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"name": "conv-snn", "args": {"time_steps": 2}},
            "data": {"name": "mnist", "validation": 0.2, **data},
            "training": {"epochs": 1, "learning_rate": 0.1},
            "grid": {
                "models": ["snn-vgg-16", "conv-snn"],
                "data": ["mnist", "cifar10"],
                **(grid or {}),
            },
        }
    )


def test_a_grid_is_a_recipe_for_each_pair_that_differs_by_the_two_names_alone() -> None:
    whole = recipe()
    runs = expand_grid(whole)
    assert [(one.model.name, one.data.name) for one in runs.values()] == [
        *(("snn-vgg-16", "mnist"), ("snn-vgg-16", "cifar10")),
        *(("conv-snn", "mnist"), ("conv-snn", "cifar10")),
    ]
    plain = whole.model_copy(update={"grid": None})
    assert runs["conv-snn-mnist"] == plain
    for one in runs.values():
        assert one.model.args == {"time_steps": 2}
        assert (one.data.validation, one.training, one.grid) == (0.2, whole.training, None)


def test_without_a_grid_there_are_no_runs_beside_the_recipe_itself() -> None:
    assert expand_grid(recipe().model_copy(update={"grid": None})) == {}


def test_a_folder_has_the_last_part_of_a_path_in_its_name() -> None:
    own = {"data": ["mnist", "tensors:/some where/x y.pt"], "models": ["conv-snn", "../a.py:net"]}
    assert list(expand_grid(recipe(own))) == [
        *("conv-snn-mnist", "conv-snn-x-y.pt"),
        *("a.py-net-mnist", "a.py-net-x-y.pt"),
    ]


def test_a_grid_that_is_written_out_is_read_back() -> None:
    whole = recipe()
    assert Recipe.model_validate(parse_text(dump_recipe(whole)).value) == whole


@pytest.mark.parametrize(
    ("data", "grid", "message"),
    [
        ({}, {"models": ["snn-vgg-16"]}, "model.name, conv-snn, should be one of snn-vgg-16"),
        ({}, {"data": ["cifar10"]}, "data.name, mnist, should be one of cifar10"),
        ({}, {"data": ["mnist", "mnist"]}, "each should be named once"),
        ({}, {"data": ["mnist", "tensors:a/x", "tensors:b/x"]}, "a folder of the same name"),
        ({}, {"models": []}, "at least 1"),
        ({"test": "svhn"}, {}, "data.test names samples of one data set"),
        ({"evaluation": "svhn"}, {}, "data.evaluation names samples of one data set"),
    ],
)
def test_what_does_not_go_together_is_refused(
    data: dict[str, Any], grid: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(grid, **data)


def test_test_images_of_their_own_go_with_one_data_set() -> None:
    assert recipe({"data": ["mnist"]}, test="svhn").data.test == "svhn"
