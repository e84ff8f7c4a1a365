"""The audit hook of the corpus hears what a file could do, so that its silence means something."""

import ctypes
import importlib
import marshal
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from corpus.torch_checkpoints import Runs, saved
from corpus.watching import watching


def unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Runs()))


def unpickled_by_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(saved({"x": Runs()}))
    torch.load(path, weights_only=False)


def imported(tmp_path: Path) -> None:
    (tmp_path / "hostile_module.py").write_text("")
    sys.path.insert(0, str(tmp_path))
    try:
        __import__("hostile_module")
    finally:
        sys.path.remove(str(tmp_path))


def imported_by_a_function(tmp_path: Path) -> None:
    (tmp_path / "hostile_too.py").write_text("")
    sys.path.insert(0, str(tmp_path))
    try:
        importlib.import_module("hostile_too")  # told by what it runs
    finally:
        sys.path.remove(str(tmp_path))


def evaluated(tmp_path: Path) -> None:
    eval("1 + 1")


def written(tmp_path: Path) -> None:
    (tmp_path / "proof").write_text("x")


def added_to(tmp_path: Path) -> None:
    os.close(os.open(tmp_path / "proof", os.O_WRONLY | os.O_CREAT))


def deleted(tmp_path: Path) -> None:
    (tmp_path / "proof").touch()
    (tmp_path / "proof").unlink()


def a_folder_gone(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    shutil.rmtree(tmp_path / "below")


def ran(tmp_path: Path) -> None:
    subprocess.run(["true"], check=True)


def shell(tmp_path: Path) -> None:
    os.system("true")


def connected(tmp_path: Path) -> None:
    with socket.socket() as made:
        made.connect_ex(("127.0.0.1", 9))


def loaded_a_library(tmp_path: Path) -> None:
    ctypes.CDLL(None)


def unmarshalled(tmp_path: Path) -> None:
    marshal.loads(marshal.dumps(1))


DEEDS: list[tuple[Callable[[Path], None], str]] = [
    (unpickled, "os.system"),
    (unpickled_by_torch, "os.system"),
    (imported, "import hostile_module"),
    (imported_by_a_function, "exec"),
    (evaluated, "exec"),
    (written, "open for writing"),
    (added_to, "open for writing"),
    (deleted, "os.remove"),
    (a_folder_gone, "shutil.rmtree"),
    (ran, "subprocess.Popen"),
    (shell, "os.system"),
    (connected, "socket.connect"),
    (loaded_a_library, "ctypes.dlopen"),
    (unmarshalled, "marshal.loads"),
]


@pytest.mark.parametrize(("deed", "word"), DEEDS)
def test_what_a_file_could_do_is_heard(
    deed: Callable[[Path], None], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the pickle's command makes its proof
    with watching() as seen:
        deed(tmp_path)
    assert any(line.startswith(word) for line in seen), seen


def test_reading_and_writing_where_it_is_allowed_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with watching(tmp_path / "out") as seen:
        (tmp_path / "out" / "file").write_text("x")
        (tmp_path / "out" / "file").read_text()
        (tmp_path / "out" / "file").rename(tmp_path / "out" / "other")
        Path(__file__).read_text()
    assert seen == []


def test_a_folder_that_only_begins_like_the_allowed_one_is_not_it(tmp_path: Path) -> None:
    with watching(tmp_path / "out") as seen:
        (tmp_path / "outside").write_text("x")
    assert len(seen) == 1


def test_nothing_is_heard_after_the_block(tmp_path: Path) -> None:
    with watching() as seen:
        pass
    written(tmp_path)
    assert seen == []
