"""What docs/exporting.md shows works as pasted."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import pytest
from doc_blocks import Block, assert_shown, blocks_of, first_column, in_folder, table_under

from snnprune.checkpoint.packing import PRECISIONS
from snnprune.export import FORMATS
from snnprune.export.nir import EXPORTERS
from snnprune.jobs.options import ExportOptions

PAGE = "exporting.md"
Run = Callable[..., subprocess.CompletedProcess[str]]


def printed(block: Block, run: Run) -> str:
    """What the commands of a shell block print."""
    found = ""
    for line in block.text.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        if program == "cmp":
            first, second = map(Path, arguments)
            assert first.read_bytes() == second.read_bytes()
        else:
            done = run(*arguments)
            assert done.returncode == 0, done.stderr
            found += done.stdout
    return found


@pytest.mark.slow
def test_every_block_runs_as_pasted_and_prints_what_the_page_shows(
    run: Run, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "runs" / "smoke")
    outputs = {}
    with in_folder(tmp_path):
        for block in blocks_of(PAGE):
            if block.file is not None:
                Path(block.file).write_text(block.text, encoding="utf-8")
            elif "runnable" in block.marks:
                outputs[block.line] = printed(block, run)
            elif block.language == "python":
                capsys.readouterr()
                block.run_as_python()
                outputs[block.line] = capsys.readouterr().out
    assert_shown(PAGE, outputs)
    assert any("values, 10 rows of 3136\n" in told for told in outputs.values())


def test_the_tables_name_every_format_and_precision() -> None:
    rows = table_under(PAGE, "Smaller files, and files for other programs")
    assert [[name, what] for name, _, what in rows] == [
        [name, found.summary] for name, found in FORMATS.items()
    ]
    assert [ends for _, ends, _ in rows] == [", ".join(f.suffixes) for f in FORMATS.values()]
    named = {one.strip() for cell in first_column(PAGE, "Packed files") for one in cell.split(",")}
    assert named == set(PRECISIONS)


def test_the_help_names_every_format() -> None:
    told = get_type_hints(ExportOptions, include_extras=True)["to"].__metadata__[0].help
    assert re.findall(r"\w+", told.replace(" or ", " ")) == list(FORMATS)


def test_the_table_of_libraries_names_those_that_are_exported() -> None:
    rows = table_under(PAGE, "Graphs for NIR")
    assert [name.rpartition(" ")[0] for name, *_ in rows] == list(EXPORTERS)
