"""Files as training scripts write them: pruned, and loaded by plain torch.load in their own way."""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import random
import re
import types
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.cli.commands import make_app


class Phase(enum.Enum):
    TRAIN = 1


@dataclasses.dataclass
class Settings:
    rate: float
    where: pathlib.PurePosixPath
    parts: list[int]


Score = collections.namedtuple("Score", ["epoch", "accuracy"])


class Attributes(dict[str, Any]):
    """As OmegaConf, Munch and Lightning have them."""

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key) from None


class Meter:
    """With slots and a state of its own."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count, self.total = 3, 1.5

    def __getstate__(self) -> tuple[int, float]:
        return self.count, self.total

    def __setstate__(self, state: tuple[int, float]) -> None:
        self.count, self.total = state


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def stepped(kind: Callable[..., Any]) -> Any:
    model = net()
    optimizer = kind(model.parameters(), lr=0.1)
    model(torch.ones(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    return optimizer


def scheduler() -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(stepped(torch.optim.SGD), 10)


BESIDE: dict[str, Callable[[], Any]] = {
    "path": lambda: pathlib.PurePosixPath("runs/best"),
    "real path": lambda: pathlib.Path("runs") / "best",
    "date": lambda: datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
    "time delta": lambda: datetime.timedelta(seconds=90),
    "numpy array": lambda: np.arange(12, dtype=np.float32).reshape(3, 4),
    "numpy number": lambda: np.float64(0.93),
    "numpy random state": lambda: np.random.RandomState(3).get_state(),
    "numpy generator": lambda: np.random.default_rng(3),
    "python random state": lambda: random.Random(3).getstate(),
    "torch random state": torch.get_rng_state,
    "defaultdict": lambda: collections.defaultdict(list, {"loss": [1.0, 0.5]}),
    "deque": lambda: collections.deque([1, 2, 3], maxlen=5),
    "counter": lambda: collections.Counter("spikes"),
    "named tuple": lambda: Score(3, 0.9),
    "enum": lambda: Phase.TRAIN,
    "dataclass": lambda: Settings(0.1, pathlib.PurePosixPath("x"), [1, 2]),
    "attributes": lambda: Attributes(lr=0.1, nested=Attributes(a=1)),
    "namespace": lambda: argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("x")),
    "simple namespace": lambda: types.SimpleNamespace(lr=0.1),
    "set": lambda: {1, "two", 3.0, (4, 5)},
    "odd keys": lambda: {1: "a", (2, 3): "b", None: "c", 4.5: "d"},
    "partial": lambda: functools.partial(torch.optim.SGD, lr=0.1),
    "a class": lambda: torch.optim.AdamW,
    "a function": lambda: torch.nn.functional.relu,
    "loss": lambda: nn.CrossEntropyLoss(weight=torch.ones(3)),
    "meter": Meter,
    "scheduler": scheduler,
    "scheduler state": lambda: scheduler().state_dict(),
    "adam": lambda: stepped(torch.optim.Adam).state_dict(),
    "whole optimizer": lambda: stepped(torch.optim.Adam),
    "scaler": lambda: torch.amp.GradScaler("cpu").state_dict(),
    "exact numbers": lambda: [fractions.Fraction(1, 3), decimal.Decimal("0.1"), 2**200, 1j],
    "uuid": lambda: uuid.UUID(int=5),
    "pattern": lambda: re.compile("conv.*"),
    "bytes": lambda: [b"raw", bytearray(b"more"), range(3), slice(1, 2)],
    "device and type": lambda: [torch.device("cpu"), torch.float16, torch.Size([1, 2])],
    "sparse": lambda: torch.eye(3).to_sparse(),
    "parameter": lambda: nn.Parameter(torch.ones(2)),
    "whole module": net,
    "bfloat16": lambda: torch.ones(3, dtype=torch.bfloat16),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
    "nan": lambda: torch.tensor([float("nan"), float("inf")]),
}


def parts(value: Any) -> Any:
    """Something that is equal where what it is of is the same."""
    if isinstance(value, Tensor):
        dense = value.to_dense() if value.is_sparse else value
        held = dense.detach().contiguous().view(-1).view(torch.uint8).tolist()
        return (type(value).__name__, str(value.dtype), tuple(value.shape), held)
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, dict):
        return (type(value).__name__, [(repr(key), parts(one)) for key, one in value.items()])
    if isinstance(value, list | tuple | collections.deque):
        return (type(value).__name__, [parts(one) for one in value])
    if isinstance(value, nn.Module):
        return (type(value).__name__, parts(value.state_dict()))
    if not isinstance(value, type) and hasattr(value, "state_dict"):
        return (type(value).__name__, parts(value.state_dict()))
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, functools.partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, Meter):
        return value.__getstate__()
    return (
        type(value).__name__,
        repr(value) if not isinstance(value, set) else sorted(map(repr, value)),
    )


@pytest.mark.many(2)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", BESIDE)
def test_everything_beside_the_weights_is_there_again(
    name: str, zipped: bool, tmp_path: pathlib.Path
) -> None:
    beside, state = BESIDE[name](), net().state_dict()
    path, out = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save(
        {"epoch": 3, "model": state, "beside": beside}, path, _use_new_zipfile_serialization=zipped
    )
    result = CliRunner().invoke(
        make_app(), ["prune", str(path), "--sparsity", "0.5", "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    given, found = (torch.load(one, weights_only=False) for one in (path, out))
    assert parts(found["beside"]) == parts(given["beside"]) == parts(copy.deepcopy(beside))
    assert found["epoch"] == 3
    fresh = net()
    fresh.load_state_dict(found["model"])
    weights = [found["model"][key] for key in ("0.weight", "3.weight")]
    assert sum(int((weight == 0).sum()) for weight in weights) == 42  # half of 36 + 48
    for key, tensor in found["model"].items():
        assert torch.equal(tensor, torch.where(tensor == 0, 0, state[key]))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_byte_but_those_of_changed_storages_is_as_it_was(
    tmp_path: pathlib.Path, zipped: bool
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "b.pth"
    value = {"model": net().state_dict(), "adam": stepped(torch.optim.Adam).state_dict()}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    assert (
        CliRunner()
        .invoke(make_app(), ["prune", str(path), "--sparsity", "0.5", "-o", str(out)])
        .exit_code
        == 0
    )
    before, after = path.read_bytes(), out.read_bytes()
    assert len(before) == len(after)
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < changed <= 4 * 42 + (2 * 3 * 4) * zipped  # weights, and three checksums of each


def test_checksums_are_those_of_the_new_bytes(tmp_path: pathlib.Path) -> None:
    import zipfile

    path, out = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save(net().state_dict(), path)
    assert (
        CliRunner()
        .invoke(make_app(), ["prune", str(path), "--sparsity", "0.5", "-o", str(out)])
        .exit_code
        == 0
    )
    for name in (path, out):
        with zipfile.ZipFile(name) as archive:
            assert archive.testzip() is None


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_whole_module_is_pruned_by_magnitude_and_loads_as_one(
    tmp_path: pathlib.Path, zipped: bool
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "b.pth"
    model = net()
    torch.save(model, path, _use_new_zipfile_serialization=zipped)
    result = CliRunner().invoke(
        make_app(), ["prune", str(path), "--sparsity", "0.5", "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "a module that was pickled whole" in result.output.replace("\n", " ")
    pruned = torch.load(out, weights_only=False)
    assert type(pruned) is nn.Sequential
    state = pruned.state_dict()
    assert sum(int((state[key] == 0).sum()) for key in ("0.weight", "3.weight")) == 42
    assert list(read_checkpoint(out).tensors) == list(model.state_dict())


def test_a_spiking_network_of_a_library_that_was_pickled_whole(tmp_path: pathlib.Path) -> None:
    from spikingjelly.activation_based import layer, neuron

    model = nn.Sequential(layer.Linear(4, 6), neuron.LIFNode(), layer.Linear(6, 2))
    path, out = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save({"net": model, "best": 0.5}, path)
    result = CliRunner().invoke(
        make_app(), ["prune", str(path), "--sparsity", "0.5", "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    pruned = torch.load(out, weights_only=False)["net"]
    assert int((pruned[0].weight == 0).sum() + (pruned[2].weight == 0).sum()) == 18
    assert pruned(torch.ones(2, 4)).shape == (2, 2)
