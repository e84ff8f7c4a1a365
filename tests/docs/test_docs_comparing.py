"""What docs/comparing.md shows works as pasted."""

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_blocks import assert_shown, blocks_of, in_folder, table_under

PAGE = "comparing.md"
Run = Callable[..., subprocess.CompletedProcess[str]]


def ran(text: str, run: Run) -> str:
    """What the commands of a shell block print."""
    printed = ""
    for line in text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        assert program == "snnprune"
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    return printed


@pytest.mark.slow
def test_every_block_runs_as_pasted_and_prints_what_the_page_shows(
    run: Run, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "runs" / "smoke")
    outputs = {}
    with in_folder(tmp_path):
        for block in blocks_of(PAGE):
            if "runnable" in block.marks:
                outputs[block.line] = ran(block.text, run)
            elif block.language == "python":
                block.run_as_python()
        written = {path.name for path in Path("sensitivity").iterdir()}
    assert_shown(PAGE, outputs)
    assert capsys.readouterr().out.startswith("(0.")
    files = {
        name
        for row in table_under(PAGE, "`sensitivity`: what each layer costs")
        for name in row[:1]
    }
    assert {name.strip() for row in files for name in row.split(",")} == written
