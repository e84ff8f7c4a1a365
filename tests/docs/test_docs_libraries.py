"""The examples of every page of docs/libraries/ run from top to bottom."""

import shlex
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from doc_blocks import DOCS, Block, assert_shown, blocks_of, in_folder

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGES = sorted(f"libraries/{page.name}" for page in (DOCS / "libraries").glob("*.md"))
WITHOUT_CODE = {"libraries/published.md"}  # other people's code
OLD = "0.0.0.0.12"
"""Mark of blocks for this version of SpikingJelly, which shuts out the one of the others."""


def commands(block: Block, run: Run) -> str:
    """What the commands of a block print."""
    output = ""
    for line in block.text.replace("\\\n", " ").splitlines():
        done = run(*shlex.split(line)[1:])
        assert done.returncode == 0, f"{block.page}:{block.line}: {done.stderr}"
        output += done.stdout
    return output


def run_through(blocks: Iterable[Block], folder: Path, run: Run) -> dict[int, str]:
    """Save or run the blocks as a reader would; what was printed, by line of the page."""
    outputs = {}
    with in_folder(folder):
        for block in blocks:
            if block.file is not None:
                Path(block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                block.run_as_python()
            elif block.language == "bash" and "runnable" in block.marks:
                outputs[block.line] = commands(block, run)
    return outputs


# norse still uses torch.jit.script
@pytest.mark.many(1)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize("page", sorted({*PAGES} - WITHOUT_CODE))
def test_every_example_of_the_page_runs(page: str, tmp_path: Path, run: Run) -> None:
    blocks = [block for block in blocks_of(page) if OLD not in block.marks]
    outputs = run_through(blocks, tmp_path, run)
    assert outputs
    assert_shown(page, outputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the old package
def test_the_example_for_an_older_library_runs(tmp_path: Path, run: Run) -> None:
    pytest.importorskip(
        "spikingjelly.clock_driven", reason=f"needs an environment with spikingjelly=={OLD}"
    )
    blocks = [block for block in blocks_of("libraries/spikingjelly.md") if OLD in block.marks]
    assert run_through(blocks, tmp_path, run)


def test_every_page_is_named_in_the_table_of_contents() -> None:
    contents = (DOCS / "libraries.md").read_text(encoding="utf-8")
    assert [page for page in PAGES if f"({page})" not in contents] == []
