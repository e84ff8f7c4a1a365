"""The main job on a CUDA device: `pytest -m gpu`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from snnprune.models.lif import LIF, Dynamics

pytestmark = pytest.mark.gpu
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_training_scoring_and_pruning_run_on_the_gpu(run: Run, tmp_path: Path) -> None:
    folder, out = tmp_path / "run", tmp_path / "p.safetensors"
    done = run("train", "--recipe", "smoke", "--device", "cuda", "--out", folder)
    assert done.returncode == 0, done.stderr
    model = folder / "model.safetensors"
    done = run("prune", model, "--sparsity", 0.8, "-o", out, "--device", "cuda", "--json")
    assert done.returncode == 0, done.stderr
    weights = [value for value in load_file(out).values() if value.dim() > 1]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == round(0.8 * sum(weight.numel() for weight in weights))
    assert json.loads(done.stdout)["after"]["accuracy"] > 0.3


def test_scores_of_the_gpu_are_those_of_the_cpu(model_file: Path, run: Run, tmp_path: Path) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.safetensors"
        assert run("score", model_file, "--device", device, "-o", out).returncode == 0
        found[device] = load_file(out)
    for key, scores in found["cpu"].items():
        torch.testing.assert_close(found["cuda"][key], scores, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("surrogate", ["atan", "triangle", "sigmoid"])
def test_neurons_of_the_gpu_are_those_of_the_cpu(surrogate: str) -> None:
    lif = LIF(Dynamics.from_options({"surrogate": surrogate, "detach_reset": False}))
    x = torch.randn(5, 4, 33, generator=torch.Generator().manual_seed(0))
    grads = []
    for device in ("cpu", "cuda"):
        current = x.detach().to(device).requires_grad_()
        lif(current).sum().backward()
        assert current.grad is not None
        grads.append(current.grad.cpu())
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("surrogate", ["atan", "triangle", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neurons_by_triton_are_those_of_torch(
    surrogate: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    lif = LIF(Dynamics.from_options({"surrogate": surrogate, "detach_reset": False}))
    x = torch.randn(5, 4, 33, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
    found = []
    for path in ("plain", "triton"):
        monkeypatch.setenv("SNNPRUNE_LIF", path)
        leaf = x.clone().requires_grad_()
        spikes = lif(leaf)
        found.append((spikes, *torch.autograd.grad(spikes.sum(), leaf)))
    torch.testing.assert_close(*found)
