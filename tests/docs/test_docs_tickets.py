"""What docs/tickets.md shows works as pasted."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_blocks import blocks_of, read

from snnprune.recipe.loading import load_recipe
from snnprune.training import METHODS

PAGE = "tickets.md"
Run = Callable[..., subprocess.CompletedProcess[str]]


def lines() -> list[list[str]]:
    """The commands of the runnable blocks, as words, in the order of the page."""
    blocks = [block for block in blocks_of(PAGE) if "runnable" in block.marks]
    texts = [block.text.replace("\\\n", " ") for block in blocks]
    return [shlex.split(line) for text in texts for line in text.splitlines()]


@pytest.mark.docs
def test_every_command_runs_as_pasted_from_top_to_bottom(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for program, *arguments in lines():
        assert program == "snnprune"
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    left = {path.name for path in (tmp_path / "runs").iterdir()}
    assert left == {  # and none of --dry-run
        *("tickets", "early-bird", "gradual"),
        *("search", "dense", "finetuned"),
    }


def test_every_method_is_described() -> None:
    assert [name for name in (*METHODS, "random") if f"| `{name}` |" not in read(PAGE)] == []


def test_every_setting_that_is_named_exists() -> None:
    load_recipe("smoke", ["imp.rewind=learning-rate", "imp.rewind_statistics=false"])
    load_recipe("smoke", ["imp.surgery=dns", "imp.early_time_steps=3", "imp.early_bird=0.02"])
    load_recipe("smoke", ["imp.early_bird=0.1", "imp.early_bird_ends=dense"])
    load_recipe("smoke", ["imp.round_epochs=1", "imp.repair=bn", "imp.allocation=local"])
