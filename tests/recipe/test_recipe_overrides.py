"""`--set a.b=value`: what it changes, and whose fault a bad value is."""

from pathlib import Path

import pytest

from snnprune.errors import UsageError
from snnprune.recipe.errors import RecipeError
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe

TEXT = """\
model:
  name: conv-snn
data:
  name: fashion-mnist-mini
training:
  epochs: 30
  learning_rate: 0.1
"""


def load(folder: Path, *overrides: str, text: str = TEXT) -> Recipe:
    file = folder / "r.yaml"
    file.write_text(text)
    return load_recipe(str(file), overrides)


def usage_error(folder: Path, *overrides: str, text: str = TEXT) -> str:
    with pytest.raises(UsageError) as caught:
        load(folder, *overrides, text=text)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_an_override_replaces_adds_and_the_last_one_wins(tmp_path: Path) -> None:
    recipe = load(tmp_path, "training.epochs=5", "seed=3", "data.flip=true", "training.epochs=7")
    assert (recipe.training.epochs, recipe.seed, recipe.data.flip) == (7, 3, True)
    assert recipe.training.learning_rate == 0.1


def test_an_override_makes_the_sections_it_needs(tmp_path: Path) -> None:
    recipe = load(tmp_path, "model.args.width=8", "model.args.neuron.beta=1e-1")
    assert recipe.model.args == {"width": 8, "neuron": {"beta": 0.1}}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model.args.x=8", 8),
        ("model.args.x=1e-3", 0.001),
        ("model.args.x=true", True),
        ("model.args.x=no", "no"),
        ("model.args.x='8'", "8"),
        ("model.args.x=a=b", "a=b"),
        ("model.args.x=file.py:build", "file.py:build"),
        ("model.args.x={y: 1}", {"y": 1}),
    ],
)
def test_the_value_of_an_override_is_yaml(tmp_path: Path, override: str, value: object) -> None:
    assert load(tmp_path, override).model.args == {"x": value}


def test_an_override_may_be_a_list_or_null(tmp_path: Path) -> None:
    recipe = load(tmp_path, "training.step_epochs=[10, 20]", "training.clip_norm=null")
    assert (recipe.training.step_epochs, recipe.training.clip_norm) == ((10, 20), None)


def test_an_override_can_supply_what_the_file_lacks(tmp_path: Path) -> None:
    text = TEXT.replace("  epochs: 30\n", "")
    assert load(tmp_path, "training.epochs=4", text=text).training.epochs == 4


def test_an_override_can_mend_a_bad_value_of_the_file(tmp_path: Path) -> None:
    text = TEXT.replace("epochs: 30", "epochs: 1.5")
    assert load(tmp_path, "training.epochs=4", text=text).training.epochs == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.lerning_rate=1",
            "--set training.lerning_rate: unknown setting. did you mean learning_rate?",
        ),
        ("trainng.epochs=1", "--set trainng: unknown setting. did you mean training?"),
        ("training.epochs=1.5", "--set training.epochs: 1.5 should be a whole number"),
        ("training.epochs=", "--set training.epochs: null should be a whole number"),
        ("data.validation=95", "--set data.validation: 95 should be less than 1. did you mean"),
        ("training.epochs.x=1", "--set training.epochs.x: training.epochs is a value, not a"),
        ("seed.x=1", "--set seed: a section should be a whole number"),
        ("data={crop: 4}", "--set data.name: missing. needed: a built-in data set"),
        ("data.name='x", "--set data.name: not YAML at column 3: "),
        ("data.name=!!str x", "--set data.name: tag 'tag:yaml.org,2002:str' is not allowed"),
        ("training.schedule=step", "--set: training.step_epochs: schedule step needs at least"),
        ("training", "--set: 'training' is not of the form a.b=value"),
        ("=3", "--set: '=3' is not of the form a.b=value"),
        ("a..b=3", "--set: 'a..b=3' is not of the form a.b=value"),
    ],
)
def test_a_bad_override_is_an_error_of_usage(tmp_path: Path, override: str, message: str) -> None:
    assert usage_error(tmp_path, override).startswith(message)


def test_an_endless_path_is_refused(tmp_path: Path) -> None:
    override = "model.args" + ".a" * 20_000 + "=1"
    assert usage_error(tmp_path, override).endswith("nested too deeply")


def test_errors_of_the_file_stay_its_own_beside_good_overrides(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, "seed=3", text=TEXT + "  lerning_rate: 1\n")
    assert caught.value.lines == (
        f"{tmp_path}/r.yaml:8: training.lerning_rate: unknown setting. did you mean learning_rate?",
    )
