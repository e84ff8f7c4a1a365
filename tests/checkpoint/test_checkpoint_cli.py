"""The whole way: `snnprune prune` of each kind of file, and the drop-in that comes of it."""

import argparse
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from snnprune.checkpoint.mask_file import read_masks

Run = Callable[..., subprocess.CompletedProcess[str]]
CONV_SNN = ("--model", "conv-snn", "--model-arg", "width=4", "--model-arg", "depth=2",
            "--model-arg", "time_steps=2", "--data", "fashion-mnist-mini")  # fmt: skip


@pytest.fixture
def checked(run: Run) -> Callable[..., str]:
    """Runs a command that must end well; what it printed on stderr."""

    def checked(*arguments: object) -> str:
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return checked


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))


def zeros(state: dict[str, Tensor]) -> int:
    return sum(int((value == 0).sum()) for key, value in state.items() if "weight" in key)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar", ".ckpt", ".bin"])
def test_a_torch_file_is_pruned_into_a_torch_file(
    checked: Callable[..., str], tmp_path: Path, suffix: str
) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    args = argparse.Namespace(lr=0.1)
    torch.save({"net": net().state_dict(), "epoch": 3, "args": args, "acc": np.float64(0.5)}, path)
    checked("prune", path, "--sparsity", "0.5", "-o", out)
    loaded = torch.load(out, weights_only=False)
    assert type(loaded["acc"]) is np.float64
    assert {key: loaded[key] for key in ("epoch", "args", "acc")} == {
        "epoch": 3, "args": args, "acc": 0.5,
    }  # fmt: skip
    net().load_state_dict(loaded["net"])
    assert zeros(loaded["net"]) == 450
    masks = read_masks(out.with_name(f"{out.name}.mask.safetensors"))
    assert sum(int(mask.sum()) for mask in masks.values()) == 450
    report = json.loads(out.with_name(f"{out.name}.report.json").read_text())
    assert report["totals"]["pruned"] == 450
    assert {Path(entry["path"]).name for entry in report["outputs"]} == {
        out.name, f"{out.name}.mask.safetensors",
    }  # fmt: skip


