"""Files whose keys are not those of the network, as trainers, libraries and wrappers leave them."""

import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations, prune

Run = Callable[..., subprocess.CompletedProcess[str]]

MINE = """
import snntorch
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.lif1 = snntorch.Leaky(beta=0.8, init_hidden=True)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.lif2 = snntorch.Leaky(beta=0.8, init_hidden=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        steps = []
        for _ in range(3):
            y = self.lif1(self.bn1(self.conv1(x)))
            y = self.lif2(self.bn2(self.conv2(y)))
            steps.append(self.out(y.flatten(1)))
        return torch.stack(steps)


def build():
    torch.manual_seed(0)
    net = Net()
    for norm in (net.bn1, net.bn2):
        nn.init.ones_(norm.bias)
    return net


def parallel():
    return nn.DataParallel(build())


def masked():
    net = build()
    prune.random_unstructured(net.conv2, "weight", amount=0.5)
    return net


def normed():
    net = build()
    parametrizations.weight_norm(net.conv2)
    return net


def batches():
    drawn = torch.Generator().manual_seed(0)
    for _ in range(2):
        yield torch.rand(8, 1, 6, 6, generator=drawn), torch.randint(3, (8,), generator=drawn)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's file, in the working folder, as a module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    names: dict[str, Any] = {}
    exec(MINE, names)
    return names


FLAGS = ("--data", "mine.py:batches", "--sparsity", "0.5", "--criterion", "sf")


def pruned(run: Run, saved: object, *more: str, build: str = "build") -> tuple[Any, Any]:
    """What `prune` says of a file that holds `saved`, and the state dict that it writes."""
    torch.save(saved, "in.pth")
    done = run("prune", "in.pth", "-o", "out.pth", "--model", f"mine.py:{build}", *FLAGS, *more)
    assert done.returncode == 0, done.stderr
    return done, torch.load("out.pth", weights_only=True)


def test_the_prefix_of_a_lightning_module_is_matched_to_the_network(mine: Any, run: Run) -> None:
    state = mine["build"]().state_dict()
    wrapped = {"net." + key: value for key, value in state.items()}
    saved: dict[str, Any] = {"state_dict": {**wrapped, "loss.weight": torch.ones(3)}, "epoch": 3}
    done, written = pruned(run, saved)
    assert "stripped the prefix net. from" in done.stderr
    assert list(written["state_dict"]) == list(saved["state_dict"])
    assert torch.equal(written["state_dict"]["loss.weight"], torch.ones(3))
    assert written["epoch"] == 3
    zeros = sum(
        int((v == 0).sum()) for k, v in written["state_dict"].items() if "conv" in k or "out.w" in k
    )
    assert zeros == round(0.5 * (36 + 144 + 48))


@pytest.mark.parametrize("build", ["build", "parallel"])
def test_a_file_of_a_parallel_network_fits_the_network_with_and_without_it(
    mine: Any, run: Run, build: str
) -> None:
    state = mine["parallel"]().state_dict()
    _, written = pruned(run, state, build=build)
    assert list(written) == list(state)
    mine["parallel"]().load_state_dict(written)


def test_a_saved_membrane_is_left_out_so_that_the_file_loads(mine: Any, run: Run) -> None:
    state = mine["build"]().state_dict()
    state["lif1.mem"] = torch.rand(32, 4, 4, 4)  # as snnTorch 0.8 saved it
    done, written = pruned(run, state)
    assert "left out what neurons had saved: lif1.mem" in done.stderr
    mine["build"]().load_state_dict(written)


def test_masks_that_were_left_in_a_file_are_folded_for_a_plain_network(mine: Any, run: Run) -> None:
    masked: nn.Module = mine["masked"]()
    done, written = pruned(run, masked.state_dict())
    assert "folded 1 mask" in done.stderr
    mine["build"]().load_state_dict(written)
    gone = masked.state_dict()["conv2.weight_mask"] == 0
    assert not written["conv2.weight"][gone].any()


def test_masks_stay_where_the_network_has_them_too(mine: Any, run: Run) -> None:
    state = mine["masked"]().state_dict()
    done, written = pruned(run, state, build="masked")
    assert list(written) == list(state)
    assert "72 of the 114 pruned weights were 0 already" in done.stderr
    network = mine["masked"]()
    network.load_state_dict(written)
    network(torch.rand(1, 1, 6, 6))
    weights = [network.conv1.weight, network.conv2.weight, network.out.weight]
    assert sum(int((weight == 0).sum()) for weight in weights) == 114


def test_a_weight_under_weight_norm_is_refused_by_name_or_left_out(mine: Any, run: Run) -> None:
    state = mine["normed"]().state_dict()
    torch.save(state, "in.pth")
    asked = ("prune", "in.pth", "-o", "out.pth", "--model", "mine.py:normed", *FLAGS)
    done = run(*asked)
    assert_one_line(done, 3)
    assert "conv2.parametrizations.weight.original1: is made by weight_norm" in done.stderr
    done = run(*asked, "--exclude", "conv2.*")
    assert done.returncode == 0, done.stderr
    written = torch.load("out.pth", weights_only=True)
    for key in state:
        if key.startswith("conv2."):
            assert torch.equal(written[key], state[key])


@pytest.mark.parametrize("old", [True, False])
def test_weight_norm_is_named_without_the_network_too(
    old: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (nn.utils.weight_norm if old else parametrizations.weight_norm)(network[1])
    torch.save(network.state_dict(), "in.pth")
    done = run("prune", "in.pth", "-o", "out.pth", "--sparsity", "0.5")
    assert done.returncode == 3
    assert "in.pth: 1.weight: is made by" in done.stderr
    shown = run("inspect", "in.pth")
    assert shown.returncode == 0
    assert "not prunable: 1.weight" in shown.stdout
    done = run("prune", "in.pth", "-o", "out.pth", "--sparsity", "0.5", "--exclude", "1")
    assert done.returncode == 0, done.stderr


def test_keys_of_old_containers_are_matched_by_shape(mine: Any, run: Run) -> None:
    state = mine["build"]().state_dict()
    old = {
        key.replace("conv2.", "conv2.0.").replace("bn2.", "bn2.module."): value
        for key, value in state.items()
    }
    done, written = pruned(run, old)
    assert "matched" in done.stderr
    assert "conv2.0.weight for conv2.weight" in done.stderr
    assert list(written) == list(old)


def test_a_missing_threshold_is_taken_from_the_model_and_a_missing_weight_is_not(
    mine: Any, run: Run
) -> None:
    state = mine["build"]().state_dict()
    short = {key: value for key, value in state.items() if not key.startswith("lif")}
    _, written = pruned(run, short)
    assert list(written) == list(short)
    del short["bn2.running_var"]
    torch.save(short, "in.pth")
    done = run("prune", "in.pth", "-o", "new.pth", "--model", "mine.py:build", *FLAGS)
    assert done.returncode == 3
    assert "1 of" in done.stderr
    assert "missing: bn2.running_var" in done.stderr


def test_an_average_of_weights_is_pruned_as_it_is(mine: Any, run: Run) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(mine["build"]())
    state = averaged.state_dict()
    _, written = pruned(run, state)
    assert list(written) == list(state)
    averaged.load_state_dict(written)


def test_a_network_of_masked_weights_keeps_its_file_a_drop_in_as_safetensors(
    mine: Any, run: Run
) -> None:
    network = mine["build"]()
    prune.l1_unstructured(network.out, "weight", amount=0.25)
    torch.save(network.state_dict(), "in.pth")
    done = run("prune", "in.pth", "-o", "out.safetensors", "--model", "mine.py:build", *FLAGS)
    assert done.returncode == 0, done.stderr
    mine["build"]().load_state_dict(load_file("out.safetensors"))


SINABS = """
import sinabs.layers as sl
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.spikes, self.second = nn.Linear(9, 5), sl.ALIF(10.0, 10.0), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(self.spikes(self.first(x)))


def build():
    torch.manual_seed(0)
    return Net()


def batches():
    yield torch.rand(8, 4, 9), torch.zeros(8, dtype=torch.int64)
"""


def test_states_that_sinabs_saved_are_written_as_a_fresh_network_has_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SINABS)
    names: dict[str, Any] = {}
    exec(SINABS, names)
    network = names["build"]()
    network(torch.rand(2, 4, 9))
    done, written = pruned(run, network.state_dict(), "--no-eval", "--criterion", "magnitude")
    assert "saved: spikes.b, spikes.spike_threshold, spikes.v_mem" in done.stderr
    names["build"]().load_state_dict(written)
