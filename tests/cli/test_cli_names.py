"""Weights with two names or none yet, names that moved, and weights that no layer uses."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor

Run = Callable[..., subprocess.CompletedProcess[str]]
Json = Callable[[subprocess.CompletedProcess[str]], Any]

MINE = """
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm


class Spike(nn.Module):
    def forward(self, u):
        return (u > 0.2).float()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.b1, self.l1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), Spike()
        self.c2, self.l2 = nn.Conv2d(4, 4, 3, padding=1), Spike()
        self.fc = nn.Linear(64, 3)

    def between(self, h):
        return h

    def forward(self, x):
        h = self.between(self.l1(self.b1(self.c1(x))))
        return self.fc(self.l2(self.c2(h)).flatten(1))


class Twice(Net):
    def __init__(self):
        super().__init__()
        self.a_feat = nn.Sequential(self.c1, self.b1)


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.a_more = nn.Conv2d(4, 4, 3, padding=1)
        self.a_more.weight = self.c2.weight

    def between(self, h):
        return (self.a_more(h) > 0).float()


class Lazy(Net):
    def __init__(self):
        super().__init__()
        self.c2, self.fc = nn.LazyConv2d(4, 3, padding=1), nn.LazyLinear(3)


class Extra(Net):
    def __init__(self, state=None):
        super().__init__()
        self.state = {"bits": 8} if state is None else state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


class Unused(Net):
    def __init__(self):
        super().__init__()
        self.up, self.rnn = nn.ConvTranspose2d(4, 4, 3, padding=1), nn.LSTM(4, 4)
        self.position = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.after = nn.LayerNorm(4)

    def between(self, h):
        return (self.up(h + self.position) > 0).float()


class Moved(nn.Module):
    def __init__(self, before):
        super().__init__()
        ways = [nn.Linear(16, 16), Spike(), nn.Linear(16, 16), Spike()]
        self.f = nn.Sequential(*[nn.Flatten()] * before, *ways)

    def forward(self, x):
        return self.f(x.flatten(1))


def normed():
    net = Net()
    parametrizations.weight_norm(net.c2)
    return net


def old_normed():
    net = Net()
    weight_norm(net.c2)
    return net


def moved():
    return Moved(2)


def batches():
    drawn = torch.Generator().manual_seed(0)
    for _ in range(2):
        yield torch.rand(8, 1, 4, 4, generator=drawn), torch.randint(3, (8,), generator=drawn)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's file, in the working folder, as a module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    names: dict[str, Any] = {"__name__": "mine"}
    exec(MINE, names)
    torch.manual_seed(0)
    return names


def asked(file: str, build: str, out: str = "out.pth") -> tuple[str, ...]:
    named = ("--model", f"mine.py:{build}", "--data", "mine.py:batches")
    return ("prune", file, "-o", out, "--sparsity", "0.5", "--no-tune", *named)


def zeros(state: dict[str, Tensor], *keys: str) -> int:
    return sum(int((state[key] == 0).sum()) for key in keys)


WEIGHTS = ("c1.weight", "c2.weight", "fc.weight")
COUNT = 36 + 144 + 192


def test_a_batchnorm_with_two_names_is_repaired_under_both(mine: Any, run: Run) -> None:
    state = mine["Twice"]().state_dict()
    torch.save(state, "in.pth")
    done = run(*asked("in.pth", "Twice"), "--criterion", "magnitude", "--allocation", "local")
    assert done.returncode == 0, done.stderr
    written = torch.load("out.pth", weights_only=True)
    assert list(written) == list(state)
    for statistic in ("running_mean", "running_var"):
        found = written[f"b1.{statistic}"]
        assert torch.equal(found, written[f"a_feat.1.{statistic}"])
        assert not torch.equal(found, state[f"b1.{statistic}"])


@pytest.mark.parametrize(("build", "kept"), [("Twice", "a_feat.0.weight"), ("Tied", "a_more")])
def test_tensors_that_were_stored_once_are_written_once(
    mine: Any, run: Run, build: str, kept: str
) -> None:
    save_model(mine[build](), "in.safetensors")  # keeps the first name in the alphabet
    names = load_file("in.safetensors").keys()
    assert any(name.startswith(kept) for name in names)
    assert not {"c1.weight", "c2.weight"} <= names
    done = run(*asked("in.safetensors", build, "out.safetensors"))
    assert done.returncode == 0, done.stderr
    assert load_file("out.safetensors").keys() == names
    network = mine[build]()
    network.load_state_dict(load_file("out.safetensors"), strict=False)
    assert zeros(network.state_dict(), *WEIGHTS) == COUNT // 2
    if build == "Tied":  # of Twice, safetensors loads not even its own file
        load_model(mine[build](), "out.safetensors")


