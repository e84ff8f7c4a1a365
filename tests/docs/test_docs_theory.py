"""What docs/theory.md shows works as pasted."""

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_blocks import assert_shown, blocks_of, in_folder

PAGE = "theory.md"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_every_block_runs_as_pasted_and_prints_what_the_page_shows(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "runs" / "smoke")
    outputs: dict[int, str] = {}
    with in_folder(tmp_path):
        for block in blocks_of(PAGE):
            for line in block.text.splitlines() if "runnable" in block.marks else ():
                done = run(*shlex.split(line)[1:])
                assert done.returncode == 0, done.stderr
                outputs[block.line] = outputs.get(block.line, "") + done.stdout
    assert outputs
    assert_shown(PAGE, outputs)
