"""Files that another process changes at one read of a command; run as a script.

`python changing.py FOLDER COMMAND SUFFIX COUNT`: the command runs once for each way to change the
file and each of COUNT reads of it, the first and the last among them, in a process forked from this
one, and the file is changed just before that read. It has
to end with exit code 3 and one line, or with what the whole file gives; in a mixture never. Prints
how many of each kind there were.
"""

import collections
import contextlib
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from disturbances import made_in
from safetensors.torch import load_file

import snnprune.checkpoint.packed
import snnprune.cli.console
import snnprune.cli.prune_tables
import snnprune.jobs.calibrate
import snnprune.jobs.diff
import snnprune.jobs.evaluate
import snnprune.jobs.export
import snnprune.jobs.inspect
import snnprune.jobs.prune.prune
import snnprune.jobs.score  # noqa: F401  # imported once for all processes
from snnprune.cli import run_app, run_command

READS = ("read", "readinto", "seek")
Change = Callable[[Path, bytes, bytes], None]


def in_another_process(path: Path, what: Callable[[], None]) -> None:
    """As somebody else would."""
    child = os.fork()
    if not child:
        what()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert path.exists()


def cut(path: Path, old: bytes, _: bytes) -> None:
    os.truncate(path, len(old) // 2)


def grown(path: Path, _: bytes, __: bytes) -> None:
    with io.FileIO(path, "a") as file:
        file.write(b"\0" * 8)


def rewritten(path: Path, _: bytes, new: bytes) -> None:
    with io.FileIO(path, "r+") as file:
        file.write(new)


def replaced(path: Path, _: bytes, new: bytes) -> None:
    other = path.with_suffix(".other")
    with io.FileIO(other, "w") as file:
        file.write(new)
    other.replace(path)


CHANGES: dict[str, Change] = {
    "cut": cut,
    "grown": grown,
    "rewritten": rewritten,
    "replaced": replaced,
}


class Changing:
    """An open file; before its n-th read, counted over all openings, `strike` is called."""

    def __init__(self, file: Any, strike: Callable[[], None]) -> None:
        self._file, self._strike = file, strike

    def __getattr__(self, name: str) -> Any:
        if name in READS:
            self._strike()
        return getattr(self._file, name)

    def __enter__(self) -> "Changing":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextlib.contextmanager
def changing(path: Path, number: int, change: Callable[[], None]) -> Any:
    """`change` at the n-th read of the file; yields a list that tells whether there was one."""
    reads, opened = [0], io.open

    def strike() -> None:
        reads[0] += 1
        if reads[0] == number:
            in_another_process(path, change)

    def open_counted(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        found = opened(file, mode, *more, **named)
        same = isinstance(file, str | Path) and Path(file).name == path.name and mode == "rb"
        return Changing(found, strike) if same else found

    with patch.object(io, "open", open_counted):
        yield reads


def words(folder: Path, command: str, path: Path) -> list[str]:
    """The command line that reads `path`."""
    own = ["--model", f"{folder}/own.py:net", "--data", f"{folder}/own.py:batches"]
    of_file = ["--model", f"{folder}/own.py:net", "--data", f"tensors:{path}"]
    out = ["-q", "--force", "-o", str(folder / f"out{path.suffix}")]
    model = str(folder / "model.safetensors")
    return {
        "inspect": ["inspect", str(path), "--json"],
        "prune": ["prune", str(path), "--sparsity", "0.5", "--criterion", "magnitude", *out],
        "diff": ["diff", model, str(path), "--json"],
        "export": ["export", str(path), "--to", "packed", "-q", "--force", "-o", out_of(folder)],
        "score": ["score", str(path), "--criterion", "magnitude", "--json"],
        "calibrate": ["calibrate", str(path), *own, "-q", "--force", "-o", out_of(folder)],
        "eval": ["eval", model, *of_file, "--json"],
    }[command]


def out_of(folder: Path) -> str:
    return str(folder / "out.safetensors")


def ended(folder: Path, command: str, path: Path, number: int, change: Any) -> tuple[int, int, str]:
    """Exit code, number of reads, and what was told."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            told, out = io.StringIO(), io.StringIO()
            with (
                changing(path, number, change) as reads,
                contextlib.redirect_stderr(told),
                contextlib.redirect_stdout(out),
            ):
                code = run_app(run_command, words(folder, command, path))
            said = json.dumps([reads[0], told.getvalue(), out.getvalue()])
            os.write(writing, said.encode()[:60_000])
            os._exit(code)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count, *words_told = json.loads(answer) if answer else (0, "", "")
    return code, int(count), "".join(words_told)


def values_in(out: Path) -> dict[str, torch.Tensor]:
    """What a result holds, without what it says of itself."""
    if out.suffix == ".safetensors":
        return load_file(out)
    return torch.load(out, weights_only=True)


def main() -> None:
    """Change the file in each way at each read."""
    folder, command, suffix = made_in(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
    path = folder / f"input{suffix}"
    data = command == "eval"
    steps = int(sys.argv[4])
    held = load_file(folder / ("images.safetensors" if data else "model.safetensors"))
    save = torch.save if suffix == ".pth" else _save_safetensors
    files = []
    for shift in (0.0, 1.0):
        now = {key: value + shift if value.is_floating_point() else value.roll(int(shift))
               for key, value in held.items()}  # fmt: skip
        save(now, path)
        files.append(path.read_bytes())
    old, new = files
    assert len(old) == len(new)
    out = folder / f"out{suffix if command == 'prune' else '.safetensors'}"
    wanted = []
    for content in (old, new):
        path.write_bytes(content)
        code, reads, told = ended(folder, command, path, 0, None)
        assert code == 0, told
        wanted.append(values_in(out) if out.exists() else {})
    counted: collections.Counter[str] = collections.Counter()
    for name, change in CHANGES.items():
        for number in sorted({1 + (reads - 1) * step // (steps - 1) for step in range(steps)}):
            path.write_bytes(old)
            before = out.read_bytes() if out.exists() else b""
            at_once = lambda change=change: change(path, old, new)  # noqa: E731
            code, _, told = ended(folder, command, path, number, at_once)
            assert code in (0, 3), (name, number, code, told)
            assert "Traceback" not in told
            if code:
                assert "changed while it was read" in told or "changed since" in told, told
                assert (out.read_bytes() if out.exists() else b"") == before
            elif out.exists():
                _require_one_of(values_in(out), wanted, (name, number))
            counted[f"{name}: {'refused' if code else 'whole'}"] += 1
    shutil.rmtree(folder)
    print(json.dumps(counted))


def _save_safetensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path)


def _require_one_of(found: Any, wanted: list[Any], where: object) -> None:
    """Of one file or the other, to the bit."""
    same = [
        one for one in wanted
        if one.keys() == found.keys() and all(torch.equal(one[key], found[key]) for key in one)
    ]  # fmt: skip
    assert same, where


if __name__ == "__main__":
    main()
