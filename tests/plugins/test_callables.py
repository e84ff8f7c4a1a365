"""What of a user's file may be called: its own functions and classes, nothing of Python's."""

import sys
from pathlib import Path

import pytest

from snnprune.errors import InputError
from snnprune.plugins.user_code import load_function, load_own, require_not_standard

MINE = """
import contextlib
import functools
import operator
import os
import subprocess
from os import system

import torch
import yaml
from neighbours import theirs
from torch import nn
from yaml import safe_load


def build(width=4):
    return width


@functools.wraps(system)
def wrapped():
    return 1


@torch.no_grad()
def without_gradients():
    return 1


@contextlib.contextmanager
def around():
    yield 1


class Maker:
    def __init__(self):
        self.made = 0

    def __call__(self):
        return 1

    @classmethod
    def make(cls):
        return 1


class Net(nn.Module):
    pass


short = lambda: 1  # noqa: E731
part = functools.partial(build, width=2)
others = functools.partial(safe_load, "a: 1")
cached = functools.lru_cache(build)
instance = Maker()
shell = functools.partial(functools.partial(os.system), "true")
cached_shell = functools.lru_cache(system)
lines = functools.partial(print, "a")
caller = operator.methodcaller("lower")
bound = "a".upper
unbound = str.upper
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "neighbours", raising=False)
    Path("neighbours.py").write_text("def theirs(): return 1\n", "utf-8")
    path = Path("mine_to_call.py")
    path.write_text(MINE, "utf-8")
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("build", "wrapped", "without_gradients", "around", "Maker", "Maker.make", "Net", "short"),
        *("part", "others", "cached", "instance", "theirs", "nn.Linear", "instance.__call__"),
    ],
)
def test_what_the_file_defines_or_makes_is_its_own(name: str, mine: Path) -> None:
    assert callable(load_function(f"{mine}:{name}", field="--model"))


@pytest.mark.parametrize(
    "name",
    [
        *("system", "os.system", "subprocess.run", "subprocess.Popen", "shell", "cached_shell"),
        *("lines", "caller", "bound", "unbound", "Maker.__subclasses__", "functools.partial"),
        *("build.__globals__.__getitem__", "torch.relu", "contextlib.contextmanager"),
    ],
)
def test_what_is_pythons_is_refused_also_by_way_of_a_file(name: str, mine: Path) -> None:
    with pytest.raises(InputError, match="a builtin or of Python's standard library") as caught:
        load_own(f"{mine}:{name}", field="model.name")
    assert caught.value.field == "model.name"


@pytest.mark.parametrize("name", ["safe_load", "yaml.safe_load", "torch.load", "yaml.Loader"])
def test_a_function_that_is_only_imported_there_is_refused(name: str, mine: Path) -> None:
    with pytest.raises(InputError, match=r"is a function of .*, only imported there"):
        load_own(f"{mine}:{name}", field="--data")


@pytest.mark.parametrize(
    "reference",
    [
        "os:system",
        "subprocess:run",
        "builtins:exec",
        "posix:system",
        "os.path:join",
        "antigravity:x",
    ],
)
def test_the_standard_library_is_refused_by_name_alone(reference: str) -> None:
    with pytest.raises(InputError, match="which is not called") as caught:
        require_not_standard(reference, field="model.name", file="r.yaml")
    assert (caught.value.file, caught.value.field) == ("r.yaml", "model.name")


def test_a_package_gives_what_any_of_its_modules_defines() -> None:
    assert callable(load_own("torch.nn:Linear", field="--model"))
    assert callable(load_own("yaml:safe_load", field="--model"))
    with pytest.raises(InputError, match="a builtin or of Python's"):
        load_own("torch:os.system", field="--model")
