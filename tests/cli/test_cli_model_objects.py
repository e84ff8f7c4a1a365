"""Objects as arguments of a model: named on the command line, never by a file."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from safetensors import safe_open
from safetensors.torch import save_file

from snnprune.errors import InputError, UsageError
from snnprune.jobs.targets.provenance import make_metadata, read_model_spec
from snnprune.models import ModelSpec, build_model
from snnprune.plugins.names import (
    Reference,
    StoredReference,
    decode_references,
    load_objects,
    parse_typed,
)
from snnprune.recipe.loading import load_recipe, parse_settings
from snnprune.recipe.yaml_text import dump_recipe

Run = Callable[..., subprocess.CompletedProcess[str]]
Json = Callable[[subprocess.CompletedProcess[str]], Any]

GLUE = """
import torch
from torch import nn


class Fires(nn.Module):
    def __init__(self, threshold=0.5):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        return (x > self.threshold).to(x)


class Never(Fires):
    def forward(self, x):
        return (x > 1e9).to(x)


class Kinds:
    usual = Fires


never = Never()


class Net(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.hidden, self.spikes, self.out = nn.Linear(6, 8), make(), nn.Linear(8, 3)

    def forward(self, x):
        return torch.stack([self.out(self.spikes(self.hidden(x))) for _ in range(3)])


def build(neuron, options=None, note=""):
    return Net(neuron if callable(neuron) and not isinstance(neuron, nn.Module) else lambda: neuron)


def build_deep(kinds):
    return Net(kinds["hidden"][1])


def batches():
    torch.manual_seed(0)
    return [(4 * torch.rand(5, 6), torch.arange(5) % 3) for _ in range(2)]
"""
PROOF = "open('ran', 'w')\n\n\nclass Boom: ...\n"


@pytest.fixture
def glue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `glue.py`, `evil.py` and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("glue.py").write_text(GLUE)
    Path("evil.py").write_text(PROOF)
    torch.manual_seed(0)
    layers = {"hidden": torch.nn.Linear(6, 8), "out": torch.nn.Linear(8, 3)}
    save_file(torch.nn.ModuleDict(layers).state_dict(), "net.safetensors")
    return tmp_path


NET = ("net.safetensors", "--model", "glue.py:build", "--data", "glue.py:batches")


def rate(run: Run, as_json: Json, *flags: str, net: tuple[str, ...] = NET) -> float:
    """The firing rate of the only neuron."""
    done = run("eval", *net, *flags, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = as_json(done)["evaluation"]["firing_rates"].values()
    return float(found)


def test_a_class_an_instance_and_a_name_in_a_class_are_handed_to_the_builder(
    glue: Path, run: Run, as_json: Json
) -> None:
    fires = rate(run, as_json, "--model-arg", "neuron=glue.py:Fires")
    assert fires > 0.2
    assert rate(run, as_json, "--model-arg", "neuron=glue.py:Kinds.usual") == fires
    assert rate(run, as_json, "--model-arg", "neuron=glue.py:Never") == 0
    assert rate(run, as_json, "--model-arg", "neuron=glue.py:never") == 0


def test_an_object_within_a_value_is_found_too(glue: Path, run: Run, as_json: Json) -> None:
    net = ("net.safetensors", "--model", "glue.py:build_deep", "--data", "glue.py:batches")
    found = rate(run, as_json, "--model-arg", "kinds={hidden: [1, glue.py:Never]}", net=net)
    assert found == 0
    assert rate(run, as_json, "--model-arg", "kinds.hidden=[1, glue.py:Never]", net=net) == 0


@pytest.mark.slow
def test_a_module_needs_no_file_name(glue: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "snnprune",
        "inspect",
        "net.safetensors",
        "--model",
        "glue:build",
    ]
    done = subprocess.run(
        [*command, "--data", "glue:batches", "--model-arg", "neuron=glue:Fires", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["neuron"] for row in found["layers"]] == ["spikes", None]
    assert found["model"]["args"] == {"neuron": "glue:Fires"}


@pytest.mark.parametrize(
    "value",
    [
        "a:b",  # no such module
        "http://example.com/x.py:name",
        "example.com:8080",
        "12:30",
        ":name",
        '"torch.nn:ReLU"',
        "'torch.nn:ReLU'",
        "C:/data",
        "a b.c:d",
    ],
)
def test_what_names_no_object_is_what_it_was(value: str) -> None:
    (found,) = parse_settings([f"x={value}"], option="--model-arg").values()
    assert not isinstance(found, Reference)
    assert found == value.strip("\"'")


@pytest.mark.parametrize("value", ["torch.nn:ReLU", "json:dumps", "x/y.py:a.b", "no.such:thing"])
def test_what_has_the_form_of_a_name_is_one(value: str) -> None:
    (found,) = parse_settings([f"x={value}"], option="--model-arg").values()
    assert isinstance(found, Reference)
    assert found == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no.such:thing", "--model-arg neuron: no module named 'no.such'"),
        ("glue.py:Firs", "has no 'Firs'. did you mean Fires?"),
        ("nowhere.py:Fires", "no such file"),
    ],
)
def test_a_name_without_an_object_is_an_error_that_says_how_to_pass_text(
    value: str, words: str, glue: Path, run: Run
) -> None:
    done = run("inspect", *NET, "--model-arg", f"neuron={value}")
    assert_one_line(done, 3, words, f"""quote it: --model-arg 'neuron="{value}"'""")


def test_text_that_was_meant_to_be_an_object_is_told(glue: Path, run: Run) -> None:
    done = run("inspect", *NET, "--model-arg", "neuron=gluee:Fires")
    words = "neuron is text; --model-arg neuron=gluee:Fires names an object, if it is there"
    assert_one_line(done, 3, "--model", "TypeError", words)


@pytest.mark.slow
def test_a_file_keeps_what_it_was_and_does_not_name_it_again(glue: Path, run: Run) -> None:
    flags = ("--model-arg", "neuron=glue.py:Fires", "--model-arg", "note=a:b")
    done = run("prune", *NET, *flags, "--sparsity", "0.5", "-o", "p.safetensors")
    assert done.returncode == 0, done.stderr
    with safe_open("p.safetensors", "pt") as file:
        args = json.loads(file.metadata()["snnprune.model"])["args"]
    assert args == {"neuron": {"snnprune.reference": "glue.py:Fires"}, "note": "a:b"}
    again = ("p.safetensors", *NET[1:])
    words = "--model-arg neuron: the file says glue.py:Fires, and no file names code that runs"
    assert_one_line(run("eval", *again), 3, words, "give --model-arg neuron=glue.py:Fires")
    for value in ("glue.py:Fires", "glue.py:never"):
        done = run("eval", *again, "--model-arg", f"neuron={value}")
        assert done.returncode == 0, done.stderr
    report = json.loads(Path("p.report.json").read_text())
    assert report["model"]["args"] == {"neuron": "glue.py:Fires", "note": "a:b"}


@pytest.mark.parametrize("says", ["evil:Boom", {"snnprune.reference": "evil:Boom"}])
@pytest.mark.parametrize("deep", [False, True])
def test_a_stranger_cannot_choose_an_object(says: object, deep: bool, glue: Path, run: Run) -> None:
    tensors = {"hidden.weight": torch.ones(8, 6), "out.weight": torch.ones(3, 8)}
    tensors |= {"hidden.bias": torch.ones(8), "out.bias": torch.ones(3)}
    args = {"neuron": [{"in": says}] if deep else says}
    for name in ("glue.py:build", "conv-snn"):
        about = json.dumps({"name": name, "args": args})
        save_file(tensors, "theirs.safetensors", metadata={"snnprune.model": about})
        for command in ("inspect", "score"):
            done = run(command, "theirs.safetensors", "--model", name, *NET[3:])
            assert done.returncode == 3, done.stderr
            run(command, "theirs.safetensors")
    assert not Path("ran").exists()


def test_a_hostile_depth_ends_in_one_line(glue: Path, run: Run) -> None:
    depth = 700
    about = f'{{"name": "glue.py:build", "args": {{"neuron": {"[" * depth}1{"]" * depth}}}}}'
    tensors = {"hidden.weight": torch.ones(8, 6)}
    save_file(tensors, "theirs.safetensors", metadata={"snnprune.model": about})
    done = run("inspect", "theirs.safetensors", *NET[1:])
    assert done.returncode == 3
    assert "bug" not in done.stderr


def test_metadata_comes_back_as_what_builds_nothing() -> None:
    args = {"a": Reference("torch.nn:ReLU"), "b": {"c": [Reference("x.py:y"), 1]}, "d": "e.f:g"}
    spec = ModelSpec(name="conv-snn", args=args)
    found = read_model_spec(make_metadata("prune", model=spec))
    assert found is not None
    assert found.args == args  # the same text
    assert isinstance(found.args["a"], StoredReference)
    assert isinstance(found.args["b"]["c"][0], StoredReference)
    assert type(found.args["d"]) is str
    with pytest.raises(InputError, match="no file names code"):
        load_objects(found.args, flag="--model-arg ")
    assert load_objects({"a": args["a"]}, flag="--model-arg ")["a"] is torch.nn.ReLU


@pytest.mark.parametrize(
    "section", [{"snnprune.reference": "no name"}, {"snnprune.reference": 3}, {"a": 1}]
)
def test_a_section_that_is_no_reference_stays_one(section: dict[str, object]) -> None:
    assert decode_references({"x": section}) == {"x": section}


RECIPE = """
model: {{name: glue.py:build, args: {{neuron: {neuron}}}}}
data: {{name: glue.py:batches}}
training: {{epochs: 1, batch_size: 4, learning_rate: 0.1}}
"""


@pytest.mark.parametrize("neuron", ["evil:Boom", "{snnprune.reference: evil:Boom}"])
def test_a_recipe_cannot_name_an_object(neuron: str, glue: Path, run: Run) -> None:
    Path("theirs.yaml").write_text(RECIPE.format(neuron=neuron))
    done = run("train", "--recipe", "theirs.yaml", "--trust-recipe", "--out", "r")
    assert_one_line(done, 3, "--set model.args.neuron=evil:Boom")
    assert not Path("ran").exists()


def test_a_setting_of_the_command_line_names_one_and_a_run_goes_on_with_it(
    glue: Path, run: Run
) -> None:
    Path("glue.py").write_text(
        GLUE.replace("(x > self.threshold).to(x)", "(x > 0.5).to(x) + 0 * x")
    )
    Path("mine.yaml").write_text(RECIPE.format(neuron="'-'"))
    named = ("--set", "model.args.neuron=glue.py:Fires")
    done = run("train", "--recipe", "mine.yaml", "--trust-recipe", "--out", "r", *named)
    assert done.returncode == 0, done.stderr
    kept = load_recipe("r/recipe.yaml")
    assert isinstance(kept.model.args["neuron"], StoredReference)
    assert dump_recipe(kept) == Path("r/recipe.yaml").read_text()
    Path("r/DONE").unlink()
    assert_one_line(run("train", "--resume", "--out", "r"), 3, *named)
    done = run("train", "--resume", "--out", "r", *named)
    assert done.returncode == 0, done.stderr


def test_the_line_that_continues_a_run_names_its_objects(glue: Path) -> None:
    from snnprune.jobs.train.options import LoopOptions

    Path("mine.yaml").write_text(RECIPE.format(neuron="'-'"))
    recipe = load_recipe("mine.yaml", ["model.args.options={a: glue.py:Fires}"])
    options = LoopOptions(recipe=recipe, out=Path("r"))
    assert options.resume_command.endswith("--out r --set model.args.options.a=glue.py:Fires")


def test_only_arguments_of_the_model_are_objects() -> None:
    recipe = load_recipe("smoke", ["model.name=torch.nn:Sequential", "model.readout=a.b:c"])
    assert type(recipe.model.name) is str
    with pytest.raises(UsageError, match="--set training"):
        load_recipe("smoke", ["training.epochs=torch.nn:ReLU"])


def test_typing_a_reference_imports_nothing(glue: Path) -> None:
    assert isinstance(parse_typed("evil:Boom"), Reference)
    assert not Path("ran").exists()
    with pytest.raises(InputError, match="raised TypeError"):
        build_model(ModelSpec(name="glue.py:build", args={"note": "x"}))
