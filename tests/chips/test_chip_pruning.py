"""`prune --chip`, `check --chip` and `export --chip` on a network of SpikingJelly."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from snnprune.chips import load_chip

Run = Callable[..., subprocess.CompletedProcess[str]]
OWN = """
import torch
from spikingjelly.activation_based import functional, layer, neuron

def build(kind=neuron.IFNode, pool=layer.AvgPool2d):
    torch.manual_seed(3)
    parts = []
    for inputs, outputs in ((2, 12), (12, 16)):
        parts += [layer.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        parts += [layer.BatchNorm2d(outputs), kind(v_threshold=0.4), pool(2)]
    parts += [layer.Flatten(), layer.Linear(16 * 4, 5, bias=False), kind(v_threshold=0.2)]
    net = torch.nn.Sequential(*parts)
    functional.set_step_mode(net, "m")
    return net

def leaky():
    return build(neuron.LIFNode)

def pooled():
    return build(pool=layer.MaxPool2d)

def data():
    events = torch.Generator().manual_seed(1)
    for _ in range(4):
        x = torch.rand(3, 16, 2, 8, 8, generator=events)
        yield (x < 0.3).float(), torch.arange(16) % 5
"""
QUICK = ("--no-tune", "--criterion", "magnitude", "--repair", "bn", "--samples", 48)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with own.py, its network in net.safetensors and a small chip in chip.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    scope: dict[str, Any] = {}
    exec(OWN, scope)
    net = scope["build"]()
    for module in net:
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, -1.5, 1.5)
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_var, 0.2, 3.0)
    save_file(net.state_dict(), "net.safetensors")
    chip = load_chip("speck").model_dump(mode="json", exclude_none=True)
    chip["cores"] = [{"count": 3, "weights": 1024, "neurons": 1024, "biases": 64}]
    Path("chip.yaml").write_text(yaml.safe_dump(chip))
    return tmp_path


def named(model: str = "build") -> tuple[str, ...]:
    return "--model", f"own.py:{model}", "--data", "own.py:data"


def read_fit(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text())["chip"]
    return found


@pytest.fixture
def pruned(here: Path, run: Run) -> str:
    done = run(
        *("prune", "net.safetensors", *named(), "--chip", "chip.yaml", *QUICK),
        *("-o", "p.safetensors"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_loses_as_many_channels_as_it_has_to_and_is_written_smaller(
    pruned: str, run: Run
) -> None:
    before = run("check", "net.safetensors", *named(), "--chip", "chip.yaml", "--json")
    assert before.returncode == 4
    told = json.loads(before.stdout)["chip"]
    assert {one["rule"] for one in told["misfits"]} == {"weights", "bits"}
    assert told["channels"] == {"0.weight": 4, "4.weight": 16}  # 12 * 16 * 16 entries are too many
    held = load_file("p.safetensors")
    assert held["0.weight"].shape == (4, 2, 3, 3)
    assert held["4.weight"].shape == (16, 4, 3, 3)
    assert read_fit("p.report.json")["fits"]
    assert "accuracy" in pruned
    after = run("check", "p.safetensors", *named(), "--chip", "chip.yaml", "--json")
    assert after.returncode == 0
    assert json.loads(after.stdout)["chip"] == read_fit("p.report.json")


@pytest.mark.slow
def test_its_weights_are_integers_with_one_scale_once_batchnorm_is_folded(
    pruned: str, run: Run
) -> None:
    held = load_file("p.safetensors")
    for weight, norm in (("0", "1"), ("4", "5")):
        deviation = (held[f"{norm}.running_var"].double() + 1e-5).sqrt()
        factor = held[f"{norm}.weight"].double() / deviation
        folded = held[f"{weight}.weight"].double() * factor.view(-1, 1, 1, 1)
        counts = folded / folded.abs().max() * 127
        for most in range(127, 0, -1):  # the largest need not have taken the end of the grid
            steps = counts * most / 127
            if (steps - steps.round()).abs().max() < 1e-3:
                break
        assert most > 100
    integers = load_file("p.integers.safetensors")
    assert integers["0.weight"].dtype == torch.int8
    assert torch.equal(integers["0.weight"] * integers["0.weight.scale"], held["0.weight"])

    # it fits, so it is written; the whole network does not
    to = ("--to", "pth", "--chip", "chip.yaml")
    assert run("export", "p.safetensors", *named(), *to, "-o", "p.pth").returncode == 0
    assert Path("p.pth").exists()
    assert run("export", "net.safetensors", *named(), *to, "-o", "net.pth").returncode == 4
    assert not Path("net.pth").exists()


def test_what_leaks_or_pools_otherwise_is_refused_before_any_work(here: Path, run: Run) -> None:
    for model, words in (("leaky", "its neurons leak"), ("pooled", "max pooling before it")):
        flags = (*named(model), "--chip", "chip.yaml", "-o", "p.safetensors")
        done = run("prune", "net.safetensors", *flags, *QUICK)
        assert done.returncode == 4
        assert words in done.stderr
        assert "pruning does not change it" in done.stderr
        assert not Path("p.safetensors").exists()


@pytest.mark.slow
def test_a_sparse_chip_takes_single_weights_and_its_own_bits(here: Path, run: Run) -> None:
    chip = load_chip("template").model_dump(mode="json", exclude_none=True)
    chip |= {"weight_bits": 4, "limits": {"synapses": 1500, "fan_in": 60}}
    Path("sparse.yaml").write_text(yaml.safe_dump(chip))
    flags = (*named(), "--chip", "sparse.yaml", *QUICK, "-o", "s.safetensors")
    assert run("prune", "net.safetensors", *flags).returncode == 0
    fit, held = read_fit("s.report.json"), load_file("s.safetensors")
    assert fit["fits"]
    kept = {key: held[key] != 0 for key in ("0.weight", "4.weight", "9.weight")}
    assert sum(int(mask.sum()) for mask in kept.values()) <= 1500
    assert max(int(mask.flatten(1).sum(1).max()) for mask in kept.values()) <= 60
    assert held["4.weight"].shape == (16, 12, 3, 3)
    report = json.loads(Path("s.report.json").read_text())
    assert (report["quantization"]["bits"], report["quantization"]["per"]) == (4, "channel")


@pytest.mark.slow
def test_beside_a_sparsity_a_chip_is_a_gate(here: Path, run: Run) -> None:
    flags = (*named(), "--chip", "chip.yaml", "--sparsity", "0.5", *QUICK, "-o", "g.safetensors")
    done = run("prune", "net.safetensors", *flags)
    assert done.returncode == 4
    assert "--chip chip.yaml (does not fit: 4.weight: takes 3,072 entries of weights" in done.stderr
    assert Path("g.safetensors").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--structure", "channels"), "--structure: is decided by --chip chip.yaml"),
        (("--bits", "9"), "--bits: 9 bits are more than the 8 of chip.yaml"),
        (("--max-weights", "100"), "--max-weights: is given beside --chip chip.yaml, which stores"),
        (("--target-accuracy", "0.5"), "--target-accuracy: is decided by --chip chip.yaml"),
    ],
)
def test_what_a_chip_decides_is_refused_beside_it(
    flags: tuple[str, ...], words: str, here: Path, run: Run
) -> None:
    chip = ("--chip", "chip.yaml", "-o", "p.safetensors")
    done = run("prune", "net.safetensors", *named(), *chip, *flags)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_chip_without_a_network_cannot_be_judged(here: Path, run: Run) -> None:
    done = run("check", "net.safetensors", "--chip", "speck")
    assert done.returncode == 3
    assert "--chip: cannot be judged" in done.stderr
    done = run("prune", "net.safetensors", "--chip", "speck", "-o", "p.safetensors")
    assert done.returncode == 3
    assert "a chip needs the network" in done.stderr
