"""`snnprune.toml` and `[tool.snnprune]`: said once, and no way to run a stranger's code."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from typer.models import OptionInfo

from snnprune.cli.options import expand_options
from snnprune.jobs.options import CheckOptions
from snnprune.jobs.prune.options import PruneOptions
from snnprune.jobs.targets.options import PANEL
from snnprune.jobs.targets.settings import OF_MODEL, SETTINGS, find_config

Run = Callable[..., subprocess.CompletedProcess[str]]

OWN = """
from pathlib import Path

import torch

from snnprune.models.networks import conv_snn

Path("IMPORTED").touch()


def build(width=8):
    return conv_snn(width=width, depth=1, time_steps=2, in_channels=1, size=8, classes=10)


def noise():
    draws = torch.Generator().manual_seed(0)
    return [(torch.rand(40, 1, 8, 8, generator=draws), torch.arange(40) % 10)]
"""
SAID = """
model = "own.py:build"
model-arg = {width = 4}
data = "own.py:noise"
"""
TYPED = ("--model", "own.py:build", "--model-arg", "width=4", "--data", "own.py:noise")
ON_COMMAND_LINE_ALONE = {"seed", "download", "allow-nonfinite"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a network of its own and a checkpoint of it, not yet any settings."""
    from snnprune.models.networks import conv_snn

    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("own.py").write_text(OWN, "utf-8")
    shape: dict[str, Any] = {
        "depth": 1,
        "time_steps": 2,
        "in_channels": 1,
        "size": 8,
        "classes": 10,
    }
    torch.save(conv_snn(width=4, **shape).state_dict(), "net.pth")
    return folder


def say(text: str = SAID, file: str = "snnprune.toml") -> None:
    Path(file).write_text(text, "utf-8")


def report(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {
        name: found[name]
        for name in ("model", "data", "evaluation", "layers", "warnings", "notes", "config")
        if name in found
    }


def test_what_is_said_once_is_as_if_typed(run: Run, place: Path) -> None:
    typed = report(run("eval", "net.pth", *TYPED, "--json"))
    say()
    said = report(run("eval", "net.pth", "--trust-config", "--json"))
    path = str(place / "snnprune.toml")
    assert said.pop("config") == {"path": path, "settings": ["model", "model-arg", "data"]}
    assert said.pop("notes") == [f"model, model-arg, data of {path}"]
    assert typed.pop("notes") == []
    assert said == typed


def test_a_flag_comes_before_it(run: Run) -> None:
    say(f'{SAID}\nexclude = ["nothing*"]\nbatch-size = 7')
    asked = ("eval", "net.pth", "--trust-config", "--exclude", "classifier*", "--json")
    found = json.loads(run(*asked).stdout)
    assert found["excluded"] == ["classifier.weight"]
    assert found["config"]["settings"] == ["model", "model-arg", "data", "batch-size"]


def test_another_model_is_not_given_the_arguments_of_the_files_model(run: Run) -> None:
    say(f"{SAID}\nreadout = 'last'")
    done = run("eval", "net.pth", "--model", "own.py:build", "--trust-config")
    assert_one_line(done, 3, "net.pth: does not fit the model")
    assert set(OF_MODEL) < set(SETTINGS)


def test_the_nearest_one_holds_and_a_pyproject_without_the_table_is_passed_over(
    place: Path,
) -> None:
    say("[tool.snnprune]\ndevice = 'cpu'", "pyproject.toml")
    inner = place / "a" / "b"
    inner.mkdir(parents=True)
    (place / "a" / "pyproject.toml").write_text("[project]\nname = 'snnprune-runs'", "utf-8")
    (inner / "pyproject.toml").write_bytes(b"")
    assert find_config(inner) == place / "pyproject.toml"
    say("device = 'cpu'")
    assert find_config(inner) == place / "snnprune.toml"


def test_paths_in_it_are_relative_to_it(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("\n".join(["[tool.snnprune]", SAID]), "pyproject.toml")
    (place / "below").mkdir()
    monkeypatch.chdir(place / "below")
    found = json.loads(run("eval", "../net.pth", "--trust-config", "--json").stdout)
    assert found["data"]["name"] == "../own.py:noise"
    assert found["evaluation"]["samples"] == 40


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("modell = 'x'", "modell: unknown setting. did you mean model?"),
        ("sparsity = 0.9", "sparsity: unknown setting"),
        ("device = 3", "device: takes text, not 3"),
        ("batch-size = true", "batch-size: takes a whole number of at least 1, not True"),
        ("exclude = 'conv*'", "exclude: takes a list of texts"),
        ("model-arg = ['width=4']", "model-arg: takes a table"),
        ("model-arg = {when = 2020-01-01}", "model-arg: takes a table of numbers"),
        ("link = {a = 1}", "link: takes a table"),
        ("forward = 'repeat:x'", "forward: 'repeat:x' has no number of time steps"),
        ("data = 'mnst'", "data: unknown data set 'mnst'. did you mean mnist?"),
        ("model = 'conv-sn'", "model: unknown model 'conv-sn'. did you mean conv-snn?"),
        ("device = 'tpu'", "device: no device 'tpu' here"),
        ("model = ", "is no TOML: Invalid value (at "),
    ],
)
def test_what_is_wrong_in_it_is_told_with_file_and_setting(
    text: str, told: str, run: Run, place: Path
) -> None:
    say(text)
    plain = () if "data" in text or "device" in text else ("--data", "fashion-mnist-mini")
    model = () if "model" in text else ("--model", "conv-snn")
    done = run("eval", "net.pth", *plain, *model)
    assert_one_line(done, 3, f"{place}/snnprune.toml: {told}")


