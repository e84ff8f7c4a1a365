"""`export --to onnx`: what ONNX Runtime puts out is what the network puts out."""

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networks_to_export as networks
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.onnx._internal.exporter._registration import ONNXRegistry

from snnprune.checkpoint.naming import is_prunable
from snnprune.graph.libraries import reset_states
from snnprune.models import ModelSpec, build_model

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
NETWORKS = Path(networks.__file__)
SMALL = {"size": 8, "width": 4, "depth": 2, "time_steps": 3}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:FutureWarning"  # norse
)


@pytest.fixture(scope="module", autouse=True)
def _operators() -> Iterator[None]:
    """torch looks all of ONNX's up for each file anew, which takes as long as the rest."""
    once = functools.cache(ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once))
        yield


def pruned(module: torch.nn.Module, path: Path, scale: float = 1.0) -> dict[str, Tensor]:
    """A checkpoint with half of each weight 0 and the rest large enough for neurons to fire."""
    torch.manual_seed(0)
    for key, tensor in module.state_dict().items():
        if is_prunable(key, tensor):
            tensor.normal_(std=scale).mul_(torch.rand_like(tensor) < 0.5)
    torch.save(module.state_dict(), path)
    return dict(module.state_dict())


def export(run: Run, path: Path, *flags: object) -> Any:
    return run("export", path, "--to", "onnx", "-o", path.with_name("a.onnx"), *flags)


def from_user(run: Run, name: str, folder: Path, data: str, *more: object) -> Any:
    torch.manual_seed(0)
    pruned(getattr(networks, name)(), folder / "a.pth", scale=4)
    model = ("--model", f"{NETWORKS}:{name}", "--data", f"{NETWORKS}:{data}")
    return export(run, folder / "a.pth", *model, *more)


def outputs(path: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


@pytest.mark.slow
def test_a_built_in_network_puts_out_the_same_for_any_number_of_images(
    run: Run, tmp_path: Path
) -> None:
    net = build_model(ModelSpec(name="conv-snn", args=SMALL)).eval()
    tensors = pruned(net, tmp_path / "a.pth")
    args = [f"--model-arg={name}={value}" for name, value in SMALL.items()]
    done = export(run, tmp_path / "a.pth", "--model", "conv-snn", *args)
    assert (done.returncode, done.stderr) == (0, "")
    for count in (1, 5):
        x = torch.rand(count, 1, 8, 8)
        with torch.no_grad():
            wanted = net(x)
        assert wanted.std() > 0.1
        torch.testing.assert_close(outputs(tmp_path / "a.onnx", x), wanted)
    held = {one.name: one for one in onnx.load(tmp_path / "a.onnx").graph.initializer}
    for key in (key for key, tensor in tensors.items() if is_prunable(key, tensor)):
        assert np.array_equal(onnx.numpy_helper.to_array(held[key]), tensors[key].numpy())


WORKS = {
    "snntorch_batchnorm": "images",
    "snntorch_with_states": "images",
    "snntorch_residual": "vectors",
    "jelly_maxpool": "images",
    "jelly_steps": "films",
    "sinabs_iaf": "images",
    "sinabs_lif": "frames",
    "norse_over_time": "frames",
    "own_neurons": "vectors",
}


FIXED = {"jelly_steps", "sinabs_iaf", "norse_over_time"}
"""Those that loop over the first dimension of what they are given."""


@pytest.mark.many(1)
@pytest.mark.parametrize("name", WORKS)
def test_networks_of_every_library_can_be_exported(name: str, run: Run, tmp_path: Path) -> None:
    done = from_user(run, name, tmp_path, WORKS[name])
    assert done.returncode == 0, done.stderr
    assert ("of shape" in done.stderr) == (name in FIXED)
    net = getattr(networks, name)().eval()
    net.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True))
    x = getattr(networks, WORKS[name])()[0]
    reset_states(net)
    with torch.no_grad():
        wanted = net(x)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    assert wanted.std() > 0.1
    torch.testing.assert_close(outputs(tmp_path / "a.onnx", x), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("otherwise_compiled", "ONNX Runtime puts out other values than the network"),
        ("noisy", "the network draws at random (RandomUniformLike)"),
    ],
)
def test_what_comes_out_otherwise_is_refused_and_leaves_no_file(
    name: str, reason: str, run: Run, tmp_path: Path
) -> None:
    done = from_user(run, name, tmp_path, "vectors")
    assert_one_line(done, 3, f"--to onnx: {reason}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.slow
def test_a_network_that_draws_is_refused_though_it_came_out_alike(run: Run, tmp_path: Path) -> None:
    done = from_user(run, "drawn_in_vain", tmp_path, "vectors")
    assert_one_line(done, 3, "--to onnx: the network draws at random (RandomUniformLike)")


def test_a_loop_outside_the_network_is_refused(run: Run, tmp_path: Path) -> None:
    loop = ("--forward", f"{NETWORKS}:over_time")
    done = from_user(run, "snntorch_step", tmp_path, "frames", *loop)
    assert_one_line(done, 3, "--forward: calls the model 3 times, and ONNX keeps no membrane")


@pytest.mark.slow
def test_what_torch_cannot_export_is_one_line(run: Run, tmp_path: Path) -> None:
    done = from_user(run, "depends_on_data", tmp_path, "vectors")
    assert_one_line(done, 3, "--to onnx: torch.onnx says: ")
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_a_package_it_says_how_to_get_all(
    package: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = from_user(run, "own_neurons", tmp_path, "vectors")
    assert_one_line(done, 3, f"needs the package {package}", "onnx onnxscript onnxruntime")


@pytest.mark.slow
def test_the_file_tells_nothing_of_the_machine_that_made_it(run: Run, tmp_path: Path) -> None:
    done = from_user(run, "snntorch_leaky", tmp_path, "images")
    assert done.returncode == 0, done.stderr
    held = (tmp_path / "a.onnx").read_bytes()
    assert b".py" not in held
    assert str(NETWORKS.parent).encode() not in held
