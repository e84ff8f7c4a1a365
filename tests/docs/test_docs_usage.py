"""What docs/usage.md shows works as pasted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import Block, assert_shown, blocks_of, first_column, in_folder, table_under

from snnprune import cli, errors
from snnprune.data import DATA, FORMS
from snnprune.models import MODELS
from snnprune.plugins.names import FORWARDS

PAGE = "usage.md"


@pytest.fixture(scope="module")
def shell_output(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Runs the page from top to bottom; what the shell blocks printed, by line of the page."""
    folder = tmp_path_factory.mktemp("usage")
    shutil.copytree(trained, folder / "runs" / "smoke")
    with in_folder(folder):
        return {block.line: printed(block) for block in blocks_of(PAGE)}


def printed(block: Block) -> str:
    """Run or save a block, as a reader would; what it printed on stdout."""
    if block.file is not None:
        Path(block.file).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        block.run_as_python()
    elif "runnable" in block.marks:
        return in_a_shell(block)
    return ""


def in_a_shell(block: Block) -> str:
    """Run a shell block, with `snnprune` and `python` those of this test run."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        # one thread: on a busy machine the threads of a tiny network mostly wait for each other
        env={**os.environ, "PATH": path, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{PAGE}:{block.line}: {done.stderr}"
    return done.stdout


@pytest.mark.docs
def test_every_block_runs_as_pasted_and_prints_what_the_page_shows(
    shell_output: dict[int, str],
) -> None:
    known = {"bash", "python", "text", "toml", "yaml"}
    assert {block.language for block in blocks_of(PAGE)} == known
    assert_shown(PAGE, shell_output)


def test_the_table_of_exit_codes_is_complete() -> None:
    raised = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SnnpruneError)
    }
    ended = {0, cli.BUG, cli.INTERRUPTED, cli.TERMINATED}
    assert [int(row[0]) for row in table_under(PAGE, "Exit codes")] == sorted(raised | ended)


def test_the_table_of_models_is_the_tool_s() -> None:
    rows = table_under(PAGE, "Say which model and data it is")
    assert rows == [[name, row.summary] for name, row in MODELS.rows.items()]


def test_the_table_of_ways_to_run_a_batch_is_complete() -> None:
    section = "When `model(x)` is not how a batch is run"
    assert first_column(PAGE, section) == {*FORWARDS, "file.py:function"}


def test_the_table_of_data_sets_is_complete() -> None:
    names = {name.partition(":")[0] for name in first_column(PAGE, "Data sets")}
    assert names == {*DATA.rows, *FORMS, "file.py"}