def test_code_that_it_names_runs_with_consent_only_and_that_is_remembered(run: Run) -> None:
    say()
    refused = run("inspect", "net.pth")
    names = "snnprune.toml: model: names code: model "
    assert_one_line(refused, 3, names, "own.py:noise", "run it with --trust-config")
    assert not Path("IMPORTED").exists()
    assert run("inspect", "net.pth", "--trust-config").returncode == 0
    assert Path("IMPORTED").exists()
    assert run("inspect", "net.pth").returncode == 0
    Path("own.py").write_text(f"{OWN}\n# pulled from elsewhere", "utf-8")
    assert_one_line(run("inspect", "net.pth"), 3, "changed since")


@pytest.mark.many(2)
@pytest.mark.parametrize("key", ["model", "forward", "readout", "data", "test-data", "eval-data"])
@pytest.mark.parametrize("reference", ["own.py:build", "own:build", "os:system"])
def test_no_setting_runs_code_by_itself(key: str, reference: str, run: Run) -> None:
    say(f'{key} = "{reference}"')
    done = (
        run("eval", "net.pth", "--model", "conv-snn") if key != "model" else run("eval", "net.pth")
    )
    assert_one_line(
        done, 3, "snnprune.toml: ", "standard library" if "os:" in reference else "--trust"
    )
    assert not Path("IMPORTED").exists()


def test_an_argument_that_names_an_object_needs_consent_too(run: Run) -> None:
    say('model = "conv-snn"\nmodel-arg = {width = "own.py:build"}')
    assert_one_line(run("inspect", "net.pth"), 3, "model-arg: names code: model-arg ", "--trust")
    assert not Path("IMPORTED").exists()


def test_what_a_flag_takes_the_place_of_needs_no_consent(run: Run) -> None:
    say('data = "own.py:noise"')
    done = run("inspect", "net.pth", "--data", "fashion-mnist-mini")
    assert done.returncode == 0, done.stderr
    assert not Path("IMPORTED").exists()


def test_no_config_goes_without_and_config_takes_another(run: Run, place: Path) -> None:
    say("nonsense")
    assert run("inspect", "net.pth", "--no-config").returncode == 0
    say("device = 'cpu'", "other.toml")
    found = json.loads(run("inspect", "net.pth", "--config", "other.toml", "--json").stdout)
    assert found["config"] == {"path": "other.toml", "settings": ["device"]}
    assert_one_line(run("inspect", "net.pth", "--config", "other.toml", "--no-config"), 2, "either")
    assert_one_line(run("inspect", "net.pth", "--config", "none.toml"), 3, "none.toml: no such")
    say("[tool.ruff]", "pyproject.toml")
    done = run("inspect", "net.pth", "--config", "pyproject.toml")
    assert_one_line(done, 3, "has no table [tool.snnprune]")


def test_what_somebody_else_put_above_is_not_taken(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("device = 'cpu'")
    monkeypatch.setattr("os.getuid", lambda: 12345)
    monkeypatch.setattr(
        "snnprune.jobs.targets.settings._read_owner", lambda path: 54321, raising=True
    )
    assert_one_line(run("inspect", "net.pth"), 3, "snnprune.toml: belongs to another user")
    assert run("inspect", "net.pth", "--config", "snnprune.toml").returncode == 0


def test_a_recipe_says_the_data_of_a_training_and_the_file_the_device(run: Run) -> None:
    say('model = "own.py:build"\ndata = "own.py:noise"\ndevice = "tpu"')
    done = run("train", "--recipe", "fashion-mnist-mini", "--dry-run", "--out", "out")
    assert_one_line(done, 3, "snnprune.toml: device: no device 'tpu' here")
    assert not Path("IMPORTED").exists()


def test_it_is_refused_before_torch_is_imported() -> None:
    say("modell = 'x'")
    code = (
        "import sys; from snnprune.cli import run_app, run_command;"
        "print(run_app(run_command, ['inspect', 'net.pth']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"], done.stderr


@pytest.mark.parametrize("options", [PruneOptions, CheckOptions])
def test_every_flag_of_network_and_data_is_a_setting_or_said_to_be_none(options: type) -> None:
    import inspect

    def command(asked: object) -> None: ...

    command.__annotations__ = {"asked": options}
    shown = inspect.signature(expand_options(command)).parameters.values()
    told = {
        one.name.replace("_", "-").removesuffix("s")
        for one in shown
        for note in getattr(one.annotation, "__metadata__", ())
        if isinstance(note, OptionInfo) and note.rich_help_panel == PANEL
    }
    assert told - ON_COMMAND_LINE_ALONE | {"readout"} == set(SETTINGS) | {"readout"}