def test_a_lazy_network_takes_its_shapes_from_the_file(mine: Any, run: Run) -> None:
    network = mine["Lazy"]()
    network(torch.rand(1, 1, 4, 4))
    torch.save(network.state_dict(), "in.pth")
    done = run(*asked("in.pth", "Lazy"))
    assert done.returncode == 0, done.stderr
    written = torch.load("out.pth", weights_only=True)
    assert zeros(written, *WEIGHTS) == COUNT // 2
    network.load_state_dict(written)


def test_layers_that_moved_do_not_change_places(mine: Any, run: Run) -> None:
    torch.save(mine["Moved"](0).state_dict(), "in.pth")  # f.0, f.2 for f.2, f.4
    assert_one_line(run(*asked("in.pth", "moved")), 3, "2 of 4 tensors missing: f.4.weight, ")


@pytest.mark.parametrize("state", [{"bits": 8}, torch.arange(3)], ids=["dict", "tensor"])
def test_extra_state_stays_where_it_is(mine: Any, run: Run, state: Any) -> None:
    saved = mine["Extra"](state).state_dict()
    torch.save(saved, "in.pth")
    done = run(*asked("in.pth", "Extra"))
    assert done.returncode == 0, done.stderr
    written = torch.load("out.pth", weights_only=True)
    assert list(written) == list(saved)
    assert bool(torch.as_tensor(written["_extra_state"] == state).all())
    mine["Extra"]().load_state_dict(written)


@pytest.mark.parametrize(
    ("build", "key"),
    [("normed", "c2.parametrizations.weight.original1"), ("old_normed", "c2.weight_v")],
)
@pytest.mark.parametrize("pattern", ["c2", "c2.weight"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_a_made_weight_is_excluded_by_the_name_of_the_whole(
    mine: Any, run: Run, as_json: Json, build: str, key: str, pattern: str
) -> None:
    torch.save(mine[build]().state_dict(), "in.pth")
    done = run(*asked("in.pth", build), "--exclude", pattern, "--json")
    assert done.returncode == 0, done.stderr
    report = as_json(done)
    assert report["excluded"] == [key]
    assert report["totals"]["prunable"] == 36 + 192
    assert report["unused"] == []


UNUSED = ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]


@pytest.mark.parametrize("command", ["score", "prune"])
def test_weights_that_no_layer_uses_are_told_once(
    mine: Any, run: Run, as_json: Json, command: str
) -> None:
    torch.save(mine["Unused"]().state_dict(), "in.pth")
    named = asked("in.pth", "Unused") if command == "prune" else (
        "score", "in.pth", *asked("in.pth", "Unused")[-4:]
    )  # fmt: skip
    said = f"not pruned: 2 weights that no convolution or linear layer uses: {', '.join(UNUSED)}"
    report = as_json(run(*named, "--json"))
    assert report["unused"] == UNUSED
    assert report["notes"].count(said) == 1
    report = as_json(run(*named, "--json", "--exclude", "up", "--exclude", "rnn.*", "--force"))
    assert report["unused"] == []
    assert not any("not pruned" in warning for warning in report["warnings"])


def test_inspect_tells_of_weights_that_no_layer_uses(mine: Any, run: Run, as_json: Json) -> None:
    torch.save(mine["Unused"]().state_dict(), "in.pth")
    named = ("inspect", "in.pth", *asked("in.pth", "Unused")[-4:])
    assert "not pruned: 2 weights that no convolution or linear layer" in run(*named).stdout
    assert as_json(run(*named, "--json"))["unused"] == UNUSED
    left = (*named, *(f"--exclude={layer}" for layer in ("c1", "c2", "up", "fc")))
    assert_one_line(run(*left), 3, "--exclude: leaves nothing to prune")


def test_ties_of_a_file_alone_are_pruned_alike(mine: Any, run: Run, as_json: Json) -> None:
    one = torch.ones(4, 4)  # all scores are equal
    state = {"a.weight": one, "b.weight": one, "c.weight": torch.ones(2, 4)}
    torch.save(state, "in.pth")
    report = as_json(run("prune", "in.pth", "-o", "out.pth", "--sparsity", "0.5", "--json"))
    assert report["totals"]["prunable"] == 16 + 8
    written = torch.load("out.pth", weights_only=True)
    assert torch.equal(written["a.weight"], written["b.weight"])
    assert zeros(written, "a.weight", "c.weight") == 12
    assert written["a.weight"].data_ptr() == written["b.weight"].data_ptr()
