"""A recipe that is written down loads back as it was."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from snnprune.recipe.loading import builtin_recipes, load_recipe
from snnprune.recipe.schema import DataSection, ModelSection, Recipe
from snnprune.recipe.sections import TrainingSection
from snnprune.recipe.yaml_text import dump_recipe

ENCODABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
LOOKALIKES = st.sampled_from(
    [
        "1e3",
        "1e-3",
        "0o17",
        "0x1f",
        "010",
        "no",
        "null",
        "~",
        "",
        "1:30",
        "2026-01-01",
        ".nan",
        "<<",
    ]
)
TEXT = st.text(ENCODABLE, max_size=200) | LOOKALIKES
NAMES = TEXT.filter(bool)
SCALARS = (
    st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
ARGUMENTS = st.dictionaries(
    NAMES, st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner), max_leaves=6)
)


def reloaded(recipe: Recipe) -> Recipe:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.yaml")
        file.write_text(dump_recipe(recipe), encoding="utf-8")
        return load_recipe(str(file))


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_built_in_recipe_loads_back_equal(name: str) -> None:
    assert reloaded(load_recipe(name)) == load_recipe(name)


@pytest.mark.slow
@settings(deadline=None)
@given(name=NAMES, args=ARGUMENTS, rate=st.floats(1e-300, 1e300), seed=st.integers(0, 2**63 - 1))
def test_any_recipe_loads_back_equal_and_of_the_same_types(
    name: str, args: dict[str, Any], rate: float, seed: int
) -> None:
    recipe = Recipe(
        model=ModelSection(name="m", args=args),
        data=DataSection(name=name),
        training=TrainingSection(epochs=9, learning_rate=rate, step_epochs=(3, 5)),
        seed=seed,
    )
    assert repr(reloaded(recipe)) == repr(recipe)


def test_every_setting_is_written_defaults_too() -> None:
    tree = yaml.safe_load(dump_recipe(load_recipe("smoke")))
    some = {"gradual", "imp", "search", "finetune", "grid"}  # only where the recipe has them
    assert {*tree, *some} == set(Recipe.model_fields)
    assert list(tree["training"]) == list(TrainingSection.model_fields)
    assert tree["training"]["step_epochs"] == []
    assert tree["training"]["clip_norm"] is None


def test_text_that_looks_like_a_number_is_quoted_for_readers_of_either_yaml_version() -> None:
    recipe = load_recipe("smoke", ["model.args={a: '1e3', b: 'no', c: '0o17'}"])
    text = dump_recipe(recipe)
    assert "a: '1e3'" in text
    assert "b: 'no'" in text
    assert "c: '0o17'" in text
