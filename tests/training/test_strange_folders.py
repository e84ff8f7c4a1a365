"""A run folder that a stranger made: what is not ours is refused, and leads nowhere."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from snnprune.files.writing import BEGIN, END
from snnprune.training.runs.ownership import OF_RUN, require_ours

Run = Callable[..., Any]
FILES = (*OF_RUN, "run.lock")
FOLDERS = ("state", "tensorboard", "round-00", "seed-0")
MODES = ("--resume", "--force")
QUICK = ("report.json", "metrics.jsonl", "run.lock", "SHA256SUMS")  # the others are marked slow
LATER = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FILES]
RECIPE = """
model: {{name: conv-snn, args: {{width: 2, depth: 2, time_steps: 2}}}}
data: {{name: "tensors:{images}", validation: 0.25, crop: 1, flip: true}}
training: {{epochs: 1, batch_size: 4, learning_rate: 0.1}}
"""


@pytest.fixture(scope="module")
def begun(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that lacks its end, beside its recipe."""
    folder = tmp_path_factory.mktemp("begun")
    images, y = folder / "images.safetensors", torch.arange(16) % 2
    x = torch.rand(16, 1, 6, 6) + y.view(-1, 1, 1, 1)
    save_file({"x": x, "y": y, "x_test": x.roll(1, -1), "y_test": y.clone()}, images)
    (folder / "recipe.yaml").write_text(RECIPE.format(images=images))
    done = run("train", "--recipe", folder / "recipe.yaml", "--out", folder / "run", "-q")
    assert done.returncode == 0, done.stderr
    (folder / "run" / "DONE").unlink()
    return folder


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoilt."""
    shutil.copytree(begun / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def victims(tmp_path: Path) -> Iterator[Path]:
    """A folder with files that are as they were after the test."""
    far = tmp_path / "far"
    (far / "round-01").mkdir(parents=True)
    names = ("file", "step-000001.safetensors", "model.safetensors", "round-01/model.safetensors")
    for name in names:
        (far / name).write_text("precious")
    yield far
    found = sorted(path for path in far.rglob("*") if path.is_file())
    assert found == sorted(far / name for name in names)
    assert {path.read_text() for path in found} == {"precious"}


@pytest.fixture
def go(begun: Path, folder: Path, run: Run) -> Callable[[str], Any]:
    """`go("--resume")` and `go("--force")` in that folder."""

    def start(mode: str) -> Any:
        recipe = () if mode == "--resume" else ("--recipe", begun / "recipe.yaml")
        return run("train", mode, *recipe, "--out", folder, "-q")

    return start


def replaced(path: Path) -> Path:
    """The path with nothing at it."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def put(kind: str, path: Path, victims: Path) -> None:
    replaced(path)
    if kind == "link":
        path.symlink_to(victims / "file")
    elif kind == "dangling":
        path.symlink_to(victims / "fresh")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.relpath(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(victims)


def refused(done: Any, path: Path) -> None:
    assert done.returncode in (3, 5), done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert path.name in done.stderr


def test_the_folder_itself_is_a_good_one(
    go: Callable[[str], Any], folder: Path, victims: Path
) -> None:
    (folder / "notes").symlink_to(victims)  # of a name that is not ours
    (folder / "novel.txt").write_text("mine")
    for mode in MODES:
        done = go(mode)
        assert done.returncode == 0, done.stderr
        assert (folder / "notes").is_symlink()
        assert (folder / "novel.txt").read_text() == "mine"


@pytest.mark.many(2)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["report.json", "metrics.jsonl", "state/step-000003.safetensors"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "socket", "device"])
def test_what_is_no_regular_file_is_refused(
    kind: str,
    name: str,
    mode: str,
    go: Callable[[str], Any],
    folder: Path,
    victims: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)  # the name of a socket has to be short
    put(kind, folder / name, victims)
    before = sorted(folder.rglob("*"))
    refused(go(mode), folder / name)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.many(2)
@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_place_of_any_file_of_ours_is_refused(
    name: str, go: Callable[[str], Any], folder: Path, victims: Path
) -> None:
    put("link", folder / name, victims)
    for mode in MODES:
        refused(go(mode), folder / name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_in_the_place_of_a_folder_of_ours_is_refused(
    name: str, mode: str, go: Callable[[str], Any], folder: Path, victims: Path
) -> None:
    put("folder link", folder / name, victims)
    refused(go(mode), folder / name)


@pytest.mark.many(2)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*LATER, *FOLDERS])
def test_a_link_that_comes_after_the_check_leads_nowhere_either(
    name: str,
    mode: str,
    go: Callable[[str], Any],
    folder: Path,
    victims: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snnprune.training.runs.ownership.require_ours", lambda _: None)
    put("folder link" if name in FOLDERS else "link", folder / name, victims)
    done = go(mode)
    assert done.returncode in (0, 3, 5), done.stderr  # what the victims are is looked at after it


def test_a_method_that_is_a_link_keeps_its_rounds(
    go: Callable[[str], Any], folder: Path, victims: Path
) -> None:
    put("folder link", folder / "imp", victims)
    assert go("--force").returncode == 0


def test_a_file_with_another_name_is_not_written_to(
    go: Callable[[str], Any], folder: Path, victims: Path
) -> None:
    for name in ("run.lock", "metrics.jsonl", "report.json"):
        os.link(victims / "file", replaced(folder / name))
    refused(go("--force"), folder / "run.lock")
    (folder / "run.lock").unlink()
    assert go("--force").returncode == 0


def test_a_folder_of_another_run_in_it_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "net-data").symlink_to(tmp_path)
    require_ours(tmp_path)
    with pytest.raises(Exception, match="net-data: is a link, not a folder"):
        require_ours(tmp_path, ["net-data"])


def test_what_a_killed_process_was_writing_goes_with_the_next_resume_also_of_a_whole_run(
    begun: Path, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(begun / "run", tmp_path / "run")
    folder = tmp_path / "run"
    assert run("train", "--resume", "--out", folder, "-q").returncode == 0
    assert (folder / "DONE").exists()
    left = [folder / f"{BEGIN}0123{END}", folder / "state" / f"{BEGIN}4567{END}"]
    for place in left:
        place.mkdir()
        (place / "SHA256SUMS").write_text("half of i")
    before = (folder / "SHA256SUMS").read_bytes()
    assert run("train", "--resume", "--out", folder, "-q").returncode == 0
    assert [place for place in left if place.exists()] == []
    assert (folder / "SHA256SUMS").read_bytes() == before


@pytest.mark.parametrize("name", ["SHA256SUMS", "DONE"])
def test_a_disk_that_is_full_as_the_run_is_said_to_be_whole_is_one_line(
    name: str, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *words: Any, **more: Any) -> Any:
        if path.name == name:
            raise OSError(28, "No space left on device")
        return (write if more else touch)(path, *words, **more)

    write, touch = Path.write_text, Path.touch
    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "touch", full)
    done = run("train", "--resume", "--out", folder, "-q")
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith(f"error: {folder / name}: ")
    assert "No space left on device" in done.stderr
    assert not (folder / "DONE").exists()
    monkeypatch.undo()
    assert run("train", "--resume", "--out", folder, "-q").returncode == 0
    assert (folder / "DONE").exists()
