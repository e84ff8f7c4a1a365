"""Modules of the current folder, named without a path: installed ones come first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from one_line import assert_one_line

from snnprune.errors import InputError
from snnprune.plugins.user_code import load_object

NET = """
import torch
from torch import nn

from helpers.spiking import Spikes


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.spikes, self.out = nn.Linear(6, 8), Spikes(), nn.Linear(8, 3)

    def forward(self, x, steps):
        return torch.stack([self.out(self.spikes(self.hidden(x))) for _ in range(steps)])


def build():
    import helpers.late  # found while it runs, too

    return Net()


def batches():
    torch.manual_seed(0)
    return [(4 * torch.rand(5, 6), torch.arange(5) % 3) for _ in range(2)]


def forward(model, x):
    return model(x, 3)


def last(output):
    return output[-1]


def dense(evidence):
    return evidence.weight.abs()
"""
SPIKES = """
from torch import nn


class Spikes(nn.Module):
    def forward(self, x):
        return (x > 0.5).to(x)
"""
NAMES = ("--model", "my_net:build", "--data", "my_net:batches", "--forward", "my_net:forward")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module, a package, and a checkpoint."""
    folder = tmp_path / "folder"
    (folder / "helpers").mkdir(parents=True)
    (folder / "my_net.py").write_text(NET)
    (folder / "helpers" / "__init__.py").touch()
    (folder / "helpers" / "late.py").touch()
    (folder / "helpers" / "spiking.py").write_text(SPIKES)
    torch.manual_seed(0)
    layers = {"hidden": torch.nn.Linear(6, 8), "out": torch.nn.Linear(8, 3)}
    torch.save(torch.nn.ModuleDict(layers).state_dict(), folder / "net.pth")
    monkeypatch.chdir(folder)
    return folder


def as_installed(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The tool as the script that pip makes runs it: the current folder is not where Python looks.

    The script lies beside the current folder.
    """
    script = Path.cwd().with_name("script.py")
    script.write_text("from snnprune.cli import main\n\nmain()\n", encoding="utf-8")
    where = str(Path(sys.modules["snnprune"].__file__ or "").parents[1])
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.slow
def test_functions_of_a_module_there_are_found(folder: Path) -> None:
    done = as_installed("eval", "net.pth", *NAMES, "--readout", "my_net:last")
    assert done.returncode == 0, done.stderr
    assert "pruned 0 of 72 weights" in done.stdout
    assert not done.stderr.count("error")


@pytest.mark.slow
def test_a_module_of_a_package_there_is_found(folder: Path) -> None:
    (folder / "nets").mkdir()
    (folder / "nets" / "small.py").write_text(NET)  # a folder needs no __init__.py
    names = [name.replace("my_net", "nets.small") for name in NAMES]
    done = as_installed("inspect", "net.pth", *names)
    assert done.returncode == 0, done.stderr
    assert "spikes" in done.stdout


@pytest.mark.slow
def test_python_may_be_told_to_keep_that_folder_out(folder: Path) -> None:
    done = as_installed("inspect", "net.pth", *NAMES, PYTHONSAFEPATH="1")
    assert_one_line(done, 3, "--data: no module named 'my_net'", "path/file.py:name")


@pytest.mark.slow
def test_what_is_installed_is_not_hidden_by_a_file_there(folder: Path) -> None:
    (folder / "yaml.py").write_text("raise SystemExit('the wrong one')")
    (folder / "pygments.py").write_text("def build(): ...")
    done = as_installed("inspect", "net.pth", "--model", "yaml:build")
    assert_one_line(done, 3, "yaml: --model: has no 'build'", "yaml.py:build")
    done = as_installed("inspect", "net.pth", "--model", "pygments:build")
    assert_one_line(done, 3, "pygments is ", "the file of this folder is pygments.py:build")


@pytest.mark.slow
def test_what_has_a_name_of_pythons_own_is_given_as_a_file(folder: Path) -> None:
    (folder / "json").mkdir()
    (folder / "json" / "net.py").write_text(NET)
    for name, file in (("json.net", "json/net.py"), ("code", "a file of yours: file.py")):
        done = as_installed("inspect", "net.pth", "--model", f"{name}:build")
        assert_one_line(done, 3, "is of Python's standard library", file)


@pytest.mark.slow
def test_a_package_that_is_installed_may_lack_the_module_that_is_meant(folder: Path) -> None:
    (folder / "yaml").mkdir()
    (folder / "yaml" / "net.py").write_text(NET)
    done = as_installed("inspect", "net.pth", "--model", "yaml.net:build")
    assert_one_line(done, 3, "no module named 'yaml.net'", "of this folder is yaml/net.py:build")


def test_a_name_in_a_class_may_be_meant(folder: Path) -> None:
    assert load_object("collections:OrderedDict.fromkeys", field="--model")("a") == {"a": None}
    with pytest.raises(InputError, match=r"collections: --model: has no 'OrderedDict\.nothing'"):
        load_object("collections:OrderedDict.nothing", field="--model")


def test_nothing_is_left_where_python_looks_after_a_name_that_is_not_there(folder: Path) -> None:
    before = list(sys.path)
    with pytest.raises(InputError, match="no module named 'nothing_here'"):
        load_object("nothing_here:build", field="--model")
    assert sys.path == before
