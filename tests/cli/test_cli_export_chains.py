"""`export --to c`, `lava`, `integers`, and `nir` of what no library exports."""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import networks_to_export as networks
import nir
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from spikingjelly.activation_based.nir_exchange import import_from_nir
from torch import Tensor, nn
from torch.nn import functional

from snnprune.checkpoint.naming import is_prunable
from snnprune.export import c as headers
from snnprune.export import chain_pass
from snnprune.graph.libraries import reset_states

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
NETWORKS = Path(networks.__file__)
SUFFIXES = {"c": ".h", "lava": ".net", "nir": ".nir"}


def loud(name: str, folder: Path, scale: float = 3.0) -> Any:
    """A network that spikes, with half of each weight 0, also in the file NAME.pth."""
    torch.manual_seed(0)
    net = getattr(networks, name)().eval()
    for key, tensor in net.state_dict().items():
        if is_prunable(key, tensor):
            tensor.mul_(scale).mul_(torch.rand_like(tensor) < 0.5)
        elif key.endswith("running_var"):
            tensor.uniform_(0.3, 2)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (*list(part.buffers())[:1], part.weight.data, part.bias.data):
                tensor.normal_(0.2, 0.5)
            part.weight.data.abs_().add_(0.5)
    torch.save(net.state_dict(), folder / f"{name}.pth")
    return net


def export(run: Run, to: str, name: str, folder: Path, data: str, *more: object) -> Any:
    flags = ("--model", f"{NETWORKS}:{name}", "--data", f"{NETWORKS}:{data}", "--force", *more)
    out = folder / f"a{SUFFIXES[to]}"
    return run("export", folder / f"{name}.pth", "--to", to, "-o", out, *flags)


@torch.no_grad()
def outputs(net: nn.Module, x: Tensor, steps: int) -> Tensor:
    """(T, N, ...) of a network that is called once, or of one step for each."""
    reset_states(net)
    found = net(x)
    if steps:
        found = torch.stack([found, *(net(x) for _ in range(steps - 1))])
    reset_states(net)
    return found[0] if isinstance(found, tuple) else found


MAIN = """
#include "a.h"
void go(const float *x, float *y, int samples, int steps);
void go(const float *x, float *y, int samples, int steps) {
    snn_state state;
    snn_output made[SNN_OUTPUTS];
    for (int n = 0; n < samples; n++) {
        snn_reset(&state);
        for (int t = 0; t < steps; t++) {
            snn_step(&state, x + (t * samples + n) * SNN_INPUTS, made);
            for (int i = 0; i < SNN_OUTPUTS; i++)
                y[(t * samples + n) * SNN_OUTPUTS + i] = (float)made[i];
        }
    }
}
"""


def run_header(folder: Path, x: Tensor, count: int) -> Tensor:
    """What a.h puts out, compiled with every warning an error."""
    (folder / "main.c").write_text(MAIN)
    words = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-shared", "-fPIC"]
    made = folder / f"main{len(list(folder.iterdir()))}.so"
    subprocess.run(["gcc", *words, "-o", made, folder / "main.c", "-lm"], check=True)
    y, x = torch.zeros(*x.shape[:2], count), x.contiguous()
    library = ctypes.CDLL(str(made))
    where = (ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()))
    library.go(*where, x.shape[1], x.shape[0])
    return y


IN_C = {
    "jelly_batchnorm": ("spiking_films", 0),
    "sinabs_pooled": ("images", 6),
    "jelly_currents": ("spiking_films", 0),
    "jelly_strided": ("spiking_films", 0),
    "jelly_soft": ("images", 6),
    "snntorch_leaky": ("images", 6),
    "snntorch_learned": ("images", 6),
    "snntorch_batchnorm": ("images", 6),
    "snntorch_maxpool": ("images", 6),
    "snntorch_with_states": ("images", 0),
}
"""With its data, and how many steps are called for; 0 where one call goes over time."""


