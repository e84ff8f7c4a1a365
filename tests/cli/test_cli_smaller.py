"""`prune --structure channels` of networks of one's own: smaller files, and who loads them."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import snnprune
from snnprune.checkpoint.mask_file import read_masks
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.graph.libraries import reset_states
from snnprune.graph.state import use_eval_mode

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
NETWORKS = Path(__file__).parents[1] / "pruning" / "networks_to_shrink.py"
CHANNELS = ("--structure", "channels", "--sparsity", 0.4, "--criterion", "magnitude")
FEW = ("--data", "fashion-mnist-mini", "--samples", 32, "--eval-samples", 64)
KEPT = "the file keeps the network's shapes, with zeros where channels are gone"


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("networks_to_shrink", NETWORKS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(name: str) -> tuple[str, str]:
    return "--model", f"{NETWORKS}:{name}"


def saved(networks: ModuleType, name: str, folder: Path) -> Path:
    """A torch file of the network, which may be pruned to both kinds of file."""
    torch.manual_seed(0)
    torch.save(getattr(networks, name)().state_dict(), folder / "dense.pth")
    return folder / "dense.pth"


def spikes_and_output(module: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    """What it puts out, and how many spikes its neurons make."""
    spikes = []

    def count(_: nn.Module, __: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
        spikes.append((output[0] if isinstance(output, tuple) else output).sum())

    hooks = [
        part.register_forward_hook(count)
        for part in module.modules()
        if type(part).__name__ in ("ParametricLIFNode", "Leaky")
    ]
    reset_states(module)
    with torch.no_grad(), use_eval_mode(module):
        output: Tensor = module(x)
    for hook in hooks:
        hook.remove()
    return output, float(torch.stack(spikes).sum())


@pytest.mark.many(1)
@pytest.mark.parametrize("name", ["Chain", "Residual", "Learnt"])
@pytest.mark.parametrize("repair", ["none", "bn+lsq"])
def test_a_shrunk_network_of_ones_own_does_what_the_masked_one_does(
    networks: ModuleType, name: str, repair: str, run: Run, tmp_path: Path
) -> None:
    dense = saved(networks, name, tmp_path)
    small, masked = tmp_path / "small.safetensors", tmp_path / "masked.pth"
    flags = (*model(name), *CHANNELS, *FEW, "--repair", repair)
    done = run("prune", dense, "-o", small, *flags, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert not [text for text in report["warnings"] if KEPT in text]
    with_zeros = run("prune", dense, "-o", masked, *flags)
    assert with_zeros.returncode == 0, with_zeros.stderr
    assert f"{KEPT}: only a .safetensors file" in with_zeros.stderr

    whole, part = getattr(networks, name)(), getattr(networks, name)()
    whole.load_state_dict(torch.load(masked, weights_only=True))
    assert snnprune.shrink(part, small) is part
    part.load_state_dict(load_file(small))
    x = torch.rand(16, 1, 28, 28)
    (one, spikes), (other, as_many) = (spikes_and_output(m, x) for m in (whole, part))
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
    assert spikes == as_many > 0
    assert float(one.std()) > 0
    sizes = [sum(p.numel() for p in module.parameters()) for module in (part, whole)]
    assert sizes[0] < 0.75 * sizes[1]

    asked = {key: tuple(shape) for key, shape in report["smaller"].items()}
    full = getattr(networks, name)().state_dict()
    found = {k: tuple(v.shape) for k, v in load_file(small).items() if v.shape != full[k].shape}
    assert asked == found
    assert {
        key: mask.shape for key, mask in read_masks(tmp_path / "small.mask.safetensors").items()
    }
    assert report["after"]["correct"] == evaluated(run, small, name)["correct"]


def evaluated(run: Run, path: Path, name: str) -> dict[str, int]:
    done = run(
        "eval", path, *model(name), "--data", "fashion-mnist-mini", "--samples", 64, "--json"
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)["evaluation"]
    return found


SCRIPT = """
import sys
from importlib.util import module_from_spec, spec_from_file_location

import torch
from safetensors.torch import load_file

import snnprune

