"""Networks whose weights are made of others, shared, shaped late, or that hold nothing that spikes.

The right tensor is pruned, seen in the network itself after a strict load, or nothing is written.
"""

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from torch import nn

Run = Callable[..., subprocess.CompletedProcess[str]]
ODD = """
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm


class Lif(nn.Module):
    def forward(self, x):
        return ((x - 0.1) >= 0).to(x)


class Strange(nn.Module):
    '''A neuron that puts out no 0 and 1, and compares nothing.'''

    def forward(self, x):
        return torch.tanh(x)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2

    def right_inverse(self, weight):
        return 2 * weight


class Net(nn.Module):
    def __init__(self, first, neuron, second, norm=None):
        super().__init__()
        self.first, self.neuron, self.second = first, neuron, second
        self.norm = norm or nn.Identity()

    def forward(self, x):
        return self.second(self.neuron(self.norm(self.first(x.flatten(1)))))


def linear(width=16, out=16):
    return nn.Linear(width, out, bias=False)


def plain():
    return Net(linear(), Lif(), linear(out=2), nn.BatchNorm1d(16))


def no_batchnorm():
    return Net(linear(), Lif(), linear(out=2))


def no_spikes():
    return Net(linear(), nn.ReLU(), linear(out=2), nn.BatchNorm1d(16))


def unknown_neuron():
    return Net(linear(), Strange(), linear(out=2), nn.BatchNorm1d(16))


def lazy():
    return Net(nn.LazyLinear(16, bias=False), Lif(), nn.LazyLinear(2, bias=False),
               nn.LazyBatchNorm1d())


def tied():
    net = Net(linear(), Lif(), nn.Sequential(linear(), Lif(), linear(out=2)))
    net.second[0].weight = net.first.weight
    return net


def old_norm():
    return Net(old_weight_norm(linear()), Lif(), linear(out=2))


def new_norm():
    return Net(parametrizations.weight_norm(linear()), Lif(), linear(out=2))


def old_spectral():
    return Net(old_spectral_norm(linear()), Lif(), linear(out=2))


def new_spectral():
    return Net(parametrizations.spectral_norm(linear()), Lif(), linear(out=2))


def orthogonal():
    return Net(parametrizations.orthogonal(linear()), Lif(), linear(out=2))


def halved():
    net = no_batchnorm()
    parametrize.register_parametrization(net.first, "weight", Halved())
    return net


def batches():
    drawn = torch.Generator().manual_seed(0)
    x = torch.rand(32, 16, generator=drawn)
    return list(zip(x.split(8), torch.randint(2, (32,), generator=drawn).split(8)))
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `odd.py` in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(ODD)
    spec = importlib.util.spec_from_file_location("odd_networks", "odd.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saved(odd: Any, name: str) -> nn.Module:
    """A network with shapes, whose state dict lies in `net.pth`."""
    torch.manual_seed(0)
    net: nn.Module = getattr(odd, name)().eval()
    net(odd.batches()[0][0])
    torch.save(net.state_dict(), "net.pth")
    return net


def words(name: str) -> tuple[str, ...]:
    return ("--model", f"odd.py:{name}", "--data", "odd.py:batches")


def pruned(run: Run, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    out = ("--sparsity", "0.5", "-o", "out.pth", "--no-eval", "--json")
    return run("prune", "net.pth", *words(name), *out, *more)


def zeros_in_effect(odd: Any, name: str) -> int:
    """How many of the weights that the two layers apply are 0, after a strict load of the file."""
    net: nn.Module = getattr(odd, name)().eval()
    net(odd.batches()[0][0])
    net.load_state_dict(torch.load("out.pth", weights_only=True), strict=True)
    net(odd.batches()[0][0])
    layers = [part for part in net.modules() if isinstance(part, nn.Linear)]
    weights = {id(layer.weight): layer.weight for layer in layers}
    return sum(int((weight == 0).sum()) for weight in weights.values())


@pytest.mark.many(2)
@pytest.mark.parametrize("criterion", ["magnitude", "sf"])
@pytest.mark.parametrize("name", ["plain", "no_batchnorm", "lazy", "tied"])
def test_half_of_the_weights_that_are_applied_are_0_after_a_strict_load(
    name: str, criterion: str, odd: Any, run: Run
) -> None:
    net = saved(odd, name)
    shared = {id(p): p.numel() for p in net.parameters() if p.dim() > 1}
    done = pruned(run, name, "--criterion", criterion)
    assert done.returncode == 0, done.stderr
    assert zeros_in_effect(odd, name) == round(0.5 * sum(shared.values()))


@pytest.mark.many(2)
@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("with_network", [True, False])
@pytest.mark.parametrize(
    "name", ["old_norm", "new_norm", "old_spectral", "new_spectral", "orthogonal", "halved"]
)
def test_a_weight_that_is_made_of_others_is_pruned_in_effect_or_refused_by_name(
    name: str, with_network: bool, odd: Any, run: Run
) -> None:
    saved(odd, name)
    if with_network:
        done = pruned(run, name, "--criterion", "magnitude")
    else:
        done = run("prune", "net.pth", "--sparsity", "0.5", "-o", "out.pth")
    if done.returncode == 0:
        total = json.loads(done.stdout)["totals"]
        assert zeros_in_effect(odd, name) == total["pruned"], done.stderr
        return
    assert_one_line(done, 3, "first")
    assert not Path("out.pth").exists()


def test_tied_weights_are_written_under_each_name_and_the_tie_is_told(odd: Any, run: Run) -> None:
    saved(odd, "tied")
    done = pruned(run, "tied", "--criterion", "magnitude")
    assert done.returncode == 0, done.stderr
    found = torch.load("out.pth", weights_only=True)
    assert torch.equal(found["first.weight"], found["second.0.weight"])
    assert found["first.weight"].data_ptr() == found["second.0.weight"].data_ptr()
    rows = {row["weight"]: row for row in json.loads(done.stdout)["layers"]}
    assert json.loads(done.stdout)["totals"]["pruned"] == 144
    assert "second.0.weight" not in rows


@pytest.mark.parametrize("name", ["no_spikes", "unknown_neuron"])
def test_a_network_without_neurons_that_are_known_is_refused_where_one_is_needed(
    name: str, odd: Any, run: Run
) -> None:
    saved(odd, name)
    done = pruned(run, name, "--criterion", "sf", "--strict")
    kind = "ReLU" if name == "no_spikes" else "Strange"
    assert_one_line(done, 3, "neuron", kind)
    assert not Path("out.pth").exists()


def test_a_repair_of_batchnorm_is_refused_where_there_is_none(odd: Any, run: Run) -> None:
    saved(odd, "no_batchnorm")
    done = pruned(run, "no_batchnorm", "--criterion", "magnitude", "--repair", "bn")
    assert_one_line(done, 3, "there is no BatchNorm to repair")