@pytest.mark.many(1)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_network_is_pruned_and_repaired_within_its_torch_file(
    model_file: Path, checked: Callable[..., str], run: Run, tmp_path: Path, zipped: bool
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "b.pth"
    state = {f"module.{key}": value for key, value in load_file(model_file).items()}
    torch.save(
        {"model": state, "optimizer": {"state": {}}}, path, _use_new_zipfile_serialization=zipped
    )
    flags = (*CONV_SNN, "--samples", "64", "--no-eval", "--criterion", "sf")
    said = checked("prune", path, "--sparsity", "0.8", "-o", out, *flags)
    assert "the optimizer's state is as it was" in said
    loaded = torch.load(out, weights_only=True)
    assert list(loaded) == ["model", "optimizer"]
    assert list(loaded["model"]) == list(state)
    moved = [key for key in state if not torch.equal(state[key], loaded["model"][key])]
    assert any(key.endswith("running_mean") for key in moved)  # repaired
    done = run("inspect", out, *CONV_SNN, "--json")
    totals = json.loads(done.stdout)["totals"]
    assert totals["pruned"] == round(0.8 * totals["prunable"])


def test_a_lightning_file_with_old_pruning_masks_loads_into_the_module_again(
    model_file: Path, checked: Callable[..., str], tmp_path: Path
) -> None:
    state: dict[str, Tensor] = {"loss.scale": torch.ones(3)}
    plain = load_file(model_file)
    for key, value in plain.items():
        if key == "classifier.weight":
            mask = (torch.arange(value.numel()).reshape(value.shape) % 2).float()
            state |= {f"net.{key}_orig": value, f"net.{key}_mask": mask}
        else:
            state[f"net.{key}"] = value
    path, out = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    torch.save({"state_dict": state, "epoch": 1, "callbacks": {}}, path)
    flags = (*CONV_SNN, "--samples", "64", "--no-eval", "--criterion", "sf")
    said = checked("prune", path, "--sparsity", "0.8", "-o", out, *flags)
    assert "stripped the prefix net." in said
    assert "folded 1 mask" in said
    written = torch.load(out, weights_only=True)["state_dict"]
    assert set(written) == {"loss.scale", *(f"net.{key}" for key in plain)}
    assert torch.equal(written["loss.scale"], torch.ones(3))
    assert not written["net.classifier.weight"].flatten()[::2].any()
    masks = read_masks(out.with_name(f"{out.name}.mask.safetensors"))
    assert set(masks) <= set(written)
    assert all(torch.equal(written[key] != 0, mask) for key, mask in masks.items())


def test_a_torch_file_is_still_pruned_into_safetensors(
    checked: Callable[..., str], tmp_path: Path
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "b.safetensors"
    torch.save({"net": {f"module.{k}": v for k, v in net().state_dict().items()}}, path)
    checked("prune", path, "--sparsity", "0.5", "-o", out)
    assert list(load_file(out)) == [f"module.{key}" for key in net().state_dict()]


def test_a_sharded_checkpoint_is_pruned_into_one_file(
    checked: Callable[..., str], run: Run, tmp_path: Path
) -> None:
    where = {}
    for number, (key, value) in enumerate(net().state_dict().items()):
        where[key] = f"part{number}.safetensors"
        save_file({key: value}, tmp_path / where[key])
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    out = tmp_path / "b.safetensors"
    checked("prune", index, "--sparsity", "0.5", "-o", out)
    assert zeros(load_file(out)) == 450
    net().load_state_dict(load_file(out))
    done = run("prune", index, "--sparsity", "0.5", "-o", tmp_path / "part0.safetensors", "--force")
    assert done.returncode == 5
    assert "output is the input" in done.stderr


def test_a_graph_is_pruned_into_a_graph(checked: Callable[..., str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([20])}),
        "fc1": nir.Linear(weight=rng.normal(size=(30, 20))),
        "fc2": nir.Affine(weight=rng.normal(size=(10, 30)), bias=np.ones(10)),
        "output": nir.Output(output_type={"output": np.array([10])}),
    }
    edges = [("input", "fc1"), ("fc1", "fc2"), ("fc2", "output")]
    nir.write(tmp_path / "a.nir", nir.NIRGraph(nodes=nodes, edges=edges))
    out = tmp_path / "b.nir"
    checked("prune", tmp_path / "a.nir", "--sparsity", "0.5", "-o", out)
    found = nir.read(out)
    assert sum(int((found.nodes[name].weight == 0).sum()) for name in ("fc1", "fc2")) == 450
    kept = found.nodes["fc1"].weight != 0
    assert np.array_equal(found.nodes["fc1"].weight[kept], nodes["fc1"].weight[kept])
    masks = read_masks(tmp_path / "b.nir.mask.safetensors")
    with h5py.File(out) as opened:  # the keys of the masks lead to the weights
        assert all(np.array_equal(opened[key][()] != 0, mask) for key, mask in masks.items())
    scores = tmp_path / "s.safetensors"
    checked("score", tmp_path / "a.nir", "-o", scores)
    assert load_file(scores).keys() == masks.keys()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("b.nir", "which can be written as .pt, .pth"),
        ("b.json", "does not end in .safetensors, .pt"),
    ],
)
def test_a_wrong_extension_ends_before_any_work(
    run: Run, tmp_path: Path, out: str, words: str
) -> None:
    path = tmp_path / "a.pth"
    torch.save(net().state_dict(), path)
    done = run("prune", path, "--sparsity", "0.5", "-o", tmp_path / out)
    assert done.returncode == 2
    assert words in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("suffix", [".pth", ".nir"])
def test_an_output_that_is_there_stays_without_force(run: Run, tmp_path: Path, suffix: str) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    if suffix == ".nir":
        nir.write(path, nir.Linear(weight=np.ones((3, 3))))
    else:
        torch.save(net().state_dict(), path)
    out.write_bytes(b"mine")
    flags: tuple[Any, ...] = ("prune", path, "--sparsity", "0.5", "-o")
    assert run(*flags, out).returncode == 5
    assert out.read_bytes() == b"mine"
    assert run(*flags, path, "--force").returncode == 5
    assert run(*flags, out, "--force").returncode == 0