spec = spec_from_file_location("theirs", sys.argv[1])
theirs = module_from_spec(spec)
spec.loader.exec_module(theirs)
model = snnprune.shrink(theirs.Residual(), sys.argv[2])
model.load_state_dict(load_file(sys.argv[2]))
print(tuple(model.eval()(torch.rand(3, 1, 28, 28)).shape), model.stem[0], model.stem[1])
"""


@pytest.mark.slow
def test_a_smaller_file_is_inspected_pruned_again_and_loaded_in_a_script(
    networks: ModuleType, run: Run, tmp_path: Path
) -> None:
    dense, small = saved(networks, "Residual", tmp_path), tmp_path / "small.safetensors"
    done = run("prune", dense, "-o", small, *model("Residual"), *CHANNELS, *FEW)
    assert done.returncode == 0, done.stderr
    assert "snnprune.shrink(model, FILE) makes them fit" in done.stdout
    inspected = run("inspect", small, *model("Residual"), *FEW[:2], "--json")
    assert inspected.returncode == 0, inspected.stderr
    layers = {row["weight"]: row for row in json.loads(inspected.stdout)["layers"]}
    assert layers["outer.0.weight"]["shape"] == list(load_file(small)["outer.0.weight"].shape)
    bare = run("inspect", small)
    assert bare.returncode == 0, bare.stderr

    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", NETWORKS, small],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = len(load_file(small)["stem.0.weight"])
    assert done.stdout.startswith(f"(3, 10) Conv2d(1, {kept}, ")
    assert f"BatchNorm2d({kept}, " in done.stdout

    unstructured, again = tmp_path / "zeros.safetensors", tmp_path / "again.safetensors"
    for out, flags in ((unstructured, ("--sparsity", 0.5)), (again, CHANNELS)):
        done = run("prune", small, "-o", out, *model("Residual"), *flags, *FEW)
        assert done.returncode == 0, done.stderr
        evaluated(run, out, "Residual")
    before, after = load_file(small), load_file(again)
    assert {k: v.shape for k, v in load_file(unstructured).items()} == {
        k: v.shape for k, v in before.items()
    }
    assert len(after["outer.0.weight"]) < len(before["outer.0.weight"]) < 8
    networks_own = snnprune.shrink(networks.Residual(), again)  # of the model's first shapes
    networks_own.load_state_dict(after)


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("SideBySide", "both.0.weight: reads the channels beside others"),
        ("Flattened", "hidden.weight: reads the channels beside others"),
        ("FixedWidth", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("Depthwise", "reads the channels in a way that cannot be cut"),
        ("Scaled", "RuntimeError: The size of tensor a (4) must match"),
        ("same_each_time", "gives the same module at each call"),
    ],
)
def test_a_network_that_cannot_be_followed_keeps_its_shapes_and_is_told_why(
    networks: ModuleType, name: str, why: str, run: Run, tmp_path: Path
) -> None:
    dense, out = saved(networks, name, tmp_path), tmp_path / "masked.safetensors"
    done = run("prune", dense, "-o", out, *model(name), *CHANNELS, *FEW, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (told,) = [text for text in report["warnings"] if KEPT in text]
    assert why in told
    assert "\n" not in told
    assert report["smaller"] == {}
    full = torch.load(dense, weights_only=True)
    assert {k: v.shape for k, v in load_file(out).items()} == {k: v.shape for k, v in full.items()}
    with safe_open(out, "pt") as file:
        assert not {"snnprune.structure", "snnprune.smaller"} & file.metadata().keys()
    assert report["after"]["correct"] == evaluated(run, out, name)["correct"]


@pytest.mark.many(2)
@pytest.mark.parametrize(
    ("smaller", "texts"),
    [
        ("[" * 100_000, ("snnprune.smaller", "nested too deep")),
        ('{"readout.weight": [10, 784], "readout.weight": [1, 1]}', ("twice",)),
        ("7", ("is not a table of shapes",)),
        ('{"readout.weight": "10"}', ("has no shape for 'readout.weight'",)),
        ('{"readout.weight": [10, -4]}', ("has no shape for",)),
        ('{"readout.weight": [10, 0]}', ("readout.weight", "cannot be a part of")),
        ('{"readout.weight": [10, 999999999]}', ("readout.weight", "cannot be a part of")),
        ('{"readout.weight": [10]}', ("readout.weight", "cannot be a part of")),
        ('{"__class__.weight": [1]}', ("__class__.weight", "is not in the model")),
        ('{"readout.weight": [10, 392]}', ("readout.weight",)),
        ('{"stem.0.weight": [4, 1, 1, 1]}', ("stem.0.weight", "cannot be a part of")),
    ],
)
def test_a_description_that_lies_is_refused_in_one_line(
    networks: ModuleType, smaller: str, texts: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    state = networks.FixedWidth().state_dict()
    metadata = {"snnprune.structure": "channels", "snnprune.smaller": smaller}
    write_safetensors(tmp_path / "lie.safetensors", state, metadata)
    done = run("eval", tmp_path / "lie.safetensors", *model("FixedWidth"), *FEW[:2])
    assert_one_line(done, 3, "lie.safetensors", *texts)
