"""Which settings are taken, which are refused, and in which words."""

from pathlib import Path

import pytest

from snnprune.errors import InputError
from snnprune.recipe.errors import RecipeError
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe
from snnprune.recipe.sections import TrainingSection

BASE = """\
model:
  name: conv-snn
data:
  name: fashion-mnist-mini
training:
  epochs: 30
  learning_rate: 0.1
"""


def load(folder: Path, text: str) -> Recipe:
    file = folder / "r.yaml"
    file.write_text(text)
    return load_recipe(str(file))


def faults(folder: Path, text: str) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(RecipeError) as caught:
        load(folder, text)
    return [line.removeprefix(f"{folder}/") for line in caught.value.lines]


def training(setting: str) -> str:
    """A recipe whose line 8 is `setting`, in place of an earlier one of that name."""
    name = setting.partition(":")[0]
    rest = [line for line in BASE.splitlines() if not line.startswith(f"  {name}:")]
    blank = [""] * (7 - len(rest))
    return "\n".join([*rest, *blank, f"  {setting}"]) + "\n"


def test_settings_left_out_have_their_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, BASE)
    assert recipe.training == TrainingSection(
        epochs=30,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=0.0005,
        schedule="cosine",
        step_epochs=(),
        step_factor=0.1,
        warmup_epochs=0,
        label_smoothing=0.0,
        loss="per-step",
        precision="off",
        clip_norm=None,
    )
    assert (recipe.data.validation, recipe.data.crop, recipe.data.flip) == (0.1, 0, False)
    assert (recipe.model.args, recipe.seed) == ({}, 0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("learning_rate: 1e-3", 0.001),
        ("learning_rate: 1E3", 1000.0),
        ("learning_rate: 1", 1.0),
        ("epochs: 1", 1),
        ("epochs: 010", 10),
        ("epochs: 0x10", 16),
        ("momentum: 0", 0.0),
        ("momentum: 0.999", 0.999),
        ("optimizer: adamw", "adamw"),
        ("precision: off", "off"),
        ("schedule: one-cycle", "one-cycle"),
        ("clip_norm: null", None),
        ("clip_norm: 1.5", 1.5),
        ("warmup_epochs: 29", 29),
        ("step_epochs: [10, 29]", (10, 29)),
    ],
)
def test_a_good_value_is_taken(tmp_path: Path, setting: str, value: object) -> None:
    taken = getattr(load(tmp_path, training(setting)).training, setting.partition(":")[0])
    assert taken == value
    assert type(taken) is type(value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs: 1.5", "1.5 should be a whole number"),
        ("epochs: 1e2", "100.0 should be a whole number. write 100"),
        ("epochs: true", "true should be a whole number"),
        ("epochs: 1:30", "'1:30' should be a whole number"),
        ("epochs: 2026-01-01", "'2026-01-01' should be a whole number"),
        ("epochs: '3'", "'3' should be a whole number. write it without quotes"),
        ("epochs: 0", "0 should be greater than or equal to 1"),
        ("epochs:", "null should be a whole number"),
        ("epochs: [3]", "a list should be a whole number"),
        ("batch_size: 0", "0 should be greater than or equal to 1"),
        ("learning_rate: -1", "-1 should be greater than 0"),
        ("learning_rate: 0", "0 should be greater than 0"),
        ("learning_rate: .nan", "nan should be a finite number"),
        ("learning_rate: .inf", "inf should be a finite number"),
        ("learning_rate: 1e999", "inf should be a finite number"),
        ("learning_rate: true", "true should be a number"),
        ("learning_rate: '0.1'", "'0.1' should be a number. write it without quotes"),
        ("learning_rate: fast", "'fast' should be a number"),
        ("learning_rate: 1_000", "'1_000' should be a number"),
        ("momentum: 95", "95 should be less than 1. did you mean 0.95?"),
        ("momentum: 1", "1 should be less than 1. a share is written as 0.95, not 95"),
        ("momentum: 100", "100 should be less than 1. a share is written as 0.95, not 95"),
        ("momentum: -0.1", "-0.1 should be greater than or equal to 0"),
        ("momentum: 90%", "'90%' should be a number. did you mean 0.9?"),
        ("label_smoothing: 10", "10 should be less than 1. did you mean 0.1?"),
        ("weight_decay: -1e-4", "-0.0001 should be greater than or equal to 0"),
        ("optimizer: adam", "'adam' should be 'sgd' or 'adamw'"),
        ("optimizer: __class__", "'__class__' should be 'sgd' or 'adamw'"),
        ("schedule: 3", "3 should be 'cosine', 'cosine-epoch', 'step', 'one-cycle' or 'constant'"),
        ("precision: fp8", "'fp8' should be 'off', 'bf16' or 'fp16'"),
        ("precision: true", "true should be 'off', 'bf16' or 'fp16'"),
        ("clip_norm: 0", "0 should be greater than 0"),
        ("step_factor: 10", "10 should be less than 1. did you mean 0.1?"),
        ("warmup_epochs: -1", "-1 should be greater than or equal to 0"),
        ("warmup_epochs: 30", "30 should be less than epochs, which is 30"),
        ("step_epochs: 10", "10 should be a list"),
        ("step_epochs: [20, 10]", "the epochs should increase"),
        ("step_epochs: [10, 10]", "the epochs should increase"),
        ("step_epochs: [10, 30]", "30 should be less than epochs, which is 30"),
    ],
)
def test_a_bad_value_is_refused_with_its_line(tmp_path: Path, setting: str, message: str) -> None:
    name = setting.partition(":")[0]
    assert faults(tmp_path, training(setting)) == [f"r.yaml:8: training.{name}: {message}"]


