"""What docs/ci.md and docs/reports.md show works as pasted, as far as a machine alone can tell."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from doc_blocks import DOCS, assert_shown, blocks_of, first_column, in_folder

from snnprune.report.gates import GATES

PAGE = "ci.md"
FAST = "--criterion magnitude --repair bn"  # of the script; by default it takes the best
Run = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLES = DOCS / "ci"


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a trained network, `gate.sh`, and what the page's commands leave."""
    folder = tmp_path_factory.mktemp("ci")
    shutil.copytree(trained, folder / "runs" / "smoke")
    shutil.copy(trained / "model.safetensors", folder)
    shutil.copy(EXAMPLES / "gate.sh", folder)
    return folder


def in_a_shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the `snnprune` of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=folder,
        env={
            **os.environ,
            "PATH": path,
            "OMP_NUM_THREADS": "1",
            "PRUNE_FLAGS": FAST,
            "MAX_ACCURACY_DROP": "10",
            **environment,
        },
    )


@pytest.fixture(scope="module")
def shown(folder: Path) -> dict[int, str]:
    """What the shell blocks of the page print, by line."""
    outputs: dict[int, str] = {}
    for block in blocks_of(PAGE):
        if "runnable" in block.marks:
            done = in_a_shell(block.text, folder)
            assert done.returncode == 0, f"{PAGE}:{block.line}: {done.stderr}"
            outputs[block.line] = done.stdout
    return outputs


@pytest.mark.docs
def test_every_block_runs_as_pasted_and_prints_what_the_page_shows(shown: dict[int, str]) -> None:
    assert_shown(PAGE, shown)


@pytest.mark.docs
def test_the_command_of_the_page_on_reports_leaves_what_it_shows(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "runs" / "smoke")
    (block,) = (block for block in blocks_of("reports.md") if "runnable" in block.marks)
    with in_folder(tmp_path):
        done = run(*shlex.split(block.text)[1:])
    assert done.returncode == 0, done.stderr
    assert_shown("reports.md", {block.line: done.stdout})


@pytest.mark.docs
def test_the_script_passes_once_and_fails_once_and_leaves_what_a_server_reads(
    shown: dict[int, str], folder: Path
) -> None:
    suites = {
        name: ElementTree.parse(folder / "out" / name).getroot()[0]
        for name in ("prune.xml", "check.xml")
    }
    assert suites["prune.xml"].get("failures") == "0"
    assert suites["check.xml"].get("failures") == "1"  # of the second run
    assert (folder / "out" / "report" / "report.html").exists()


def test_the_quoted_files_are_those_in_the_repository() -> None:
    quoted = [block for block in blocks_of(PAGE) if block.quoted is not None]
    assert {str(block.quoted) for block in quoted} == {
        f"docs/ci/{path.name}" for path in EXAMPLES.iterdir()
    }
    for block in quoted:
        assert block.text == (DOCS.parent / str(block.quoted)).read_text("utf-8")


def test_the_table_names_every_gate() -> None:
    assert first_column(PAGE, "The gates") == {gate.flag for gate in GATES.values()}


def loaded(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text("utf-8"))


def steps_of(name: str) -> Iterator[str]:
    """The shell lines of an example, but for the installation."""
    found = loaded(name)
    if name == "gitlab.yml":
        lines = found["gate"]["script"]
    else:
        lines = [step.get("run", "") for step in found["jobs"]["gate"]["steps"]]
    yield from (line for line in lines if line and not line.startswith("pip install"))


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_a_pipeline_installs_and_then_runs_the_script_of_the_page(name: str) -> None:
    assert list(steps_of(name)) == ["./gate.sh model.safetensors out"]
    assert os.access(EXAMPLES / "gate.sh", os.X_OK)


