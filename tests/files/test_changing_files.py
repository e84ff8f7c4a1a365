"""Files that somebody writes to while they are read: refused, and never two of them mixed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from snnprune.data import DataOptions
from snnprune.data.user_files import _decode_picture
from snnprune.errors import InputError
from snnprune.files.reading import open_for_reading, require_unchanging

SCRIPT = Path(__file__).with_name("changing.py")
COMMANDS = [
    ("inspect", ".pth"),
    ("prune", ".safetensors"),
    ("prune", ".pth"),
    ("diff", ".safetensors"),
    ("export", ".pth"),
    ("export", ".safetensors"),
    ("score", ".safetensors"),
    ("calibrate", ".pth"),
    ("eval", ".safetensors"),
]
Done = subprocess.CompletedProcess[str]


def changed_at_reads(folder: Path, command: str, suffix: str, count: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), command, suffix, str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_file_that_changes_at_a_read_of_prune_is_refused_or_read_whole(tmp_path: Path) -> None:
    counted = changed_at_reads(tmp_path / "in", "prune", ".pth", 3)
    for name in ("cut", "grown", "rewritten", "replaced"):
        assert counted[f"{name}: refused"]


@pytest.mark.faults
@pytest.mark.parametrize(("command", "suffix"), COMMANDS)
def test_a_file_that_changes_at_any_read_of_a_command_is_refused_or_read_whole(
    command: str, suffix: str, tmp_path: Path
) -> None:
    counted = changed_at_reads(tmp_path / "in", command, suffix, 12)
    print(command, suffix, counted)
    assert counted["rewritten: refused"]


def test_a_file_that_is_written_to_with_its_old_size_and_time_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    before = path.stat()

    def rewrite() -> None:
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(InputError, match="changed while it was read"), open_for_reading(path):
        rewrite()
    with pytest.raises(InputError, match="changed while it was read"), require_unchanging(path):
        rewrite()


def test_a_file_that_is_gone_or_another_when_it_is_opened_again_has_changed(tmp_path: Path) -> None:
    path, other = tmp_path / "x", tmp_path / "y"
    path.write_bytes(b"one")
    other.write_bytes(b"one")
    with pytest.raises(InputError, match="changed while it was read"), require_unchanging(path):
        other.replace(path)
    with pytest.raises(InputError, match="no such file"), require_unchanging(path):
        path.unlink()


def test_a_fault_that_a_change_explains_is_told_as_the_change(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")

    def fails() -> None:
        raise ValueError("what is read makes no sense")

    def fails_when_cut() -> None:
        os.truncate(path, 1)
        fails()

    with pytest.raises(InputError, match="changed while it was read"), open_for_reading(path):
        fails_when_cut()
    with pytest.raises(ValueError, match="makes no sense"), open_for_reading(path):
        fails()


def test_a_picture_that_is_cut_while_it_is_decoded_does_not_end_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow maps an uncompressed picture that it is given by name: reading on is a SIGBUS."""
    path = tmp_path / "grey.bmp"
    Image.new("L", (512, 512)).save(path)
    convert = Image.Image.convert

    def cut_first(self: Image.Image, *given: object) -> Image.Image:
        self.load()  # by now it is mapped, if it is to be
        os.truncate(path, 2_000)
        return convert(self.transpose(Image.Transpose.FLIP_TOP_BOTTOM), *given)  # type: ignore[arg-type]

    child = os.fork()
    if not child:
        monkeypatch.setattr(Image.Image, "convert", cut_first)
        try:
            _decode_picture(path, DataOptions(channels=1))
        except InputError as error:
            os._exit(3 if "changed while it was read" in str(error) else 4)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code != -signal.SIGBUS
    assert code == 3


def test_a_nir_graph_that_is_cut_while_it_is_read_is_refused(
    run: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import h5py
    import numpy as np

    from snnprune.checkpoint import nir
    from snnprune.checkpoint.nir import read_array

    path = tmp_path / "x.nir"
    with h5py.File(path, "w") as file:
        node = file.create_group("node")
        node["type"] = "NIRGraph"
        fc = node.create_group("nodes/fc")
        fc["type"], fc["weight"] = "Linear", np.ones((64, 64), "float32")

    def cut_first(dataset: h5py.Dataset) -> np.ndarray:
        os.truncate(path, path.stat().st_size // 2)
        return read_array(dataset)

    assert run("inspect", path).returncode == 0
    monkeypatch.setattr(nir, "read_array", cut_first)
    done = run("inspect", path)
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {path}: changed while it was read")