@pytest.mark.parametrize(
    "seed", ["-1", "9223372036854775808", "1180591620717411303424", "1.0", "x"]
)
def test_a_seed_outside_63_bits_is_refused(tmp_path: Path, seed: str) -> None:
    (line,) = faults(tmp_path, f"{BASE}seed: {seed}\n")
    assert line.startswith("r.yaml:8: seed: ")


def test_the_largest_seed_is_taken(tmp_path: Path) -> None:
    assert load(tmp_path, f"{BASE}seed: {2**63 - 1}\n").seed == 2**63 - 1


def test_schedule_step_needs_epochs(tmp_path: Path) -> None:
    (line,) = faults(tmp_path, training("schedule: step"))
    expected = "training.step_epochs: schedule step needs at least one epoch here"
    assert line == f"r.yaml:5: {expected}"


def test_schedule_step_with_epochs_is_taken(tmp_path: Path) -> None:
    recipe = load(tmp_path, training("schedule: step") + "  step_epochs: [10, 20]\n")
    assert recipe.training.step_epochs == (10, 20)


def test_a_bad_item_of_a_list_is_named_by_its_place_and_line(tmp_path: Path) -> None:
    text = training("step_epochs:\n    - 3\n    - 4.5\n    - true")
    assert faults(tmp_path, text) == [
        "r.yaml:10: training.step_epochs.1: 4.5 should be a whole number",
        "r.yaml:11: training.step_epochs.2: true should be a whole number",
    ]


def test_a_misspelt_setting_is_told_with_its_line_and_the_setting_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "#\n#\n#\n" + training("momentum: 0.9") + "  lerning_rate: 0.1\n"
    Path("cifar10.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe("cifar10.yaml")
    assert str(caught.value) == (
        "cifar10.yaml:12: training.lerning_rate: unknown setting. did you mean learning_rate?"
    )


def test_an_unknown_section_lists_the_known_ones(tmp_path: Path) -> None:
    assert faults(tmp_path, f"{BASE}xyz: {{}}\n") == [
        "r.yaml:8: xyz: unknown setting. choose from data, finetune, gradual, grid, imp, model, "
        "output, search, seed, seeds, training"
    ]


@pytest.mark.parametrize("value", ["3", "text", "[a, b]", ""])
def test_a_section_that_is_a_value_is_refused(tmp_path: Path, value: str) -> None:
    text = BASE.replace("data:\n  name: fashion-mnist-mini\n", f"data: {value}\n")
    (line,) = faults(tmp_path, text)
    assert line.startswith("r.yaml:3: data: ")
    assert line.endswith(" should be a section of settings")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, BASE.replace("conv-snn", "42")) == [
        "r.yaml:2: model.name: 42 should be text. put it in quotes"
    ]
    assert faults(tmp_path, BASE.replace("conv-snn", "''")) == [
        "r.yaml:2: model.name: '' should have at least 1 character"
    ]


