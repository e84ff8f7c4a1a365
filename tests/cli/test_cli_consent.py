"""A recipe or a run folder makes no code run that the user has not named or agreed to."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from one_line import assert_one_line
from typer.main import get_command

from snnprune.cli.commands import make_app

Run = Callable[..., subprocess.CompletedProcess[str]]

THEIRS = """
from pathlib import Path

Path("PROOF").touch()


def run(*args, **kwargs):
    Path("PROOF").touch()
    raise RuntimeError("and that was all")
"""
OWN = """
from os import system
from pathlib import Path

import torch

from snnprune.pruning.criteria import criterion
from snnprune.models.networks import conv_snn

Path("IMPORTED").touch()


def build(**args):
    return conv_snn(width=4, depth=1, time_steps=2, in_channels=1, size=16, classes=10)


def noise():
    draws = torch.Generator().manual_seed(0)
    return [(torch.rand(80, 1, 16, 16, generator=draws), torch.arange(80) % 10)]


@criterion(needs="weight")
def largest(evidence):
    return evidence.weight.abs()
"""
PLAIN: dict[str, Any] = {
    "model": {"name": "conv-snn"},
    "data": {"name": "fashion-mnist-mini"},
    "training": {"epochs": 1, "batch_size": 500, "learning_rate": 0.1},
    "gradual": {"sparsity": 0.5},
    "imp": {"rounds": 1},
    "search": {"sparsities": [0.5]},
}
SHELL = {"model": {"name": "os:system", "args": {"command": "touch PROOF"}}}
MINE = {"model": {"name": "own.py:build"}, "data": {"name": "own.py:noise"}}
SETTINGS = [
    *("model.name", "model.forward", "model.readout", "data.name", "data.test", "data.evaluation"),
    *("grid.models", "grid.data", "imp.methods", "imp.allocation"),
    *("gradual.criterion", "gradual.allocation"),
]
LOOPS = ("train", "imp", "search", "finetune")
OFFER = "--trust-recipe"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("theirs.py").write_text(THEIRS, "utf-8")
    Path("own.py").write_text(OWN, "utf-8")


def recipe(name: str = "r.yaml", /, **sections: dict[str, Any]) -> str:
    """Written with these settings beside plain ones."""
    found = {key: {**PLAIN.get(key, {}), **sections.get(key, {})} for key in {**PLAIN, **sections}}
    Path(name).write_text(yaml.safe_dump(found), "utf-8")
    return name


def naming(setting: str, reference: str = "theirs.py:run") -> str:
    """A recipe in which that setting names code."""
    section, _, name = setting.partition(".")
    if section == "grid":
        key = {"models": "model", "data": "data"}[name]
        grid = {"models": ["conv-snn"], "data": ["fashion-mnist-mini"]}
        grid[name] = [*grid[name], reference]
        assert PLAIN[key]["name"] in grid[name]
        return recipe(grid=grid)
    return recipe(**{section: {name: [reference] if setting == "imp.methods" else reference}})


def mine(**more: dict[str, Any]) -> str:
    return recipe("mine.yaml", **MINE, **more)


@pytest.mark.slow
def test_no_recipe_calls_the_shell(process: Run) -> None:
    recipe(**SHELL)
    asked = [("recipes", "validate", "r.yaml")]
    asked += [("train", "--recipe", "r.yaml", *more) for more in ((), ("--dry-run",), (OFFER,))]
    for command in asked:
        assert_one_line(process(*command), 3, "r.yaml: model.name: os:system is of Python's")
    typed = process("train", "--recipe", "r.yaml", "--set", "model.name=os:system")
    assert_one_line(typed, 3, "os:system is of Python's standard library")
    assert not Path("PROOF").exists()


@pytest.mark.many(1)
@pytest.mark.many(2)
@pytest.mark.parametrize("setting", SETTINGS)
def test_code_that_only_the_recipe_names_is_not_imported(setting: str, process: Run) -> None:
    naming(setting)
    command = "imp" if setting.startswith("imp") else "train"
    done = process(command, "--recipe", "r.yaml", "--out", "out")
    assert_one_line(done, 3, f"r.yaml: {setting}: names code: {setting} theirs.py:run", OFFER)
    assert not Path("PROOF").exists()
    assert not Path("out").exists()


@pytest.mark.many(2)
@pytest.mark.parametrize("setting", SETTINGS[:8])
def test_it_is_with_consent_so_these_recipes_are_true_bait(setting: str, run: Run) -> None:
    naming(setting)
    assert run("train", "--recipe", "r.yaml", "--out", "out", OFFER).returncode == 3
    assert Path("PROOF").exists()


@pytest.mark.parametrize("command", LOOPS)
@pytest.mark.parametrize("dry", [(), ("--dry-run",), ("--seeds", "0,1")])
def test_every_command_asks(command: str, dry: tuple[str, ...], model_file: Path, run: Run) -> None:
    naming("model.name")
    files = (model_file,) if command == "finetune" else ()
    done = run(command, *files, "--recipe", "r.yaml", "--out", "out", *dry)
    assert_one_line(done, 3, "or name it yourself: --set model.name=theirs.py:run")
    assert not Path("PROOF").exists()


@pytest.mark.many(2)
@pytest.mark.parametrize("command", LOOPS)
@pytest.mark.parametrize("sections", [SHELL, {"model": {"name": "theirs.py:run"}}])
def test_a_strangers_run_folder_is_not_resumed_into_their_code(
    command: str, sections: dict[str, Any], model_file: Path, process: Run
) -> None:
    Path("theirs/state").mkdir(parents=True)
    Path("theirs/run.lock").touch()
    recipe("theirs/recipe.yaml", **sections)
    files = (model_file,) if command == "finetune" else ()
    done = process(command, *files, "--resume", "--out", "theirs")
    assert_one_line(done, 3, "theirs/recipe.yaml: model.name: ", sections["model"]["name"])
    assert not Path("PROOF").exists()


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["criterion", "allocation", "repair"])
def test_prune_asks_for_what_its_recipe_names(
    setting: str, model_file: Path, process: Run, run: Run
) -> None:
    name = "bn+theirs.py:run" if setting == "repair" else "theirs.py:run"
    settings = {"sparsity": 0.5, "criterion": "magnitude", "repair": "none", setting: name}
    Path("p.yaml").write_text(yaml.safe_dump({"prune": settings}), "utf-8")
    asked = ("prune", model_file, "--recipe", "p.yaml", "-o", "out.safetensors")
    done = process(*asked)
    assert_one_line(done, 3, f"p.yaml: prune.{setting}: names code: prune.{setting} theirs.py:run")
    assert not Path("PROOF").exists()
    assert run(*asked, OFFER, "--samples", "8", "--no-eval").returncode == 3
    assert Path("PROOF").exists()


def test_a_flag_of_prune_takes_the_place_of_what_the_recipe_names(
    model_file: Path, run: Run
) -> None:
    text = {"prune": {"sparsity": 0.5, "criterion": "own.py:largest"}}
    Path("p.yaml").write_text(yaml.safe_dump(text), "utf-8")
    asked = ("prune", model_file, "--recipe", "p.yaml", "--no-eval", "--force")
    done = run(*asked, "-o", "out.safetensors")
    assert_one_line(done, 3, "or name it yourself: --criterion own.py:largest")
    for given in ("magnitude", "own.py:largest"):
        done = run(*asked, "-o", "out.safetensors", "--criterion", given, "--repair", "none")
        assert done.returncode == 0, done.stderr
        assert f"criterion {given} (asked for)" in done.stdout


def test_a_function_of_pythons_own_is_refused_behind_a_file_of_ones_own(run: Run) -> None:
    naming("model.name", "own.py:system")
    done = run("train", "--recipe", "r.yaml", OFFER, "--set", "model.args.command=touch PROOF")
    assert_one_line(done, 3, "own.py:system is a builtin or of Python's standard library")
    assert not Path("PROOF").exists()


def test_consent_is_of_the_command_line_by_setting_or_for_all(run: Run) -> None:
    mine()
    ask = ("train", "--recipe", "mine.yaml", "--dry-run")
    one = ("--set", "model.name=own.py:build")
    both = (*one, "--set", "data={name: 'own.py:noise'}")
    assert_one_line(run(*ask), 3, "model.name own.py:build, data.name own.py:noise")
    assert_one_line(run(*ask, *one), 3, "names code: data.name own.py:noise")
    assert_one_line(run(*ask, "--set", "model.args.x='own.py:build'", *both[2:]), 3, "model.name")
    assert not Path("IMPORTED").exists()
    done = run(*ask, *both, "--set", "imp.methods=[own.py:largest]")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flag", ["--test-data", "--eval-data"])
def test_data_that_a_flag_names_are_of_the_command_line(flag: str, run: Run) -> None:
    done = run("train", "--recipe", recipe(), "--dry-run", flag, "theirs.py:run")
    assert_one_line(done, 3, "theirs.py:run raised RuntimeError")


def test_consent_is_for_this_run_alone(run: Run) -> None:
    mine()
    assert run("train", "--recipe", "mine.yaml", "--out", "r", OFFER).returncode == 0
    assert_one_line(run("train", "--recipe", "mine.yaml", "--out", "s"), 3, OFFER)
    again = run("train", "--recipe", "mine.yaml", "--out", "r", "--force")
    assert_one_line(again, 3, OFFER)


@pytest.mark.slow
def test_a_run_of_ones_own_goes_on_without_asking_until_its_code_changes(run: Run) -> None:
    mine()
    assert run("train", "--recipe", "mine.yaml", "--out", "r", OFFER).returncode == 0
    Path("r/DONE").unlink()
    shutil.copytree("r", "copy")
    for more in ((), ("--recipe", "mine.yaml")):
        done = run("train", "--resume", "--out", "r", *more)
        assert done.returncode == 0, done.stderr
    assert_one_line(run("train", "--resume", "--out", "copy"), 3, "copy/recipe.yaml: model.name")
    named = Path("r/recipe.yaml").read_text("utf-8").replace("own.py:noise", "theirs.py:run")
    Path("r/recipe.yaml").write_text(named, "utf-8")
    assert_one_line(
        run("train", "--resume", "--out", "r"), 3, "names code: data.name theirs.py:run"
    )
    Path("r/recipe.yaml").write_text(named.replace("theirs.py:run", "own.py:noise"), "utf-8")
    Path("own.py").write_text(f"{OWN}# changed\n", "utf-8")
    assert_one_line(run("train", "--resume", "--out", "r"), 3, "changed since the run began", OFFER)
    assert run("train", "--resume", "--out", "r", OFFER).returncode == 0
    assert run("train", "--resume", "--out", "r").returncode == 0


@pytest.mark.slow
def test_each_of_several_seeds_goes_on_without_asking(run: Run) -> None:
    mine()
    seeds = ("--seeds", "0,1", "--out", "r")
    assert run("train", "--recipe", "mine.yaml", *seeds, OFFER).returncode == 0
    for folder in ("r", "r/seed-1"):
        (Path(folder) / "DONE").unlink()
        done = run("train", "--resume", "--out", folder)
        assert done.returncode == 0, done.stderr


def test_a_dry_run_leaves_no_consent(run: Run) -> None:
    mine()
    assert run("train", "--recipe", "mine.yaml", "--out", "r", "--dry-run", OFFER).returncode == 0
    Path("r").mkdir()
    Path("r/run.lock").touch()
    shutil.copy("mine.yaml", "r/recipe.yaml")
    assert_one_line(run("train", "--resume", "--out", "r"), 3, OFFER)


def test_a_run_whose_consent_cannot_be_noted_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(Path("own.py").absolute()))
    mine()
    done = run("train", "--recipe", "mine.yaml", "--out", "r", OFFER)
    assert done.returncode == 0, done.stderr
    assert "--resume will need --trust-recipe" in done.stderr


def test_validate_and_show_tell_which_code_is_named(run: Run) -> None:
    naming("imp.methods", "theirs.py:run")
    done = run("recipes", "validate", "r.yaml")
    assert done.returncode == 0
    assert "names code: imp.methods theirs.py:run: --trust-recipe runs it" in done.stdout
    done = run("recipes", "show", "r.yaml")
    assert yaml.safe_load(done.stdout)["imp"]["methods"] == ["theirs.py:run"]
    assert done.stderr == "names code: imp.methods theirs.py:run\n"
    assert not Path("PROOF").exists()
    assert run("recipes", "show", "smoke").stderr == ""


def test_what_a_file_names_is_told_escaped_and_cut(run: Run) -> None:
    naming("model.name", "\u202egnp.\x85py:run" + "x" * 500)
    for command in (("recipes", "validate"), ("recipes", "show"), ("train", "--recipe")):
        done = run(*command, "r.yaml")
        assert "\u202e" not in done.stdout + done.stderr
        assert "x" * 100 not in done.stderr or command[0] != "recipes"


@pytest.mark.parametrize("name", ["tensors:x.pt", "imagefolder:theirs.py:run"])
def test_files_of_data_are_no_code(name: str, run: Run) -> None:
    naming("data.name", name)
    assert "names code" not in run("recipes", "validate", "r.yaml").stdout
    naming("model.name", name)
    assert "names code" in run("recipes", "validate", "r.yaml").stdout


def test_every_command_that_takes_a_recipe_asks_for_consent() -> None:
    for command in get_command(make_app()).commands.values():  # type: ignore[attr-defined]
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert ("--recipe" in flags) is (OFFER in flags), command.name


def test_a_class_that_is_no_network_is_no_model(model_file: Path, run: Run) -> None:
    Path("own.py").write_text("class Maker: ...\n", "utf-8")
    done = run("inspect", model_file, "--model", "own.py:Maker")
    assert_one_line(done, 3, "--model: own.py:Maker is no torch.nn.Module")


@pytest.mark.parametrize("flag", ["--model", "--data", "--readout", "--criterion"])
def test_no_flag_calls_the_shell(flag: str, model_file: Path, run: Run) -> None:
    done = run("prune", model_file, "--sparsity", "0.5", "-o", "x.safetensors", flag, "os:system")
    assert_one_line(done, 3, flag, "os:system is of Python's standard library")
