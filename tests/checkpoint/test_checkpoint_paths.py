"""Paths that lead to no file, or to one that must not be opened."""

import os
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.errors import InputError


@pytest.fixture
def never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise AssertionError(f"opened {self}")

    monkeypatch.setattr(Path, "open", refuse)


@pytest.mark.usefixtures("never_opened")
def test_a_folder_is_not_a_regular_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder, not a regular file\. name a file in it"):
        read_checkpoint(tmp_path)


@pytest.mark.usefixtures("never_opened")
def test_a_pipe_is_refused_without_waiting_for_somebody_to_write(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a named pipe, not a regular file"):
        read_checkpoint(tmp_path / "pipe")


@pytest.mark.usefixtures("never_opened")
def test_an_endless_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (Path("/dev/zero"), tmp_path / "link"):
        with pytest.raises(InputError, match="is a device, not a regular file"):
            read_checkpoint(path)


@pytest.mark.usefixtures("never_opened")
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may have 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(InputError, match="is a socket, not a regular file"):
            read_checkpoint(Path("socket"))


def test_a_missing_file_is_called_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pth: no such file"):
        read_checkpoint(tmp_path / "none.pth")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="cannot be read: Not a directory"):
        read_checkpoint(tmp_path / "file" / "model.pth")


def test_links_that_lead_nowhere_say_so(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("gone.pth")
    with pytest.raises(InputError, match=r"is a link to gone\.pth, which is not there"):
        read_checkpoint(tmp_path / "dangling")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="is a loop of links"):
        read_checkpoint(tmp_path / "loop")


def test_names_that_no_file_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a name that a file can have"):
        read_checkpoint(tmp_path / "a\0b")
    with pytest.raises(InputError, match="File name too long"):
        read_checkpoint(tmp_path / ("a" * 5000))


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"something")

    def denied(*_: object, **__: object) -> None:  # the tests may run as root, who may read all
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError, match="secret: cannot be read: Permission denied"):
        read_checkpoint(tmp_path / "secret")


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize(
    "name", ["a b.pth", "🦆", "-x", "new\nline", "caf\udce9", "a.safetensors"], ids=ascii
)
def test_odd_file_names_work(tmp_path: Path, name: str, form: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        if form == "safetensors":
            file.write(safetensors.torch.save({"w": torch.ones(2)}))
        else:
            torch.save({"w": torch.ones(2)}, file, _use_new_zipfile_serialization=form == "zip")
    (tmp_path / "link").symlink_to(path)
    assert read_checkpoint(path).tensors["w"].tolist() == [1, 1]
    assert read_checkpoint(tmp_path / "link").tensors["w"].tolist() == [1, 1]
