"""Files that belong together take their places together."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disturbances import disturbed, left_in

from snnprune.errors import OutputError
from snnprune.files.writing import replace_file, replace_together, write_text

WAITING = """
import sys, time
from pathlib import Path
from snnprune.files.writing import replace_together
with replace_together(Path(sys.argv[1]) / "a") as (staged,):
    staged.write_text("half")
    print("written", flush=True)
    time.sleep(60)
"""
BUSY = """
import sys, time
from pathlib import Path
from snnprune.files.writing import write_text
until = time.monotonic() + 1
while time.monotonic() < until:
    write_text(Path(sys.argv[1]), "new")
"""


def write_all(paths: list[Path], text: str) -> None:
    with replace_together(*paths) as staged:
        for path in staged:
            path.write_text(text)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """A checkpoint, what lies beside it, and a report elsewhere."""
    return [tmp_path / "first", tmp_path / "second", tmp_path / "reports" / "third"]


def texts(paths: list[Path]) -> list[str]:
    return [path.read_text() if path.exists() else "" for path in paths]


@pytest.mark.parametrize("before", ["", "old"])
@pytest.mark.parametrize("kind", ["fsync", "rename"])
def test_an_error_at_any_step_leaves_what_was_there(
    kind: str, before: str, paths: list[Path], tmp_path: Path
) -> None:
    if before:
        write_all(paths, before)
    with disturbed(kind, 0) as strike:
        write_all([path.with_name(f"{path.name}-trial") for path in paths], "")
    for number in range(1, strike.calls + 1):
        with disturbed(kind, number), pytest.raises(OutputError, match="No space left"):
            write_all(paths, "new")
        assert texts(paths) == [before] * 3
        assert left_in(tmp_path) == []
    write_all(paths, "new")
    assert texts(paths) == ["new"] * 3


def test_the_first_is_renamed_last_and_all_are_flushed_before(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    rename = os.rename

    def noted(name: str, *more: object, **folders: int) -> None:
        done.append(name)
        rename(name, *more, **folders)  # type: ignore[arg-type]  # the new name

    monkeypatch.setattr(os, "rename", noted)
    monkeypatch.setattr(os, "fsync", lambda _: done.append("flush"))
    write_all(paths, "new")
    assert done == [*["flush"] * 3, "third", "second", *["flush"] * 2, "first", "flush"]


def test_what_the_block_raises_leaves_what_was_there(paths: list[Path], tmp_path: Path) -> None:
    write_all(paths, "old")
    with pytest.raises(OSError, match="Is a directory"), replace_together(*paths) as staged:
        staged[0].parent.write_text("new")
    assert texts(paths) == ["old"] * 3
    assert left_in(tmp_path) == []


def test_an_error_names_the_file_and_not_the_temporary_one(paths: list[Path]) -> None:
    with pytest.raises(OutputError) as caught, replace_together(*paths) as staged:
        raise OutputError("is full", file=staged[1])
    assert caught.value.file == str(paths[1])
    paths[1] = paths[1].with_name("n" * 300)
    with pytest.raises(OutputError, match="name too long") as caught:
        write_all(paths, "new")
    assert caught.value.file == str(paths[1])


def test_where_there_are_no_second_names_the_old_files_are_copied(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(paths, "old")

    def none(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    with disturbed("rename", 3), pytest.raises(OutputError):
        write_all(paths, "new")
    assert texts(paths) == ["old"] * 3


def test_a_file_that_is_left_unwritten_stays(paths: list[Path]) -> None:
    write_all(paths, "old")
    with replace_together(*paths) as staged:
        staged[1].write_text("new")
    assert texts(paths) == ["old", "new", "old"]


def test_a_link_is_followed_and_the_umask_gives_the_mode(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    status = (tmp_path / "far" / "file").stat()
    assert status.st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_within_a_folder_nothing_but_a_regular_file_is_replaced(kind: str, tmp_path: Path) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    run.mkdir()
    victim.write_text("precious")
    target = run / "report.json"
    if kind == "link":
        target.symlink_to(victim)
    elif kind == "dangling":
        target.symlink_to(tmp_path / "fresh")
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.mkdir()
    with pytest.raises(OutputError, match="not a regular file"):
        write_text(target, "new", within=run)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "fresh").exists()


def test_within_a_folder_no_link_leads_out_of_it(tmp_path: Path) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    for folder in (run, victim):
        folder.mkdir()
    (run / "state").symlink_to(victim)
    with pytest.raises(OutputError), replace_file(run / "state" / "step", within=run):
        pass
    assert list(victim.iterdir()) == []


def test_the_next_one_deletes_what_a_killed_process_left_and_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        write_text(tmp_path / "b", "new")
        assert len(left_in(tmp_path)) == 1  # it is at work
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    write_text(tmp_path / "b", "new")
    assert left_in(tmp_path) == []
    assert not (tmp_path / "a").exists()


def test_many_at_once_in_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", BUSY, str(tmp_path / f"{one}")] for one in range(4)]
    children = [subprocess.Popen(command) for command in commands]
    assert [child.wait(60) for child in children] == [0] * 4
    assert left_in(tmp_path) == []