@pytest.mark.many(1)
@pytest.mark.parametrize("name", IN_C)
def test_a_header_puts_out_the_spikes_of_the_network(
    name: str, run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    data, steps = IN_C[name]
    net = loud(name, tmp_path, scale=6 if name == "jelly_soft" else 3)
    found = as_json(export(run, "c", name, tmp_path, data, "--json"))
    assert found["chain"]["deviation"] < 1e-5
    assert found["chain"]["spikes"] > found["chain"]["samples"]
    assert found["chain"]["other_spikes"] == 0
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    assert found["chain"]["folded"] == norms
    torch.manual_seed(1)
    x = getattr(networks, data)()[0]
    if name == "sinabs_pooled":  # (N, T) in one dimension, of two steps
        x = torch.rand(4, 2, 1, 8, 8)
        wanted = outputs(net, x.flatten(0, 1), 0).unflatten(0, (4, 2)).transpose(0, 1)
        x = x.transpose(0, 1)
    else:
        wanted = outputs(net, x, steps)
        x = x.expand(len(wanted), *x.shape) if x.dim() == 4 else x
    assert wanted.any()
    torch.testing.assert_close(run_header(tmp_path, x, 10), wanted, rtol=1e-4, atol=1e-5)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Each row on its grid, max|w| its largest integer."""
    most = 2 ** (bits - 1) - 1
    rows = weight.flatten(1)
    scale = (rows.abs().amax(1, keepdim=True).double() / most).float()
    return (rows / scale).round().mul(scale).view_as(weight)


@pytest.mark.parametrize("bits", [8, pytest.param(12, marks=pytest.mark.slow)])
def test_integers_in_a_header_are_the_network_with_rounded_weights(
    bits: int, run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    net = loud("jelly_averaged", tmp_path)
    done = export(run, "c", "jelly_averaged", tmp_path, "spiking_films", "--bits", bits, "--json")
    assert as_json(done)["bits"] == bits
    text = (tmp_path / "a.h").read_text()
    assert f"static const int{8 if bits == 8 else 16}_t snn_values_0" in text
    for key, tensor in net.state_dict().items():
        if is_prunable(key, tensor):
            tensor.copy_(rounded(tensor, bits))
    x = networks.spiking_films()[0]
    wanted = outputs(net, x, 0)
    assert wanted.any()
    assert torch.equal(run_header(tmp_path, x, 10), wanted)


def test_a_header_has_no_zeros_and_says_what_it_takes(
    run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    net = loud("jelly_batchnorm", tmp_path)
    found = as_json(export(run, "c", "jelly_batchnorm", tmp_path, "spiking_films", "--json"))
    text = (tmp_path / "a.h").read_text()
    for number, key in ((0, "0.weight"), (4, "4.weight"), (8, "8.weight")):
        kept = int(net.state_dict()[key].count_nonzero())
        stage = {0: 0, 4: 3, 8: 5}[number]
        assert f"snn_values_{stage}[{kept}]" in text
    kept = sum(int(net.state_dict()[f"{n}.weight"].count_nonzero()) for n in (0, 4, 8))
    rows = 4 + 6 + 10  # ends and biases have four bytes, places two
    assert found["chain"]["table_bytes"] == kept * (4 + 2) + rows * 8


REFUSED = {
    ("c", "snntorch_residual", "vectors"): "lif2: is driven by several (fc2.weight, lif1)",
    ("c", "snntorch_recurrent", "vectors"): "is driven by several",
    ("c", "snntorch_synaptic", "vectors"): "1: is off by",
    ("c", "snntorch_scaled", "vectors"): "second.1: is off by",
    ("c", "jelly_negative", "spiking_films"): "the pool before its BatchNorm does not let it be",
    ("nir", "jelly_maxpool", "images"): "NIR has a largest of spikes alone",
    ("lava", "jelly_steps", "films"): "what enters the first layer is no spikes",
    ("lava", "jelly_batchnorm", "spiking_films"): "there is a max pool",
}


@pytest.mark.many(2)
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: "-".join(case[:2]))
def test_what_is_no_such_chain_is_one_line_and_no_file(
    case: tuple[str, str, str], run: Run, tmp_path: Path
) -> None:
    to, name, data = case
    net = loud(name, tmp_path)
    if name == "jelly_negative":
        net[2].weight.data[0] = -1
        torch.save(net.state_dict(), tmp_path / f"{name}.pth")
    assert_one_line(export(run, to, name, tmp_path, data), 3, f"{name}.pth", REFUSED[case])
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.pth"]


def test_a_fold_that_is_wrong_is_found_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud("jelly_batchnorm", tmp_path)
    real = chain_pass._read_norm

    def inexact(*args: Any, **kwargs: Any) -> Any:
        norm = real(*args, **kwargs)
        norm.mean[0] += 1e-2
        return norm

    monkeypatch.setattr(chain_pass, "_read_norm", inexact)
    done = export(run, "c", "jelly_batchnorm", tmp_path, "spiking_films")
    assert_one_line(done, 3, "2: is off by")
    assert not (tmp_path / "a.h").exists()


def test_a_header_that_computes_something_else_is_found_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud("jelly_batchnorm", tmp_path)
    monkeypatch.setattr(headers, "_float", lambda value: f"{value:.1f}f")
    done = export(run, "c", "jelly_batchnorm", tmp_path, "spiking_films")
    assert_one_line(done, 3, "the compiled header puts out other values than the network")
    assert not (tmp_path / "a.h").exists()


def test_without_a_compiler_it_says_that_nothing_was_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud("jelly_averaged", tmp_path)
    monkeypatch.setenv("CC", "no-such-compiler")
    done = export(run, "c", "jelly_averaged", tmp_path, "spiking_films")
    assert done.returncode == 0, done.stderr
    assert "the header was not compiled and run here: no no-such-compiler" in done.stderr


# NIR


def test_nir_with_batchnorm_and_a_largest_of_spikes_spikes_alike_in_another_library(
    run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    net = loud("jelly_batchnorm", tmp_path)
    found = as_json(export(run, "nir", "jelly_batchnorm", tmp_path, "spiking_films", "--json"))
    assert found["chain"]["folded"] == 2
    assert found["chain"]["other_spikes"] == 0
    assert any("1 pool of spikes became a mean" in one for one in found["warnings"])
    graph = nir.read(tmp_path / "a.nir")
    weight = net.state_dict()["4.weight"].numpy()
    assert np.array_equal(graph.nodes["4"].weight == 0, weight == 0)
    again = import_from_nir(graph, dt=1e-4)
    x = networks.spiking_films()[0]
    wanted = outputs(net, x, 0)
    assert wanted.any()
    for part in again.modules():  # a node goes one step at a time
        if hasattr(part, "step_mode"):
            part.step_mode = "s"
    with torch.no_grad():
        made, state = [], None
        for frame in x:
            y = again(frame) if state is None else again(frame, state)
            y, state = y if isinstance(y, tuple) else (y, None)
            made.append(y)
    assert torch.equal(torch.stack(made), wanted)


def test_built_in_networks_have_a_graph(
    model_file: Path, run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    done = run("export", model_file, "--to", "nir", "-o", tmp_path / "a.nir", "--json")
    found = as_json(done)
    assert found["chain"]["folded"] > 0
    assert found["chain"]["other_spikes"] <= found["chain"]["spikes"] * 1e-3


# Loihi


def run_blocks(path: Path, x: Tensor) -> Tensor:
    """Spikes (T, N, ...) of a network file by the equations of lava's fixed-point LIF."""
    with h5py.File(path) as file:
        blocks = [file["layer"][str(n)] for n in range(len(file["layer"]))]
        for block in blocks[1:]:
            kind = block["type"][0].decode()
            if kind == "flatten":
                x = x.flatten(2)
                continue
            weight, steps = torch.from_numpy(block["weight"][()]).double(), len(x)
            assert bool((weight % 2 == 0).all())
            assert weight.abs().max() <= 254
            bias = torch.from_numpy(block["bias"][()]).double() if "bias" in block else None
            rows = x.flatten(0, 1).double()
            if kind == "dense":
                driven = functional.linear(rows, weight, bias)
            else:
                names = ("stride", "padding", "dilation")
                how: Any = {name: tuple(block[name][()].tolist()) for name in names}
                driven = functional.conv2d(
                    rows, weight, bias, groups=int(block["groups"][()]), **how
                )
            u = driven.unflatten(0, (steps, -1)) * 64
            assert tuple(u.shape[2:]) == tuple(block["shape"][()])
            decay, level = (int(block[f"neuron/{name}"][()]) for name in ("vDecay", "vThMant"))
            v, made = torch.zeros_like(u[0]), []
            for now in u:
                v = (v * (4096 - decay) / 4096).trunc() + now
                made.append(v > level * 64)
                v[made[-1]] = 0
            x = torch.stack(made).float()
    return x


def test_a_loihi_file_is_the_network_but_for_rounding(
    run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    net = loud("jelly_averaged", tmp_path)
    done = export(run, "lava", "jelly_averaged", tmp_path, "spiking_films", "--json")
    found = as_json(done)
    assert found["chain"]["other_spikes"] < 0.1 * found["chain"]["spikes"]
    with h5py.File(tmp_path / "a.net") as file:
        kinds = [file[f"layer/{n}/type"][0].decode() for n in range(5)]
        pooled = file["layer/2/weight"][()]
    assert kinds == ["input", "conv", "conv", "flatten", "dense"]
    zeros = net.state_dict()["4.weight"].numpy() == 0
    assert (pooled[zeros.repeat(2, 2).repeat(2, 3)] == 0).all()
    x = networks.spiking_films()[0]
    wanted = outputs(net, x, 0)
    assert wanted.any()
    others = (run_blocks(tmp_path / "a.net", x) - wanted).abs().sum()
    assert others <= found["chain"]["other_spikes"]


def test_whole_weights_come_to_the_very_spikes_on_loihi(run: Run, tmp_path: Path) -> None:
    name = "jelly_exact"
    net = networks.jelly_exact()
    torch.save(net.state_dict(), tmp_path / f"{name}.pth")
    done = export(run, "lava", name, tmp_path, "spiking_films")
    assert done.returncode == 0, done.stderr
    assert "in Loihi's integers 0 spikes" in done.stderr
    x = networks.spiking_films()[0]
    wanted = outputs(net, x, 0)
    assert 0.05 < wanted.mean() < 0.95
    assert torch.equal(run_blocks(tmp_path / "a.net", x), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [("sinabs_iaf", "1: puts out several spikes"), ("jelly_soft", "1: does not reset to its rest")],
)
def test_neurons_that_subtract_or_spike_several_times_are_none_of_loihi(
    name: str, words: str, run: Run, tmp_path: Path
) -> None:
    loud(name, tmp_path)
    assert_one_line(export(run, "lava", name, tmp_path, "whole_images"), 3, words)


# integers


def test_integers_of_a_pruned_file_are_those_beside_it(
    run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    path, out = tmp_path / "p.safetensors", tmp_path / "i.safetensors"
    source = tmp_path / "source.safetensors"
    save_file({"a.weight": torch.randn(8, 30), "a.bias": torch.rand(8)}, source)
    cut = ("--sparsity", "0.5", "--criterion", "magnitude")
    assert run("prune", source, *cut, "--bits", "4", "-o", path).returncode == 0
    to = ("export", path, "--to", "integers", "-o", out, "--force")
    assert as_json(run(*to, "--json"))["bits"] == 4
    beside = tmp_path / "p.integers.safetensors"
    found, wanted = load_file(out), load_file(beside)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert as_json(run(*to, "--bits", "8", "--json"))["bits"] == 8
    beside.rename(tmp_path / "q.integers.safetensors")
    assert_one_line(run(*to), 3, "p.safetensors", "p.integers.safetensors is not beside it")
    other = tmp_path / "q.safetensors"
    assert run("prune", source, *cut, "--bits", "6", "-o", other, "--force").returncode == 0
    (tmp_path / "q.integers.safetensors").rename(beside)
    assert_one_line(run(*to), 3, "p.integers.safetensors: holds the integers of another file")


def test_any_checkpoint_is_rounded_to_integers_and_scales(run: Run, tmp_path: Path) -> None:
    weight = torch.randn(6, 4, 3, 3).mul(torch.rand(6, 4, 3, 3) < 0.5)
    path, out = tmp_path / "a.pth", tmp_path / "i.safetensors"
    torch.save({"conv.weight": weight, "conv.bias": torch.rand(6)}, path)
    to = ("export", path, "--to", "integers", "-o", out)
    assert_one_line(run(*to), 3, "a.pth: has floats", "give --bits")
    assert run(*to, "--bits", "8").returncode == 0
    found = load_file(out)
    assert found["conv.weight"].dtype == torch.int8
    made = found["conv.weight"].float() * found["conv.weight.scale"]
    assert torch.equal(made, rounded(weight, 8))
    assert torch.equal(made[weight == 0], weight[weight == 0])


def test_bits_go_with_integers_alone(run: Run, tmp_path: Path) -> None:
    torch.save({"a.weight": torch.rand(4, 4)}, tmp_path / "a.pth")
    to = ("export", tmp_path / "a.pth", "-o", tmp_path / "a.safetensors", "--to")
    assert_one_line(run(*to, "packed", "--bits", "8"), 2, "--bits", "--to integers or c")
    assert_one_line(run(*to, "integers", "--bits", "1"), 2, "--bits", "1 is outside 2 to 16")
