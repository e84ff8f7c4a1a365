"""What a file says of itself: counted again, and a version of the future told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from snnprune import __version__
from snnprune.checkpoint.containers import describe_checkpoint, read_checkpoint

TENSORS = {"fc.weight": torch.tensor([[1.0, 0.0], [2.0, 3.0]])}


def written(folder: Path, **said: str) -> Path:
    path = folder / "model.safetensors"
    save_file(TENSORS, path, {f"snnprune.{name}": text for name, text in said.items()})
    return path


def told(path: Path) -> list[str]:
    notes = read_checkpoint(path).notes
    assert [note for note in notes if "wrote it" in note] == list(describe_checkpoint(path).notes)
    return [note for note in notes if "wrote it" in note]


@pytest.mark.parametrize("version", ["99.0.0", "0.1.1", "0.2", "1.0.0rc1"])
def test_a_version_of_the_future_is_told(version: str, tmp_path: Path) -> None:
    (note,) = told(written(tmp_path, version=version))
    assert f"says that snnprune {version} wrote it, this is {__version__}" in note


@pytest.mark.parametrize("version", [__version__, "0.0.9", "", "x", "9" * 6000, "1", "\x1b[31m"])
def test_any_other_is_not(version: str, tmp_path: Path) -> None:
    assert told(written(tmp_path, version=version)) == []


def test_what_a_file_says_of_its_sparsity_is_counted_again(
    run: Callable[..., Any], as_json: Callable[[Any], Any], tmp_path: Path
) -> None:
    path = written(tmp_path, sparsity="0.99", pruned="-1", prunable="1")
    totals = as_json(run("inspect", path, "--json"))["totals"]
    assert (totals["prunable"], totals["pruned"]) == (4, 1)
