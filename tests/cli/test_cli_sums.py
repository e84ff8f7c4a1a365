"""`SHA256SUMS` of a run folder, and `check --sha256`: what is damaged later is found."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from one_line import assert_one_line
from safetensors.torch import load_file, save_file

from snnprune.checkpoint.containers import require_sha256
from snnprune.errors import InputError
from snnprune.files.reading import compute_sums, read_sums
from snnprune.training.runs.ownership import DONE, SUMS

Run = Callable[..., subprocess.CompletedProcess[str]]
EVERY = 997  # bits; no multiple of a byte, so that each bit of one has its turn
STATES = ("state", "run.lock", SUMS, DONE)


def sha256sum(folder: Path) -> subprocess.CompletedProcess[str]:
    """The tool of that name on the list in a folder."""
    words = ["sha256sum", "-c", "--strict", "--quiet", SUMS]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    """A copy of a finished run without its states."""
    for path in small.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def flipped(data: bytes) -> Iterator[bytes]:
    """The data with one bit another, for every k-th of them and the last."""
    bits = 8 * len(data)
    for bit in (*range(0, bits, EVERY), bits - 1):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_sha256sum_finds_all_files_of_a_run_whole_and_a_damaged_one(copied: Path) -> None:
    assert sha256sum(copied).returncode == 0
    listed = {path.name for path in read_sums(copied / SUMS)}
    assert listed == {path.name for path in copied.iterdir()} - {*STATES}
    for name in listed:
        data = (copied / name).read_bytes()
        (copied / name).write_bytes(next(flipped(data)))
        done = sha256sum(copied)
        assert done.returncode == 1
        assert f"{name}: FAILED" in done.stdout
        (copied / name).write_bytes(data)
    assert sha256sum(copied).returncode == 0


@pytest.mark.many(2)
@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
@pytest.mark.parametrize("by", ["list", "hash"])
def test_a_flipped_bit_anywhere_in_a_checkpoint_is_caught(
    name: str, by: str, model_file: Path, trained_as_pth: bytes, tmp_path: Path
) -> None:
    path, sums = tmp_path / name, tmp_path / SUMS
    data = trained_as_pth if name.endswith(".pth") else model_file.read_bytes()
    path.write_bytes(data)
    sums.write_text(compute_sums(tmp_path, [name]))
    given = str(sums) if by == "list" else hashlib.sha256(data).hexdigest()
    require_sha256(path, given)
    tried = 0
    for changed in flipped(data):
        path.write_bytes(changed)
        with pytest.raises(InputError):
            require_sha256(path, given)
        tried += 1
    assert tried > 100


@pytest.fixture(scope="session")
def trained_as_pth(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The same network as torch saves it."""
    import torch

    path = tmp_path_factory.mktemp("pth") / "model.pth"
    torch.save(load_file(model_file), path)
    return path.read_bytes()


def test_check_tells_a_damaged_file_by_the_list_of_its_run(copied: Path, run: Run) -> None:
    path = copied / "model.safetensors"
    asked = ("check", path, "--sha256", copied / SUMS)
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "its SHA-256 is the one that was given\n"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # in a weight: the file is read without complaint
    path.write_bytes(data)
    assert run("check", path, "--min-sparsity", 0).returncode == 0
    assert_one_line(run(*asked), 3, "model.safetensors", "--sha256: damaged or another file")
    gated = run(*asked, "--min-sparsity", 0.9)
    assert_one_line(gated, 3, "damaged or another file", "copy or download it again")


def test_the_hash_that_a_report_tells_is_one_to_check_by(copied: Path, run: Run) -> None:
    path = copied / "model.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    flags = ("--min-sparsity", 0, "--json")
    assert run("check", path, "--sha256", digest.upper(), *flags).returncode == 0
    done = run("check", path, "--sha256", digest[::-1])
    assert_one_line(done, 3, f"its SHA-256 is {digest}, not {digest[::-1]}")


def test_a_file_of_another_folder_is_not_listed(copied: Path, run: Run) -> None:
    other = copied / "other"
    other.mkdir()
    path = other / "model.safetensors"
    path.write_bytes((copied / "model.safetensors").read_bytes())
    done = run("check", path, "--sha256", copied / SUMS)
    assert_one_line(done, 3, f"is not listed in {copied / SUMS}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty file"),
        ("abc  model.safetensors\n", "is no list of hashes"),
        (f"{'0' * 64} model.safetensors\n", "is no list of hashes"),
        (f"{'0' * 64}  a\0b\n", "is no list of hashes"),
    ],
)
def test_what_is_no_list_is_refused(text: str, told: str, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / SUMS).write_text(text)
    with pytest.raises(InputError, match=told):
        require_sha256(model_file, str(tmp_path / SUMS))


def test_a_list_that_is_not_there_is_named(model_file: Path, run: Run, tmp_path: Path) -> None:
    done = run("check", model_file, "--sha256", tmp_path / SUMS)
    assert_one_line(done, 3, SUMS, "no such file")


def test_names_of_any_kind_are_listed_as_sha256sum_lists_them(tmp_path: Path) -> None:
    names = ["plain", "a space", "two\nlines", "back\\slash", "\\n", "re\rturn", "emoji 🦔"]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(str(number))
    (tmp_path / SUMS).write_text(compute_sums(tmp_path, names), newline="\n")
    assert sha256sum(tmp_path).returncode == 0
    theirs = subprocess.run(["sha256sum", *names], cwd=tmp_path, capture_output=True, check=True)
    assert theirs.stdout == (tmp_path / SUMS).read_bytes()
    assert set(read_sums(tmp_path / SUMS)) == {tmp_path / name for name in names}


def test_every_shard_must_be_listed_and_whole(model_file: Path, tmp_path: Path) -> None:
    tensors = load_file(model_file)
    halves = {"a.safetensors": list(tensors)[::2], "b.safetensors": list(tensors)[1::2]}
    for name, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    where = ", ".join(f'"{key}": "{name}"' for name, keys in halves.items() for key in keys)
    index.write_text(f'{{"weight_map": {{{where}}}}}')
    sums = tmp_path / SUMS
    sums.write_text(compute_sums(tmp_path, [index.name, *halves]))
    require_sha256(index, str(sums))
    shard = tmp_path / "b.safetensors"
    shard.write_bytes(list(flipped(shard.read_bytes()))[-1])
    with pytest.raises(InputError, match=r"b\.safetensors: --sha256: damaged"):
        require_sha256(index, str(sums))
    sums.write_text(compute_sums(tmp_path, [index.name, "a.safetensors"]))
    with pytest.raises(InputError, match=r"b\.safetensors: --sha256: is not listed"):
        require_sha256(index, str(sums))
