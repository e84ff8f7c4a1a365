"""What docs/events.md shows works as pasted: a network of SpikingJelly is trained there."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from doc_blocks import Block, assert_shown, blocks_of, in_folder

from snnprune.data import require_data
from snnprune.recipe.loading import builtin_recipes

PAGE = "events.md"
Run = Callable[..., subprocess.CompletedProcess[str]]


def run_line(line: str, run: Run, code: int) -> str:
    program, *arguments = shlex.split(line)
    if program == "python":
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    else:
        done = run(*arguments)
    assert done.returncode == code, done.stderr
    return done.stdout


def run_block(block: Block, run: Run) -> str:
    if block.file:
        Path(block.file).write_text(block.text)
        return ""
    if block.language == "python":
        with contextlib.redirect_stdout(io.StringIO()) as told:
            block.run_as_python()
        return told.getvalue()
    code = 4 if "exits=4" in block.marks else 0
    lines = block.text.splitlines() if "runnable" in block.marks else ()
    return "".join(run_line(line, run, code) for line in lines)


@pytest.mark.docs
@pytest.mark.filterwarnings("ignore:nirtorch.load:DeprecationWarning")  # called by sinabs
def test_the_page_runs_from_a_trained_network_to_files_that_fit_their_chips(
    run: Run, tmp_path: Path
) -> None:
    with in_folder(tmp_path):
        outputs = {block.line: run_block(block, run) for block in blocks_of(PAGE)}
    assert_shown(PAGE, outputs)
    plain, pruned = (torch.load(tmp_path / name) for name in ("events.pth", "loihi.pth"))
    assert pruned["epochs"] == plain["epochs"]
    assert {k: v.shape for k, v in pruned["net"].items()} == {
        k: v.shape for k, v in plain["net"].items()
    }
    (right,) = re.findall(r"^(\d+) of 100 right$", "".join(outputs.values()), re.MULTILINE)
    assert int(right) >= 75  # by sinabs, of ten classes


def test_the_page_names_data_and_recipes_that_there_are() -> None:
    text = Path(__file__).parents[2].joinpath("docs", PAGE).read_text()
    for name in ("nmnist:frames=8", "dvs-gesture:frames=16,size=64", "shd:bins=100", "frames:DIR"):
        assert f"`{name}`" in text
        require_data(name)
    for name in ("moving-mini", "dvs-gesture", "shd"):
        assert f"`{name}`" in text
        assert name in builtin_recipes()
