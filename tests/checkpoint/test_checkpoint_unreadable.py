"""Files that the user may not read, and files that were saved on a GPU."""

import ctypes
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

Run = Callable[..., subprocess.CompletedProcess[str]]
DROP, RIGHTS = 24, (1, 2)  # PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


def give_up() -> None:
    """From the next program on even root may read only what its permissions allow."""
    for right in RIGHTS:
        ctypes.CDLL(None).prctl(DROP, right, 0, 0, 0)


def without_rights(*command: str) -> subprocess.CompletedProcess[str]:
    """Run the tool as one whom permissions bind."""
    return subprocess.run(
        [sys.executable, "-m", "snnprune", *command],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=give_up,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.many(1)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_that_may_not_be_read_is_told_so(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save({"fc.weight": torch.ones(2, 2)}, path)
    path.chmod(0o644)
    assert without_rights("inspect", str(path)).returncode == 0
    path.chmod(0)
    done = without_rights("inspect", str(path))
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"error: {path}: cannot be read: Permission denied. check the path and its permissions"
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0


def test_a_file_in_a_folder_that_may_not_be_entered_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "closed" / "mine.safetensors"
    path.parent.mkdir()
    save_file({"fc.weight": torch.ones(2, 2)}, path)
    path.parent.chmod(0)
    done = without_rights("inspect", str(path))
    path.parent.chmod(0o755)
    assert done.returncode == 3
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def saved_on_a_gpu(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A file as torch.save writes it on a machine with a GPU: `cuda:0` in place of `cpu`."""
    torch.save(tensors, path)
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    pickled = next(name for name in parts if name.endswith("/data.pkl"))
    here, there = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    assert here in parts[pickled]
    parts[pickled] = parts[pickled].replace(here, there)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def test_a_file_that_was_saved_on_a_gpu_is_read_and_pruned_on_a_cpu(
    run: Run, tmp_path: Path
) -> None:
    path, out = tmp_path / "gpu.pth", tmp_path / "out.pth"
    weight = torch.arange(1.0, 17.0).view(4, 4)
    saved_on_a_gpu(path, {"fc.weight": weight, "fc.bias": torch.ones(4)})
    if not torch.cuda.is_available():  # the file is one that needs a GPU
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    done = run("prune", path, "--sparsity", "0.5", "-o", out)
    assert done.returncode == 0, done.stderr
    found = torch.load(out, map_location="cpu", weights_only=True)
    assert torch.equal(found["fc.weight"], torch.where(weight > 8, weight, 0))
    assert torch.equal(found["fc.bias"], torch.ones(4))
    plain = tmp_path / "out.safetensors"
    assert run("prune", path, "--sparsity", "0.5", "-o", plain).returncode == 0
    assert torch.equal(load_file(plain)["fc.weight"], found["fc.weight"])
