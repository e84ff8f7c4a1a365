"""What `--help` shows at its end works."""

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from snnprune.cli.commands import make_app
from snnprune.cli.examples import EXAMPLES

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = (
    *("inspect", "calibrate", "score", "prune", "eval", "diff", "check", "export", "theory width"),
    *("recipes ls", "recipes show", "recipes cp", "recipes validate"),
)
EXTRA = ("--criterion", "magnitude", "--repair", "bn", "--no-tune")  # so that it takes no seconds
WIDTH = 78  # columns of 80 within the margins of typer


def leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something by its words."""
    if not hasattr(command, "commands"):
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, f"{path} {name}".strip())


def words_of(example: str) -> list[str]:
    return shlex.split(example.replace("\\\n", " "))


def test_every_command_has_examples_that_fit_a_terminal() -> None:
    assert set(EXAMPLES) == {name for name, _ in leaves(get_command(make_app()))}
    lines = [line for some in EXAMPLES.values() for one in some for line in one.split("\n")]
    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_is_a_command_line_of_its_command(name: str) -> None:
    command = dict(leaves(get_command(make_app([name.split()[0]]))))[name]
    for example in EXAMPLES[name]:
        program, *words = words_of(example)
        assert program == "snnprune"
        assert " ".join(words[: len(name.split())]) == name
        command.make_context(name, words[len(name.split()) :])  # raises what typer refuses


def test_help_ends_with_them(run: Run) -> None:
    shown = run("prune", "--help").stdout
    assert shown.rstrip().endswith("--chip speck -o on-speck.pth")
    line = " ".join(words_of(EXAMPLES["prune"][0]))
    assert f"\n Examples:{' ' * 70}\n {line}" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_what_takes_no_time_is_run(
    model_file: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unrendered: None
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(model_file, "net.safetensors")
    for name in QUICK:
        for example in EXAMPLES[name]:
            words = words_of(example)[1:]
            if "net.pth" in words or "--max-accuracy-drop" in words:
                continue
            done = run(*words, *(EXTRA if name == "prune" else ()))
            assert done.returncode == 0, f"{example}: {done.stderr}"
