"""One run per folder."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from snnprune.errors import OutputError
from snnprune.training.runs import ownership
from snnprune.training.runs.ownership import lock_folder

HOLD = """
import runpy, sys, time
from pathlib import Path
lock_folder = runpy.run_path(sys.argv[2])["lock_folder"]  # not by way of torch
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(OutputError) as caught, lock_folder(tmp_path):
        pass
    told = str(caught.value)
    assert f"process {os.getpid()} on {socket.gethostname()} since 20" in told
    assert told.startswith(f"{tmp_path}: a run is at work here")


def test_the_lock_is_free_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_folder(tmp_path / "run") as warnings:
            assert warnings == ()


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), ownership.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(OutputError, match=f"process {process.pid} on"), lock_folder(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert f"process {process.pid} on" in (tmp_path / "run.lock").read_text()
    with lock_folder(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / "run.lock").read_text()


def test_a_lock_that_is_taken_away_holds_for_nobody(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        (tmp_path / "run.lock").unlink()
        with lock_folder(tmp_path), pytest.raises(OutputError), lock_folder(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_an_error_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="cannot be written"),
        lock_folder(tmp_path / "file" / "run"),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(os, "ftruncate", lambda handle, _: os.dup2(full, handle))
    with pytest.raises(OutputError, match="No space left"), lock_folder(tmp_path / "run"):
        pass
    os.close(full)


def test_where_the_file_system_has_no_locks_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("snnprune.training.runs.ownership.fcntl.flock", unsupported)
    with lock_folder(tmp_path) as warnings:
        assert "Operation not supported" in warnings[0]