def test_every_error_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
seed: -1
training:
  lerning_rate: 0.1
  epochs: 1.5
model:
  name: conv-snn
  args:
    width: [8]
    neuron:
      beta: .nan
data:
  name: cifar10
  validation: 95
  crop: true
  flip: yes
"""
    assert faults(tmp_path, text) == [
        "r.yaml:1: seed: -1 should be greater than or equal to 0",
        "r.yaml:2: training.learning_rate: missing. needed: peak learning rate, above 0",
        "r.yaml:3: training.lerning_rate: unknown setting. did you mean learning_rate?",
        "r.yaml:4: training.epochs: 1.5 should be a whole number",
        "r.yaml:8: model.args.width: a list should be a number, true, false, text or a section",
        "r.yaml:10: model.args.neuron.beta: nan should be a finite number",
        "r.yaml:13: data.validation: 95 should be less than 1. did you mean 0.95?",
        "r.yaml:14: data.crop: true should be a whole number",
        "r.yaml:15: data.flip: 'yes' should be true or false",
    ]


def test_the_error_carries_its_first_problem_as_its_own(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, BASE + "  lerning_rate: 1\nseed: -1\n")
    error = caught.value
    assert (error.exit_code, error.file) == (3, f"{tmp_path}/r.yaml:8")
    assert (error.field, error.message) == ("training.lerning_rate", "unknown setting")
    assert error.hint == "did you mean learning_rate?"
    assert [problem.line for problem in error.problems] == [8, 9]
    assert str(error) == "\n".join(error.lines)


def test_a_flood_of_errors_is_cut_short(tmp_path: Path) -> None:
    lines = faults(tmp_path, BASE + "".join(f"x{n}: 1\n" for n in range(500)))
    assert len(lines) == 21
    assert lines[-1] == "r.yaml: 480 more problems"


def test_long_names_and_values_are_cut_in_messages(tmp_path: Path) -> None:
    name, value = "n" * 500, "v" * 70_000
    lines = faults(tmp_path, f"{BASE}{name}: 1\nseed: {value}\n")
    assert all(len(line) < 200 for line in lines)
    assert f"{'n' * 60}...: unknown setting" in lines[0]


def test_arguments_of_a_model_keep_their_types_and_nest(tmp_path: Path) -> None:
    args = "{width: 8, scale: 1.0, flag: true, text: 'no', neuron: {beta: 0.25, reset: hard}}"
    recipe = load(tmp_path, BASE.replace("conv-snn\n", f"conv-snn\n  args: {args}\n"))
    assert recipe.model.args == {
        "width": 8,
        "scale": 1.0,
        "flag": True,
        "text": "no",
        "neuron": {"beta": 0.25, "reset": "hard"},
    }
    assert type(recipe.model.args["scale"]) is float
    assert recipe.model.args["flag"] is True


def test_arguments_nested_without_end_are_refused(tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        args = "{a: " * depth + "1" + "}" * depth
        return BASE.replace("conv-snn\n", f"conv-snn\n  args: {args}\n")

    assert load(tmp_path, nested(9)).model.args
    (line,) = faults(tmp_path, nested(10))
    assert line.endswith("nested too deeply")


def test_a_recipe_cannot_be_changed(tmp_path: Path) -> None:
    recipe = load(tmp_path, BASE)
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.epochs = 5


def test_every_setting_says_what_it_is() -> None:
    for section in (Recipe, *(f.annotation for f in Recipe.model_fields.values())):
        fields = getattr(section, "model_fields", {})
        assert all(field.description for field in fields.values())


def test_a_one_cycle_schedule_takes_no_second_warm_up(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "model: {name: m}\ndata: {name: d}\n"
        "training: {epochs: 9, learning_rate: 0.1, schedule: one-cycle, warmup_epochs: 2}\n"
    )
    with pytest.raises(RecipeError, match="has a warm-up of its own"):
        load_recipe(str(path))
