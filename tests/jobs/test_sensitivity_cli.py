"""`snnprune sensitivity`: what each layer costs alone, and a recipe of what costs little."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from two_checkpoints import DATA, lay_out, module

from snnprune.recipe.loading import load_prune_section

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
Json = Callable[[Done], Any]
FEW = (*DATA, "--batch-size", 20)
BASE = ("sensitivity", "a.safetensors", *FEW, "--samples", 20)
IMAGES = "tensors:images.safetensors"
OTHERS = "tensors:others.safetensors"
MAGNITUDE = ("--criterion", "magnitude", "--repair", "none")


@pytest.fixture
def tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The tensors of a.safetensors, in the current folder beside b.safetensors and images."""
    monkeypatch.chdir(tmp_path)
    return lay_out()


@torch.no_grad()
def scores(held: dict[str, Tensor], x: Tensor) -> Tensor:
    """Mean logits of a network with these tensors."""
    built = module()
    built.load_state_dict(held)
    made: Tensor = built(x).mean(0)
    return made


def others() -> dict[str, Tensor]:
    """The same images moved by a pixel, in a file of their own."""
    images = load_file("images.safetensors")
    moved = {"x": images["x"].roll(1, -1), "y": images["y"]}
    save_file(moved, OTHERS.removeprefix("tensors:"))
    return moved


def test_a_trial_is_one_layer_pruned_by_hand(
    tensors: dict[str, Tensor], run: Run, as_json: Json
) -> None:
    images = others()
    flags = ("--sparsities", "0.8,0", "--sparsity", "0.5", "--eval-data", OTHERS)
    done = run(*BASE, *MAGNITUDE, *flags, "--json")
    assert done.returncode == 0, done.stderr
    report = as_json(done)
    dense = scores(tensors, images["x"]).log_softmax(1).double()
    trials = {(trial["weight"], trial["sparsity"]): trial for trial in report["trials"]}
    for key in ("encoder.conv.weight", "blocks.0.conv.weight", "classifier.weight"):
        weight = tensors[key]
        smallest = weight.abs().flatten().argsort()[: round(0.8 * weight.numel())]
        pruned = weight.flatten().index_fill(0, smallest, 0.0).view(weight.shape)
        found = scores({**tensors, key: pruned}, images["x"]).log_softmax(1).double()
        divergence = (dense.exp() * (dense - found)).sum(1).mean()
        trial = trials[key, 0.8]
        assert trial["pruned"] == len(smallest)
        assert trial["divergence"] == pytest.approx(float(divergence), rel=1e-4)
        right = (found.argmax(1) == images["y"]).sum()
        assert trial["accuracy"] == int(right) / 60
        assert trials[key, 0.0]["divergence"] == 0  # the weights of the trial before are back
        assert trials[key, 0.0]["same_class"] == 1


@pytest.mark.slow
def test_the_recipe_prunes_exactly_that_much_and_prune_takes_it(
    tensors: dict[str, Tensor], run: Run
) -> None:
    others()
    flags = ("--sparsities", "0.5,0.9", "--sparsity", "0.8", "--eval-data", OTHERS, "-o", "out")
    done = run(*BASE, *MAGNITUDE, *flags)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in Path("out").iterdir()} == {
        *("sensitivity.json", "prune.yaml", "sensitivity.png", "sensitivity.svg"),
        *("report.html", "report.md"),
    }
    section = load_prune_section(Path("out/prune.yaml"))
    assert (section.criterion, section.repair, section.sparsity) == ("magnitude", "none", 0.8)
    pruning = ("prune", "a.safetensors", "--recipe", "out/prune.yaml", "-o", "p.safetensors")
    pruned = run(*pruning, *DATA, "--samples", 20)
    assert pruned.returncode == 0, pruned.stderr
    weights = {key: value for key, value in load_file("p.safetensors").items() if value.dim() > 1}
    zeros = {key: int((value == 0).sum()) for key, value in weights.items()}
    report = json.loads(Path("out/sensitivity.json").read_text())
    assert zeros == report["recipe"]["pruned"]
    total = sum(weight.numel() for weight in weights.values())
    assert sum(zeros.values()) == round(0.8 * total)
    assert len(set(section.layers.values())) > 1
    compared = run("diff", "a.safetensors", "p.safetensors", *FEW, "--eval-data", OTHERS, "--json")
    assert report["recipe"]["together"] == json.loads(compared.stdout)["agreement"]