@pytest.mark.docs
def test_the_composite_action_runs_check_and_never_reads_inputs_as_script(
    shown: dict[int, str], folder: Path
) -> None:
    (step,) = loaded("action.yml")["runs"]["steps"]
    assert "${{" not in step["run"]
    assert {value.strip("${} ") for value in step["env"].values()} == {
        f"inputs.{name}" for name in loaded("action.yml")["inputs"]
    }
    inputs = {"CHECKPOINT": "pruned.safetensors", "REPORT": "page"}
    passing = in_a_shell(step["run"], folder, GATES="--min-sparsity 0.9", **inputs)
    assert passing.returncode == 0, passing.stderr
    assert (folder / "page" / "report.html").exists()
    hostile = in_a_shell(step["run"], folder, GATES="--min-sparsity 0.95; $(touch x)", **inputs)
    assert hostile.returncode == 2
    assert not (folder / "x").exists()
    lines = "--min-sparsity 0.9\n--max-size\n  1MB\n--min-sparsity 0.95\n"
    second = in_a_shell(step["run"], folder, GATES=lines, **inputs)
    assert second.returncode in (2, 4)  # of a gate in the last line
    failing = in_a_shell(step["run"], folder, GATES="--max-size 1MB\n--max-size 1kB", **inputs)
    assert failing.returncode in (2, 4)
    assert in_a_shell(step["run"], folder, GATES="--min-sparsity '0.9", **inputs).returncode == 1


HOSTILE = ["`touch x`", "$(touch x)", "; touch x", "a\ntouch x", "| touch x", "> x", "-q; touch x"]


@pytest.mark.docs
@pytest.mark.parametrize("text", HOSTILE)
def test_no_input_of_the_action_is_run(shown: dict[int, str], folder: Path, text: str) -> None:
    (step,) = loaded("action.yml")["runs"]["steps"]
    for name in ("CHECKPOINT", "GATES"):
        given = {
            "CHECKPOINT": "pruned.safetensors",
            "GATES": "--min-sparsity 0.1",
            "REPORT": "page",
        }
        done = in_a_shell(step["run"], folder, **{**given, name: text})
        assert done.returncode != 0
        assert not (folder / "x").exists()


OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(16, hidden), nn.Linear(hidden, 3)

    def forward(self, x):
        u, total = 0, 0
        for _ in range(4):
            u = 0.5 * u + self.fc1(x)
            spikes = (u >= 0.1).float()
            u = u * (1 - spikes)
            total = total + self.fc2(spikes)
        return total


def build(hidden=32):
    torch.manual_seed(0)
    return Net(hidden)


def batches():
    drawn = torch.Generator().manual_seed(0)
    x = torch.rand(64, 16, generator=drawn)
    return list(zip(x.split(16), build(48)(x).argmax(1).split(16)))
"""


@pytest.mark.docs
def test_the_script_gates_a_network_of_ones_own(tmp_path: Path) -> None:
    import torch

    from snnprune.plugins.user_code import load_object

    (tmp_path / "own.py").write_text(OWN, "utf-8")
    shutil.copy(EXAMPLES / "gate.sh", tmp_path)
    module = load_object(f"{tmp_path / 'own.py'}:build", field="")(48)
    torch.save(module.state_dict(), tmp_path / "own.pth")
    flags = "--model own.py:build\n--model-arg hidden=48\n--data 'own.py:batches'"
    more = {"MAX_ACCURACY_DROP": "99", "MIN_SPIKE_AGREEMENT": "0.1", "PRUNE_FLAGS": "--repair lsq"}
    done = in_a_shell("./gate.sh own.pth out", tmp_path, NETWORK_FLAGS=flags, **more)
    assert done.returncode in (0, 4), done.stderr
    assert (tmp_path / "out" / "prune.xml").exists()
    without = in_a_shell("./gate.sh own.pth out", tmp_path, **more)
    assert without.returncode == 3
    open_quote = in_a_shell("./gate.sh own.pth out", tmp_path, NETWORK_FLAGS="--model 'own", **more)
    assert open_quote.returncode == 1
