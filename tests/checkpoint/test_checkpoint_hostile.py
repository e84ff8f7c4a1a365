"""Torch files of attackers: refused in a line or read past, at once and in little memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from corpus.hostile_files import everything
from pace import pace

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.torch.instructions import INSTRUCTIONS
from snnprune.checkpoint.torch.machine import Machine, Meaning
from snnprune.errors import InputError

WANTED = {name: wanted for name, _, wanted in everything()}
SECONDS, BYTES = 1.0, 100 * 2**20

Came = dict[str, tuple[str, float, int]]


@pytest.fixture(scope="module")
def came(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Came:
    """What came of each file that is asked for, read in a process of its own."""
    folder = tmp_path_factory.mktemp("hostile")
    tests = str(Path(__file__).parents[1])
    path = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *filter(None, sys.path)])}
    here = [item for item in request.session.items if item.path == Path(__file__)]
    calls = [
        item.callspec.params
        for item in here
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    ]
    names = [str(params["name"]) for params in calls if "name" in params]
    command = [sys.executable, "-m", "corpus.hostile_files", str(folder), *names]
    done = subprocess.run(
        command, cwd=folder, env=path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "hostile").exists()  # what their code would have made
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (what, seconds, memory) for name, what, seconds, memory in rows}


@pytest.mark.many(2)
@pytest.mark.parametrize("name", WANTED)
def test_a_hostile_file_is_read_past_or_refused(came: Came, name: str) -> None:
    what, seconds, memory = came[name]
    if WANTED[name] == "read":
        assert what.startswith(("read ['w'", "read ['fc.weight'"))
    else:
        assert what.startswith("refused ")
        assert "\n" not in what
    assert seconds < SECONDS * 3 * pace()
    assert memory < BYTES


def test_a_tuple_is_counted_with_the_bytes_that_python_takes_for_it() -> None:
    meaning = Meaning(called=lambda *_: None, persistent=lambda _: None)
    machine = Machine(b"(" + b"N" * 1000 + b"t.", meaning, INSTRUCTIONS)
    before = machine.left
    held = machine.run()
    assert held == (None,) * 1000
    assert sys.getsizeof(held) <= before - machine.left <= 2 * sys.getsizeof(held)


def bent(data: bytes, drawn: random.Random) -> bytes:
    """The same file with bytes changed, cut out, or put in."""
    found = bytearray(data)
    for _ in range(drawn.choice((1, 1, 2, 5, 20))):
        place = drawn.randrange(len(found))
        match drawn.randrange(4):
            case 0:
                found[place] = drawn.randrange(256)
            case 1:
                del found[place : place + drawn.choice((1, 4, 50))]
            case 2:
                found[place:place] = bytes(
                    drawn.randrange(256) for _ in range(drawn.choice((1, 4)))
                )
            case _:
                found[place] ^= 1 << drawn.randrange(8)
        if not found:
            return b""
    return bytes(found)


def bend(count: int, folder: Path, seed: int) -> None:
    drawn = random.Random(seed)
    state = {"a.weight": torch.rand(3, 4), "b.weight": torch.rand(2, 3), "n": torch.tensor(3)}
    files = []
    for zipped in (True, False):
        path = folder / "good.pth"
        torch.save(
            {"model": state, "epoch": 3, "args": {"lr": [0.1, None, "x"]}},
            path,
            _use_new_zipfile_serialization=zipped,
        )
        files.append(path.read_bytes())
    path = folder / "bent.pth"
    for number in range(count):
        path.write_bytes(bent(files[number % 2], drawn))
        try:
            tensors = read_checkpoint(path, allow_nonfinite=True).tensors
        except InputError as error:
            lines = str(error).count("\n")
        else:
            lines = sum(tensor.numel() >= 1000 for tensor in tensors.values())
        assert lines == 0


def test_bent_files_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    bend(400, tmp_path, seed=0)


@pytest.mark.slow
def test_many_bent_files_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    bend(50_000, tmp_path, seed=1)