def test_tables_fit_and_say_what_was_done(tensors: dict[str, Tensor], run: Run) -> None:
    done = run(*BASE, "--sparsities", "0.5,0.9", "--eval-samples", 16, "-v")
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    for said in ("accuracy", "same class", "same spikes", "divergence", "for 0.9"):
        assert said in done.stdout
    assert "6 trials on 6 validation samples" in done.stdout
    assert "criterion sf-obs, repair bn on 20 samples" in done.stdout
    assert "same class  " not in run(*BASE, "--sparsities", "0.9", "--eval-samples", 16).stdout


def test_many_sparsities_go_into_several_tables(tensors: dict[str, Tensor], run: Run) -> None:
    asked = ",".join(f"0.{tenths}" for tenths in range(10, 98, 8))
    done = run(*BASE, *MAGNITUDE, "--sparsities", asked, "--eval-samples", 16)
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    heads = [line.split() for line in done.stdout.splitlines() if line.startswith("divergence")]
    assert [len(head) - 1 for head in heads[:2]] == [8, 5]  # 11 and, in two words, the recipe's


def test_images_without_labels_are_compared_by_class(
    tensors: dict[str, Tensor], run: Run, as_json: Json
) -> None:
    save_file({"x": load_file("images.safetensors")["x"]}, "images.safetensors")
    flags = (*BASE, *MAGNITUDE, "--sparsities", "0.5,0.95")
    done = run(*flags, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "accuracy  " not in done.stdout
    report = json.loads(Path("out/sensitivity.json").read_text())
    assert report["dense_accuracy"] is None
    assert {trial["accuracy"] for trial in report["trials"]} == {None}
    assert Path("out/sensitivity.png").read_bytes().startswith(b"\x89PNG")


COUNTED = """
from pathlib import Path


def forward(model, x):
    with Path("calls").open("a") as file:
        file.write(".")
    return model(x)
"""


def test_each_trial_is_one_pass_more(tensors: dict[str, Tensor], run: Run) -> None:
    Path("counted.py").write_text(COUNTED)
    calls = []
    for sparsities in ("0.95", "0.9,0.95", "0.8,0.9,0.95"):
        Path("calls").write_text("")
        flags = ("--sparsities", sparsities, "--eval-samples", 20)
        done = run(*BASE, *MAGNITUDE, *flags, "--forward", "counted.py:forward")
        assert done.returncode == 0, done.stderr
        calls.append(len(Path("calls").read_text()))
    assert calls[1] - calls[0] == calls[2] - calls[1] == 3  # one for each layer


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--sparsities", "0.5,95"), 2, "--sparsities: 95 is outside [0, 1). did you mean 0.95?"),
        (("--sparsities", "0.5,0.50"), 2, "--sparsities: names a sparsity twice"),
        (("--sparsities", "half"), 2, "--sparsities: 'half' is not a number"),
        (("--sparsity", "0.99"), 2, "--sparsity: 0.99 of all weights is more than the 0.98"),
        (("--repair", "glue"), 2, "unknown repair 'glue'"),
        (("--criterion", "magnitud"), 2, "did you mean magnitude?"),
        (("--split", "all"), 2, "unknown split 'all'"),
        (("-o", "taken"), 5, "taken/prune.yaml: exists already"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    flags: tuple[object, ...], code: int, said: str, tensors: dict[str, Tensor], run: Run
) -> None:
    Path("taken").mkdir()
    Path("taken/prune.yaml").write_text("")
    done = run(*BASE, *flags)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "one layer alone" not in done.stderr


def test_a_network_without_data_is_refused(tensors: dict[str, Tensor], run: Run) -> None:
    done = run("sensitivity", "a.safetensors")
    assert done.returncode == 3
    assert "hint" not in done.stderr
    assert "give --data" in done.stderr
