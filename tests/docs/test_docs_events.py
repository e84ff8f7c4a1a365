"""What docs/events.md shows works as pasted: a network of SpikingJelly is trained there."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from doc_blocks import assert_shown, blocks_of, in_folder

from snnprune.data import require_data
from snnprune.recipe.loading import builtin_recipes

PAGE = "events.md"
Run = Callable[..., subprocess.CompletedProcess[str]]


def run_line(line: str, run: Run) -> str:
    program, *arguments = shlex.split(line)
    if program == "python":
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    else:
        done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.docs
def test_the_page_runs_from_a_trained_network_to_a_file_that_passes_its_gates(
    run: Run, tmp_path: Path
) -> None:
    outputs: dict[int, str] = {}
    with in_folder(tmp_path):
        for block in blocks_of(PAGE):
            if block.file:
                Path(block.file).write_text(block.text)
            for line in block.text.splitlines() if "runnable" in block.marks else ():
                outputs[block.line] = outputs.get(block.line, "") + run_line(line, run)
    assert_shown(PAGE, outputs)
    plain, pruned = (torch.load(tmp_path / name) for name in ("events.pth", "events-pruned.pth"))
    assert pruned["epochs"] == plain["epochs"]
    assert {k: v.shape for k, v in pruned["net"].items()} == {
        k: v.shape for k, v in plain["net"].items()
    }


def test_the_page_names_data_and_recipes_that_there_are() -> None:
    text = Path(__file__).parents[2].joinpath("docs", PAGE).read_text()
    for name in ("nmnist:frames=8", "dvs-gesture:frames=16,size=64", "shd:bins=100", "frames:DIR"):
        assert f"`{name}`" in text
        require_data(name)
    for name in ("moving-mini", "dvs-gesture", "shd"):
        assert f"`{name}`" in text
        assert name in builtin_recipes()
