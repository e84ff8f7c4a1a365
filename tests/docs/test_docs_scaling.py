"""What docs/scaling.md shows: its commands that need no cluster run, the others parse."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import Block, blocks_of, read

from snnprune.cli.commands import SHARING

PAGE = "scaling.md"


def in_a_shell(script: str, folder: Path, *, syntax_only: bool = False) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", *(["-n"] if syntax_only else []), "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


def blocks(mark: str | None) -> list[Block]:
    return [block for block in blocks_of(PAGE) if mark is None or mark in block.marks]


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "runs" / "smoke")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("runnable"), ids=lambda block: f"line{block.line}")
def test_a_command_runs_as_pasted(block: Block, folder: Path) -> None:
    in_a_shell(block.text, folder)


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("slow"), ids=lambda block: f"line{block.line}")
def test_a_command_that_takes_longer_runs_as_pasted(block: Block, folder: Path) -> None:
    in_a_shell(block.text, folder)


@pytest.mark.parametrize("block", blocks(None), ids=lambda block: f"line{block.line}")
def test_every_block_is_a_script(block: Block, tmp_path: Path) -> None:
    assert block.language == "bash"
    in_a_shell(block.text, tmp_path, syntax_only=True)


def test_every_command_that_can_be_shared_is_named() -> None:
    beginning = read(PAGE).partition("## One machine")[0]
    assert [name for name in SHARING if f"`{name}`" not in beginning] == []
