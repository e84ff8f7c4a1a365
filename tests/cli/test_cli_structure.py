"""`prune --structure`: patterns and channels, of built-in networks and of one's own."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.data import DataSpec
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.models import ModelSpec, build_model

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
ARGS = {"width": 4, "depth": 2, "time_steps": 2, "in_channels": 1, "size": 28}
FEW = ("--samples", 32, "--eval-samples", 64)
OWN = """
from snnprune.models.networks import conv_snn


def build():
    return conv_snn(width=4, depth=2, time_steps=2)
"""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that says which network and data it is of."""
    torch.manual_seed(0)
    spec = ModelSpec(name="conv-snn", args=ARGS)
    path = tmp_path_factory.mktemp("untrained") / "model.safetensors"
    metadata = make_metadata("train", model=spec, data=DataSpec(name="fashion-mnist-mini"))
    write_safetensors(path, build_model(spec).state_dict(), metadata)
    return path


@pytest.mark.slow
def test_a_pattern_brings_its_own_sparsity(untrained: Path, run: Run, tmp_path: Path) -> None:
    done = run("prune", untrained, "-o", tmp_path / "p.safetensors", "--structure", "2:4", *FEW)
    assert done.returncode == 0, done.stderr
    assert "encoder.conv.weight has no 2:4" in done.stderr
    tensors = load_file(tmp_path / "p.safetensors")
    groups = tensors["blocks.0.conv.weight"].movedim(1, -1).unflatten(-1, (-1, 4))
    assert ((groups != 0).sum(-1) == 2).all()
    assert not (tensors["encoder.conv.weight"] == 0).any()
    report = json.loads((tmp_path / "p.report.json").read_text())
    assert report["structure"] == "2:4"


@pytest.mark.slow
def test_channels_are_gone_from_a_built_in_network_which_runs_on(
    untrained: Path, run: Run, tmp_path: Path
) -> None:
    small = tmp_path / "small.safetensors"
    flags = ("--structure", "channels", "--sparsity", 0.5, *FEW)
    done = run("prune", untrained, "-o", small, *flags, "--json")
    assert done.returncode == 0, done.stderr
    tensors = load_file(small)
    channels = [len(tensors[key]) for key in ("encoder.conv.weight", "blocks.0.conv.weight")]
    assert sum(channels) == 6  # of 4 + 8
    assert tensors["blocks.0.conv.weight"].shape[1] == channels[0]
    assert tensors["classifier.weight"].shape == (10, channels[1] * 14 * 14)
    report = json.loads(done.stdout)
    after = report["after"]
    assert [found["kept"] for found in report["channels"].values()] == channels
    assert [found["of"] for found in report["channels"].values()] == [4, 8]
    measured = json.loads(run("eval", small, "--samples", 64, "--json").stdout)
    assert measured["evaluation"]["correct"] == after["correct"]
    again = run("prune", small, "--sparsity", 0.5, "-o", tmp_path / "again.safetensors", *FEW)
    assert again.returncode == 0, again.stderr
    zeros = sum(
        int((w == 0).sum())
        for k, w in load_file(tmp_path / "again.safetensors").items()
        if w.dim() > 1
    )
    assert zeros == round(0.5 * sum(w.numel() for w in tensors.values() if w.dim() > 1))


def test_channels_are_masked_in_a_torch_file_which_keeps_its_shapes(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    torch.manual_seed(0)
    state = build_model(ModelSpec(name="conv-snn", args=ARGS)).state_dict()
    torch.save(state, tmp_path / "own.pth")
    out = tmp_path / "p.pth"
    flags = ("--model", f"{tmp_path / 'own.py'}:build", "--data", "fashion-mnist-mini")
    channels = ("--structure", "channels", "--sparsity", 0.5, "--criterion", "magnitude")
    done = run("prune", tmp_path / "own.pth", "-o", out, *flags, *channels, *FEW)
    assert done.returncode == 0, done.stderr
    found = torch.load(out, weights_only=True)
    assert {key: w.shape for key, w in found.items()} == {k: w.shape for k, w in state.items()}
    keys = ("encoder.conv.weight", "blocks.0.conv.weight")
    gone = [~found[key].flatten(1).any(1) for key in keys]
    assert sum(int(one.sum()) for one in gone) == 6
    assert not found["encoder.norm.weight"][gone[0]].any()
    assert not found["encoder.norm.bias"][gone[0]].any()
    assert not found["blocks.0.conv.weight"][:, gone[0]].any()


def test_what_a_structure_excludes_is_refused(untrained: Path, run: Run, tmp_path: Path) -> None:
    def prune(*flags: object) -> subprocess.CompletedProcess[str]:
        return run("prune", untrained, "-o", tmp_path / "p.safetensors", *flags)

    assert_one_line(prune("--structure", "4:2"), 2, "--structure", "N:M")
    assert_one_line(prune("--structure", "2:4", "--sparsity", 0.9), 2, "is a sparsity of 0.5")
    assert_one_line(prune("--structure", "2:4", "--allocation", "lamp"), 2, "nothing to share out")
    assert_one_line(
        prune("--structure", "channels", "--sparsity", 0.5, "--allocation", "lamp"), 2, "global"
    )
    assert_one_line(prune("--structure", "channels"), 2, "--sparsity")


def test_channels_need_the_network(run: Run, tmp_path: Path) -> None:
    save_file({"conv.weight": torch.rand(4, 4, 3, 3)}, tmp_path / "bare.safetensors")
    done = run(
        *("prune", tmp_path / "bare.safetensors", "-o", tmp_path / "p.safetensors"),
        *("--structure", "channels", "--sparsity", 0.5),
    )
    assert_one_line(done, 3, "channels need the network")


def test_a_file_that_lies_about_its_channels_is_refused(run: Run, tmp_path: Path) -> None:
    spec = ModelSpec(name="conv-snn", args=ARGS)
    state = build_model(spec).state_dict()
    state["blocks.0.conv.weight"] = state["blocks.0.conv.weight"][:5]
    metadata = make_metadata("prune", model=spec, data=DataSpec(name="fashion-mnist-mini"))
    metadata |= {"snnprune.structure": "channels"}
    write_safetensors(tmp_path / "lie.safetensors", state, metadata)
    done = run("eval", tmp_path / "lie.safetensors")
    assert_one_line(done, 3, "running the model")
