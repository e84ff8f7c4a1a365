"""Faults at the n-th write, flush or rename of this process, and the results they may leave."""

import contextlib
import hashlib
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors import safe_open
from safetensors.torch import save_file

KINDS = ("write", "fsync", "rename")
FULL = OSError(28, "No space left on device")
NETWORK = """
import torch
from snnprune.models.networks import conv_snn

def net():
    return conv_snn(in_channels=1, size=6, classes=2, width=4, depth=2, time_steps=2)

def batches():
    draws = torch.Generator().manual_seed(0)
    y = torch.arange(16) % 2
    x = torch.rand(16, 1, 6, 6, generator=draws) + y.view(-1, 1, 1, 1)
    return list(zip(x.split(4), y.split(4)))
"""


class Writing:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, strike: Callable[[], None]) -> None:
        self._file, self._strike = file, strike

    def write(self, data: Any) -> int:
        self._strike()
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Nth:
    """Fails, or kills this process, when it is called for the n-th time."""

    def __init__(self, number: int, *, kill: bool) -> None:
        self.number, self.kill, self.calls = number, kill, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls != self.number:
            return
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise FULL


@contextlib.contextmanager
def disturbed(kind: str, number: int, *, kill: bool = False) -> Iterator[Nth]:
    """A disk that is full at that call alone, or a process that is killed before it."""
    strike = Nth(number, kill=kill)
    opened, rename = io.open, os.rename

    def counted_open(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        found = opened(file, mode, *more, **named)
        return Writing(found, strike) if set(mode) & set("wax+") else found

    def counted_rename(*given: Any, **named: Any) -> None:
        strike()
        rename(*given, **named)

    put: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
        "write": lambda: patch.object(io, "open", counted_open),
        "fsync": lambda: patch.object(os, "fsync", lambda _: strike()),
        "rename": lambda: patch.object(os, "rename", counted_rename),
    }
    with put[kind]():
        yield strike


def made_in(folder: Path) -> Path:
    """A folder with a checkpoint of random weights and the network it is of."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.py").write_text(NETWORK)
    names: dict[str, Any] = {}
    exec(NETWORK, names)
    torch.manual_seed(0)
    save_file(names["net"]().state_dict(), folder / "model.safetensors")
    x, y = (torch.cat(parts) for parts in zip(*names["batches"](), strict=True))
    held_out = {"x_test": x.roll(1, -1), "y_test": y.clone()}
    save_file({"x": x, "y": y, **held_out}, folder / "images.safetensors")
    (folder / "recipe.yaml").write_text(
        "model: {name: conv-snn, args: {width: 4, depth: 2, time_steps: 2}}\n"
        f'data: {{name: "tensors:{folder}/images.safetensors", validation: 0}}\n'
        "training: {epochs: 1, batch_size: 4, learning_rate: 0.05}\n"
    )
    return folder


def command(name: str, folder: Path, *, new: bool) -> list[str]:
    """A command line that makes the old result, or the new one in its place."""
    own = ["--model", f"{folder}/own.py:net", "--data", f"{folder}/own.py:batches"]
    sparsity, out = ("0.8" if new else "0.4"), ["-q", "--force", "-o"]
    model = str(folder / "model.safetensors")
    criterion = ["--criterion", "magnitude" if new else "random"]
    lines = {
        "prune": ["--sparsity", sparsity, "--criterion", "magnitude", *out],
        "calibrate": [*own, "--samples", "16" if new else "8", *out],
        "score": [*criterion, *out],
        "export": ["--to", "packed", "--values", "float32" if new else "float16", *out],
    }
    return [name, model, *lines[name], str(folder / "out.safetensors")]


def state_of(folder: Path) -> str:
    """`old` or `new` by the main file; asserts that nothing beside it claims to be of another."""
    out = folder / "out.safetensors"
    sha256 = hashlib.sha256(out.read_bytes()).hexdigest()
    known = {(folder / f"{name}.sha256").read_text(): name for name in ("old", "new")}
    mask, report = folder / "out.mask.safetensors", folder / "out.report.json"
    if mask.exists():
        with safe_open(mask, "pt") as file:
            assert file.metadata()["snnprune.pruned_sha256"] == sha256
        for entry in json.loads(report.read_text())["outputs"]:
            assert entry["sha256"] == hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest()
    return known[sha256]


def remember(folder: Path, name: str) -> None:
    """Note what the main file is like when the result is `name`."""
    data = (folder / "out.safetensors").read_bytes()
    (folder / f"{name}.sha256").write_text(hashlib.sha256(data).hexdigest())


def left_in(folder: Path) -> list[str]:
    """Temporary files and folders."""
    return [path.name for path in folder.rglob(".snnprune-*")]
