"""What Tab gives in a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from snnprune.cli.commands import make_app
from snnprune.cli.completion import NAMES, make_completer
from snnprune.pruning.criteria import CRITERIA


def asked(tmp_path: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script in bash, in which `snnprune` is this one."""
    program = tmp_path / "snnprune"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m snnprune "$@"\n', "utf-8")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path, **environment},
    )


def test_bash_completes_names_that_flags_take(tmp_path: Path) -> None:
    script = """
    eval "$(_SNNPRUNE_COMPLETE=source_bash snnprune)"
    COMP_WORDS=(snnprune prune net.pth --criterion ob) COMP_CWORD=4
    _snnprune_completion snnprune
    echo "${COMPREPLY[@]}"
    """
    done = asked(tmp_path, script)
    assert (done.stdout, done.stderr) == ("obs obs-membrane\n", "")


@pytest.mark.slow
def test_it_is_installed_for_the_shell_that_runs_it(tmp_path: Path) -> None:
    done = asked(tmp_path, "snnprune --install-completion; echo $?", HOME=str(tmp_path))
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0", "")
    assert "source" in (tmp_path / ".bashrc").read_text("utf-8")
    shown = asked(tmp_path, "snnprune --show-completion; echo $?")
    assert "complete -o default -F _snnprune_completion snnprune" in shown.stdout
    assert (shown.stdout.splitlines()[-1], shown.stderr) == ("0", "")


@pytest.mark.many(1)
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered_too(tmp_path: Path, shell: str) -> None:
    done = asked(
        tmp_path,
        "snnprune",
        _SNNPRUNE_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="snnprune recipes show smo",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "smoke" in done.stdout


def test_every_table_of_names_is_of_a_flag_and_lists_what_there_is() -> None:
    flags = {
        flag
        for command in get_command(make_app()).commands.values()  # type: ignore[attr-defined]
        for one in command.params
        for flag in one.opts
    }
    assert {f"--{name}" for name in NAMES} <= flags
    complete = make_completer("criterion")
    assert complete is not None
    assert complete("") == list(CRITERIA.names())
    assert all(list(names()) for names in NAMES.values())
    assert make_completer("out") is None
