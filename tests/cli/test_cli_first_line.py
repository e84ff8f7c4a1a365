"""Somebody who waits at a terminal sees why, from the first half second on."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from snnprune.cli.streams import CLEAR


def seen_on_a_terminal(*words: object, **environment: str) -> tuple[int, str, str]:
    """The exit code, what stdout got and what a terminal on stderr got."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "snnprune", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", **environment},
        text=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    out, _ = done.communicate()
    return done.returncode, out, shown.decode()


@pytest.mark.many(1)
@pytest.mark.parametrize("command", ["eval", "score"])
def test_a_line_tells_that_torch_is_loaded_and_what_is_opened(
    command: str, model_file: Path
) -> None:
    code, out, shown = seen_on_a_terminal(command, model_file, "--samples", 8)
    assert code == 0
    assert shown.startswith(f"loading torch ...{CLEAR}")
    assert shown.split(CLEAR)[1] == f"opening {model_file} ..."[:79]
    assert shown.count("loading torch") == 1
    assert "loading torch" not in out


@pytest.mark.slow
def test_the_line_is_gone_before_an_error() -> None:
    code, _, shown = seen_on_a_terminal("train", "--recipe", "smoke", "--device", "cuda:9")
    assert code == 2
    assert "loading torch ..." in shown
    assert f"{CLEAR}error: --device: no device 'cuda:9' here" in shown


@pytest.mark.slow
def test_there_is_none_where_it_is_quiet_or_torch_is_not_needed(model_file: Path) -> None:
    assert seen_on_a_terminal("eval", model_file, "--samples", 8, "-q")[2] == ""
    assert seen_on_a_terminal("env", TERM="dumb")[2] == ""
    assert "loading" not in seen_on_a_terminal("inspect", model_file, "--device", "gpu")[2]
