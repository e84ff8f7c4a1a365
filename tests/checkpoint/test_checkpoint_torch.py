"""Torch files as trainers write them, and files that would run code."""

import argparse
import collections
import hashlib
import importlib
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnprune.checkpoint.containers import describe_checkpoint, read_checkpoint
from snnprune.errors import InputError

STATE = {
    "conv.weight": torch.arange(36.0).reshape(2, 2, 3, 3),
    "conv.bias": torch.ones(2),
    "bn.num_batches_tracked": torch.tensor(7),
    "fc.weight": torch.full((3, 2), 0.5, dtype=torch.float16),
}
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
ADVICE = (
    "holds code, which snnprune never runs. save the state_dict instead: "
    "torch.save(model.state_dict(), FILE)"
)


def saved(path: Path, value: Any, *, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_is_state(tensors: dict[str, Tensor]) -> None:
    assert list(tensors) == list(STATE)
    for name, expected in STATE.items():
        assert tensors[name].dtype == expected.dtype
        assert torch.equal(tensors[name], expected)


@FORMATS
@pytest.mark.parametrize(
    ("value", "note"),
    [
        (STATE, None),
        (collections.OrderedDict(STATE), None),
        ({"net": STATE, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}, "net"),
        ({"model": STATE, "args": argparse.Namespace(lr=0.1, opt="sgd"), "epoch": 3}, "model"),
        ({"state_dict": STATE, "pytorch-lightning_version": "2.0", "callbacks": {}}, "state_dict"),
        ({"model_state_dict": STATE, "best_loss": torch.tensor(0.3)}, "model_state_dict"),
        ({"model": {"state_dict": STATE}, "epoch": 1}, "model.state_dict"),
        ({"weights": STATE, "epoch": 1}, "weights"),
        ({"run": {"weights": STATE}}, "run.weights"),
        (
            {"model": STATE, "model_ema": STATE, "scaler": {"scale": torch.tensor(2.0)}},
            "model, not those under model_ema (--state-dict chooses)",
        ),
    ],
    ids=[
        "plain", "ordered", "net", "namespace", "lightning", "neurobench", "two levels", "only",
        "only below", "ema beside",
    ],
)  # fmt: skip
def test_a_state_dict_is_found_where_trainers_put_it(
    tmp_path: Path, value: Any, note: str | None, zipped: bool
) -> None:
    path = saved(tmp_path / "model.pth.tar", value, zipped=zipped)
    checkpoint = read_checkpoint(path)
    assert_is_state(checkpoint.tensors)
    assert checkpoint.container == "torch"
    assert checkpoint.metadata == {}
    assert checkpoint.notes == ((f"read the tensors under {note}",) if note else ())
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_parameters_are_read_as_plain_tensors(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", dict(nn.Linear(2, 3).named_parameters()))
    tensors = read_checkpoint(path).tensors
    assert [type(tensor) for tensor in tensors.values()] == [Tensor, Tensor]
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_views_of_one_storage_are_read_as_their_own_values(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    path = saved(tmp_path / "a", {"tied": base, "tied too": base, "turned": base.T})
    tensors = read_checkpoint(path).tensors
    assert tensors["tied too"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("prefix", "notes"),
    [
        ("module.", ["stripped the prefix module. from 4 keys"]),
        ("_orig_mod.", ["stripped the prefix _orig_mod. from 4 keys"]),
        (
            "module._orig_mod.",
            [
                "stripped the prefix module. from 4 keys",
                "stripped the prefix _orig_mod. from 4 keys",
            ],
        ),
    ],
)
def test_the_prefixes_of_wrappers_are_stripped_with_a_note(
    tmp_path: Path, prefix: str, notes: list[str]
) -> None:
    path = saved(tmp_path / "a", {prefix + name: tensor for name, tensor in STATE.items()})
    checkpoint = read_checkpoint(path)
    assert_is_state(checkpoint.tensors)
    assert list(checkpoint.notes) == notes


@pytest.mark.parametrize(
    "names",
    [["module.a", "b"], ["net.a", "net.b"], ["model.a", "model.b"], ["module.", "module.b"]],
)
def test_other_prefixes_and_those_of_some_keys_stay(tmp_path: Path, names: list[str]) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "a", {name: torch.ones(2) for name in names}))
    assert list(checkpoint.tensors) == names
    assert checkpoint.notes == ()


def test_entries_that_are_no_tensors_are_skipped_with_a_note(tmp_path: Path) -> None:
    value: dict[Any, Any] = {**STATE, "_extra_state": {"a": 1}, "v_threshold": 1.0, 7: 0.5}
    checkpoint = read_checkpoint(saved(tmp_path / "a", value))
    assert_is_state(checkpoint.tensors)
    assert checkpoint.notes == (
        "skipped 3 entries that are no tensors: _extra_state, v_threshold, 7",
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.ones(2)], "holds a list, not a state_dict"),
        (torch.ones(2), "holds a Tensor, not a state_dict"),
        ({}, "no state_dict found; the keys are none"),
        ({f"k{i}": i for i in range(9)}, "the keys are k0, k1, k2, k3, k4 and 4 more"),
        (
            {"generator": STATE, "discriminator": STATE, "epoch": 1},
            "more than one state_dict: generator, discriminator. choose with --state-dict",
        ),
        ({"a": {"b": {"c": STATE}}}, "no state_dict found; the keys are a"),
    ],
    ids=["list", "tensor", "empty", "numbers", "two", "too deep"],
)
def test_what_holds_no_state_dict_names_the_keys_seen(
    tmp_path: Path, value: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_checkpoint(saved(tmp_path / "a", value))


class Touch:
    """Unpickling this runs `touch`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


def attacks(folder: Path, target: Path) -> dict[str, Path]:
    """Files that touch `target` when they are unpickled, in every container and format."""
    value = {"w": torch.ones(2), "x": Touch(target)}
    paths = {
        "zip": saved(folder / "zip.pth", value),
        "legacy": saved(folder / "legacy.pth", value, zipped=False),
        "named safetensors": saved(folder / "named.safetensors", value),
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = folder / f"pickle{protocol}.pt"
        path.write_bytes(pickle.dumps(Touch(target), protocol))
        paths[f"protocol {protocol}"] = path
    return paths


def test_a_pickle_that_runs_code_is_refused_and_never_runs(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    for name, path in attacks(tmp_path, target).items():
        for read in (read_checkpoint, describe_checkpoint):
            with pytest.raises(InputError) as caught:
                read(path)
            assert str(caught.value) == f"{path}: posix.system: {ADVICE}", name
    assert not target.exists()


def test_the_attacks_do_run_code_where_they_are_unpickled(tmp_path: Path) -> None:
    for name, path in attacks(tmp_path, tmp_path / "touched").items():
        if name.startswith("protocol"):
            pickle.loads(path.read_bytes())
        else:
            with path.open("rb") as file:
                torch.load(file, weights_only=False)
        assert (tmp_path / "touched").exists(), name
        (tmp_path / "touched").unlink()


NET = """
from pathlib import Path

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.extra = nn.Conv2d(1, 2, 3), {"conv": 3}


Path("imported").touch()
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of a class in a file of the current folder, not imported any more."""
    monkeypatch.chdir(tmp_path)
    Path("my_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    made = importlib.import_module("my_net").Net()
    del sys.modules["my_net"]
    Path("imported").unlink()
    yield made
    sys.modules.pop("my_net", None)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("key", [None, "model", "module", "it's \x1b[1m"])
def test_a_whole_module_is_read_as_its_state_dict_without_its_class(
    net: Any, zipped: bool, protocol: int, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "my_net", ModuleType("my_net"))
        patch.setattr(sys.modules["my_net"], "Net", type(net), raising=False)
        held = net if key is None else {"epoch": 3, "args": {"lr": 1}, key: net}
        torch.save(held, "whole.pth", pickle, protocol, _use_new_zipfile_serialization=zipped)
    checkpoint, wanted = read_checkpoint(Path("whole.pth")), net.state_dict()
    assert list(checkpoint.tensors) == list(wanted)
    assert all(torch.equal(checkpoint.tensors[name], wanted[name]) for name in wanted)
    assert any("a module that was pickled whole" in note for note in checkpoint.notes)
    assert not Path("imported").exists()


class WithBuffers(nn.Module):
    """Shared parts, buffers that are kept and that are not, a name that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.again, self.blocks = self.first, nn.ModuleList([nn.BatchNorm1d(2), nn.Linear(2, 1)])
        self.register_buffer("kept", torch.ones(3))
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.register_parameter("none", None)


@pytest.mark.parametrize(
    "module", [nn.Sequential(nn.Linear(2, 2)), nn.DataParallel(nn.Linear(2, 2)), WithBuffers()]
)
def test_the_tensors_of_a_whole_module_are_those_of_its_state_dict(
    module: nn.Module, tmp_path: Path
) -> None:
    found = read_checkpoint(saved(tmp_path / "net.pth", module)).tensors
    wanted = {key.removeprefix("module."): value for key, value in module.state_dict().items()}
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_list_of_modules_is_no_state_dict(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a list, not a state_dict"):
        read_checkpoint(saved(tmp_path / "net.pth", [nn.Linear(2, 2), 3]))


def test_a_state_dict_beside_text_of_a_module_is_none(tmp_path: Path) -> None:
    state = {**STATE, "_parameters": torch.ones(2), "_modules": torch.ones(2)}
    assert "_parameters" in read_checkpoint(saved(tmp_path / "a.pth", state)).tensors


def test_reading_leaves_no_class_allowed_behind(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", {"model": STATE, "args": argparse.Namespace(lr=0.1)})
    read_checkpoint(path)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_code_is_named_where_its_name_was_stored_earlier(tmp_path: Path, protocol: int) -> None:
    value = ["posix", "system", torch.ones(1).shape, "x" * 300, Touch(tmp_path / "touched")]
    (tmp_path / "a").write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(InputError, match=r"posix\.system: holds code"):
        read_checkpoint(tmp_path / "a")
    assert not (tmp_path / "touched").exists()
