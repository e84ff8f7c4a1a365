"""`export --to nir`: through the network's own library, and read back before it counts."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks_to_export as networks
import nir
import numpy as np
import pytest
import torch
from torch import Tensor

from snnprune.checkpoint.naming import is_prunable
from snnprune.models import ModelSpec, build_model

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
NETWORKS = Path(networks.__file__)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:FutureWarning"  # norse
)


def pruned(name: str, folder: Path) -> dict[str, Tensor]:
    """A checkpoint with two thirds of each weight 0, also in the file NAME.pth."""
    torch.manual_seed(0)
    tensors = getattr(networks, name)().state_dict()
    for key, tensor in tensors.items():
        if is_prunable(key, tensor):
            tensor[torch.rand_like(tensor) < 2 / 3] = 0
    torch.save(tensors, folder / f"{name}.pth")
    return dict(tensors)


def export(run: Run, name: str, folder: Path, data: str, *more: object) -> Any:
    flags = ("--model", f"{NETWORKS}:{name}", "--data", f"{NETWORKS}:{data}", *more)
    return run("export", folder / f"{name}.pth", "--to", "nir", "-o", folder / "a.nir", *flags)


def weights_of(path: Path) -> list[Any]:
    """Of all layers of a graph, in no order."""
    return [node.weight for node in nir.read(path).nodes.values() if hasattr(node, "weight")]


WORKS = {
    "snntorch_leaky": "images",
    "snntorch_learned": "images",
    "snntorch_pooled": "images",
    "snntorch_synaptic": "vectors",
    "snntorch_recurrent": "vectors",
    "snntorch_loop": "vectors",
    "snntorch_with_states": "images",
    "jelly_lif": "images",
    "jelly_parametric": "images",
    "jelly_pooled": "images",
    "jelly_steps": "films",
    "jelly_residual": "vectors",
    "sinabs_iaf": "images",
    "sinabs_pooled": "images",
    "sinabs_lif": "frames",
    "norse_lif": "vectors",
    "norse_box": "vectors",
    "norse_iaf": "vectors",
    "own_neurons": "vectors",
}


@pytest.mark.many(2)
@pytest.mark.parametrize("name", WORKS)
def test_every_weight_is_in_the_graph_with_its_zeros(name: str, run: Run, tmp_path: Path) -> None:
    tensors = pruned(name, tmp_path)
    done = export(run, name, tmp_path, WORKS[name])
    assert done.returncode == 0, done.stderr
    found = weights_of(tmp_path / "a.nir")
    wanted = [tensor.numpy() for key, tensor in tensors.items() if is_prunable(key, tensor)]
    assert len(found) == len(wanted)
    for weight in wanted:
        assert (weight == 0).mean() > 0.5
        assert sum(np.array_equal(weight, other) for other in found) == 1


def test_reset_by_subtraction_is_told(
    run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    for name, layers in (("snntorch_leaky", 2), ("snntorch_learned", 0)):
        pruned(name, tmp_path)
        found = as_json(export(run, name, tmp_path, "images", "--json", "--force"))
        assert found["model"]["name"] == f"{NETWORKS}:{name}"
        assert found["written_bytes"] == (tmp_path / "a.nir").stat().st_size
        told = [one for one in found["warnings"] if "subtract the threshold" in one]
        assert [f"{layers} layers of neurons that subtract" in one for one in told] == [True] * (
            layers > 0
        )


STEPS = {
    "snntorch_leaky": "0.0001",
    "snntorch_synaptic": "0.0001",
    "snntorch_recurrent": "0.0001",
    "jelly_lif": "0.0001",
    "jelly_pooled": "0.0001",
    "sinabs_iaf": "1",
    "sinabs_lif": "1",
    "norse_box": "1e-06",
}


@pytest.mark.many(2)
@pytest.mark.parametrize("name", STEPS)
def test_the_time_step_that_the_constants_are_for_is_told(
    name: str, run: Run, tmp_path: Path
) -> None:
    pruned(name, tmp_path)
    done = export(run, name, tmp_path, WORKS[name])
    words = " ".join(done.stderr.split())
    assert f"must take a time step of {STEPS[name]}, in the unit of their tau" in words


@pytest.mark.parametrize(
    ("constant", "words"),
    [
        ("v_threshold", "neuron second.1 has the threshold 1.1 in the graph and 1 in the network"),
        ("r", "neuron second.1 has the resistance 11 in the graph instead of 10"),
        ("tau", "with a time step of 0.00011, others 0.0001"),
    ],
)
def test_a_neuron_that_comes_back_as_another_is_found_out(
    constant: str, words: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned("snntorch_loop", tmp_path)
    real = nir.write

    def inexact(path: Path, graph: Any) -> None:
        node = graph.nodes["second.1"]
        setattr(node, constant, np.asarray(getattr(node, constant)) * 1.1)
        real(path, graph)

    monkeypatch.setattr(nir, "write", inexact)
    assert_one_line(export(run, "snntorch_loop", tmp_path, "vectors"), 3, words)
    assert not (tmp_path / "a.nir").exists()


REFUSED = {
    "snntorch_maxpool": ("images", ("NIR has a largest of spikes alone, by neurons",)),
    "snntorch_dropout": ("images", ("snnTorch says: module not implemented: Dropout",)),
    "snntorch_block": ("vectors", ("snnTorch says: module not implemented: Block",)),
    "snntorch_residual": ("vectors", ("the graph has 1 of 2 layers of neurons",)),
    "snntorch_scaled": ("vectors", ("the graph has 2 inputs", "must be modules too")),
    "snntorch_scaled_in_place": ("vectors", ("what enters second.0 is not what the graph says",)),
    "snntorch_scaled_input": ("vectors", ("what enters layers.0 is not what the graph says",)),
    "jelly_maxpool": ("images", ("NIR has a largest of spikes alone, by neurons",)),
    "jelly_groups": ("images", ("Grouped convolutions are not supported",)),
    "jelly_soft": ("images", ("SpikingJelly says:", "NIR does not distinguish soft reset.")),
    "jelly_loop": ("images", ("layers.0.weight: is 3 times in the graph", "unrolled")),
    "sinabs_average": ("images", ("sinabs says:", "AvgPool2d'> not supported")),
    "sinabs_maxpool": ("images", ("NIR has a largest of spikes alone, by neurons",)),
    "norse_over_time": ("frames", ("nothing in NIR is made of LIF (1), LIF (3)",)),
    "norse_flatten": ("images", ("nothing in NIR is made of Flatten (2)",)),
}


@pytest.mark.many(2)
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_library_cannot_export_is_one_line_and_no_file(
    name: str, run: Run, tmp_path: Path
) -> None:
    data, words = REFUSED[name]
    pruned(name, tmp_path)
    assert_one_line(export(run, name, tmp_path, data), 3, f"{name}.pth", *words)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.pth"]


@pytest.mark.parametrize("package", ["nir", "nirtorch"])
def test_without_the_package_it_says_how_to_get_it(
    package: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned("snntorch_loop", tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    done = export(run, "snntorch_loop", tmp_path, "vectors")
    assert_one_line(done, 3, f"needs the package {package}", "pip install nir nirtorch")


@pytest.mark.parametrize(
    ("what", "words"),
    [("weight", "is not in the graph as it is"), ("bias", "has another bias in the graph")],
)
def test_a_value_that_comes_back_otherwise_is_found_out(
    what: str, words: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned("snntorch_loop", tmp_path)
    real = nir.write

    def inexact(path: Path, graph: Any) -> None:
        getattr(graph.nodes["second.0"], what).flat[0] += 1e-3
        real(path, graph)

    monkeypatch.setattr(nir, "write", inexact)
    done = export(run, "snntorch_loop", tmp_path, "vectors")
    assert_one_line(done, 3, "second.0.weight", words)
    assert not (tmp_path / "a.nir").exists()


def test_a_file_that_is_there_stays_where_the_export_fails(run: Run, tmp_path: Path) -> None:
    pruned("snntorch_maxpool", tmp_path)
    (tmp_path / "a.nir").write_text("mine")
    assert export(run, "snntorch_maxpool", tmp_path, "images", "--force").returncode == 3
    assert (tmp_path / "a.nir").read_text() == "mine"


def test_it_needs_a_network_and_data_and_no_other_format_does(run: Run, tmp_path: Path) -> None:
    pruned("snntorch_loop", tmp_path)
    model = ("--model", f"{NETWORKS}:snntorch_loop")
    path = tmp_path / "snntorch_loop.pth"
    to_nir = (path, "--to", "nir", "-o", tmp_path / "a.nir")
    assert_one_line(run("export", *to_nir), 3, "--to nir", "give --model")
    assert_one_line(run("export", *to_nir, *model), 3, "--to nir", "give --data")
    to_csr = (path, "--to", "csr", "-o", tmp_path / "a.npz")
    assert_one_line(run("export", *to_csr, *model), 2, "--model", "choose --to nir, onnx, c or")


def test_a_built_in_network_needs_data_to_be_held_against(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save(build_model(ModelSpec(name="conv-snn")).state_dict(), path)
    done = run("export", path, "--model", "conv-snn", "--to", "nir", "-o", tmp_path / "a.nir")
    assert_one_line(done, 3, "own.pth", "--data", "nothing to hold the chain against")


def test_forward_may_loop_where_the_model_does_one_step(run: Run, tmp_path: Path) -> None:
    pruned("snntorch_step", tmp_path)
    forward = ("--forward", f"{NETWORKS}:over_time")
    done = export(run, "snntorch_step", tmp_path, "frames", *forward)
    assert done.returncode == 0, done.stderr
    assert nir.read(tmp_path / "a.nir").input_type["input"].tolist() == [64]
