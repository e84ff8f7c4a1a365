"""The examples of docs/extending.md run, and its tables are those of the tool."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from doc_blocks import DOCS, Block, assert_shown, blocks_of, first_column, in_folder, table_under

from snnprune.data import DATA
from snnprune.graph import libraries
from snnprune.models import MODELS
from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.criteria import CRITERIA
from snnprune.pruning.repair import REPAIRS
from snnprune.recipe.sections import TrainingSection
from snnprune.training import LOSSES

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = "extending.md"


@pytest.fixture
def work(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the page starts from."""
    shutil.copytree(trained, tmp_path / "runs" / "smoke")
    monkeypatch.setattr(libraries, "LIBRARIES", libraries.LIBRARIES)  # the page adds a row
    with in_folder(tmp_path):
        yield tmp_path


def block_of_file(name: str) -> Block:
    return next(block for block in blocks_of(PAGE) if block.file == name)


def commands(block: Block, run: Run) -> str:
    """What the commands of a shell block print on stdout."""
    output = ""
    for line in block.text.replace("\\\n", " ").splitlines():
        tool, *words = shlex.split(line)
        assert tool == "snnprune"
        done = run(*words)
        assert done.returncode == 0, f"{PAGE}:{block.line}: {done.stderr}"
        output += done.stdout
    return output


@pytest.mark.slow
def test_every_example_of_the_page_runs_and_prints_what_it_shows(work: Path, run: Run) -> None:
    outputs = {}
    for block in blocks_of(PAGE):
        if block.file is not None:
            (work / block.file).write_text(block.text, encoding="utf-8")
        elif "runnable" in block.marks:
            outputs[block.line] = commands(block, run)
        elif block.language == "python" and block.quoted is None:
            block.run_as_python()
    assert len(outputs) == sum(block.language == "bash" for block in blocks_of(PAGE))
    assert_shown(PAGE, outputs)


@pytest.mark.slow
def test_the_examples_for_a_notebook_run_with_a_network_on_a_gpu(tmp_path: Path) -> None:
    # in a process, which keeps the pretended GPU for good
    done = subprocess.run(
        [sys.executable, DOCS.parent / "tests" / "devices" / "extending_on_a_gpu.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_example_of_an_entry_point_gives_a_name_to_the_criterion(work: Path, run: Run) -> None:
    (toml,) = (block for block in blocks_of(PAGE) if block.language == "toml")
    ((group, points),) = tomllib.loads(toml.text)["project"]["entry-points"].items()
    ((name, target),) = points.items()
    package, _, module = target.partition(":")[0].partition(".")
    (work / package).mkdir()
    (work / package / f"{module}.py").write_text(block_of_file("my_criteria.py").text)
    installed = work / f"{package}-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    done = run("score", "runs/smoke/model.safetensors", "--criterion", name, "--samples", 64)
    assert done.returncode == 0, done.stderr
    assert f"criterion {name} (asked for)" in done.stdout


def test_what_the_page_quotes_is_in_the_file() -> None:
    quoted = [block for block in blocks_of(PAGE) if block.quoted is not None]
    assert quoted
    for block in quoted:
        source = (DOCS.parent / str(block.quoted)).read_text(encoding="utf-8")
        assert " ".join(block.text.split()) in " ".join(source.split())


def test_the_entry_point_groups_are_those_of_the_tables_of_names() -> None:
    groups = {table.group for table in (CRITERIA, ALLOCATIONS, REPAIRS, LOSSES, MODELS, DATA)}
    assert first_column(PAGE, "An entry point") == groups


def test_the_table_of_losses_and_their_setting_name_every_loss() -> None:
    assert first_column(PAGE, "A loss") == set(LOSSES.rows)
    told = TrainingSection.model_fields["loss"].description or ""
    assert set(LOSSES.rows) <= set(re.findall(r"[\w-]+", told))


def test_the_table_of_neuron_libraries_is_the_tool_s() -> None:
    rows = [[known.name, package_of(known.base_classes)] for known in libraries.LIBRARIES]
    assert table_under(PAGE, "A neuron library") == rows


def package_of(classes: Sequence[str]) -> str:
    """The innermost module or package that classes of these full names have in common."""
    steps = zip(*(name.split(".")[:-1] for name in classes), strict=False)
    alike = itertools.takewhile(lambda step: len(set(step)) == 1, steps)
    return ".".join(name for name, *_ in alike)


@pytest.mark.parametrize("field", libraries.NeuronLibrary.__dataclass_fields__)
def test_the_page_explains_every_field_of_a_neuron_library(field: str) -> None:
    assert f"| `{field}` |" in (DOCS / PAGE).read_text(encoding="utf-8")
