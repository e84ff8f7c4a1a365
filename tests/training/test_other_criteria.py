"""`imp` and gradual pruning by criteria that need more than weights or rates."""

from pathlib import Path

import pytest
import torch
from small_runs import CPU, Found, recipe_for, write_images

from snnprune.masks import Masks, count_prunable, count_pruned
from snnprune.training.setup import open_recipe_data
from snnprune.training.train import train

CRITERIA = ("sf-obs", "obs", "wanda", "fisher", "taylor", "sf-loss")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


@pytest.fixture(scope="module")
def by_size(images: Path) -> Masks:
    return gradually(images, "magnitude")


def gradually(images: Path, criterion: str) -> Masks:
    """The masks at the end of a run."""
    section = {"sparsity": 0.8, "steps": 4, "criterion": criterion, "allocation": "lamp"}
    recipe = recipe_for(images, gradual=section)
    return train(recipe, open_recipe_data(recipe), device=CPU).masks


def differ(one: Masks, other: Masks) -> bool:
    return any(not torch.equal(mask, other[key]) for key, mask in one.items())


@pytest.mark.many(2)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_gradual_pruning_takes_any_criterion(images: Path, by_size: Masks, criterion: str) -> None:
    masks = gradually(images, criterion)
    assert count_pruned(masks) == round(0.8 * count_prunable(masks))
    assert differ(masks, by_size)


@pytest.mark.many(1)
@pytest.mark.parametrize("criterion", CRITERIA[:3])
def test_imp_takes_any_criterion_for_a_method(images: Path, criterion: str) -> None:
    methods, sparsities = ("imp", criterion), (0.5, 0.8)
    section = {"methods": methods, "sparsities": sparsities, "allocation": "lamp"}
    masks = Found(recipe_for(images, imp=section)).kept.masks
    for number, sparsity in enumerate(sparsities, start=1):
        by_size, found = (masks[f"{method}/round-{number:02}"] for method in methods)
        assert count_pruned(found) == round(sparsity * count_prunable(found))
        assert differ(found, by_size)
