"""stdout is the result and nothing else, and what becomes of it where it leads nowhere."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from one_line import assert_one_line

Run = Callable[..., subprocess.CompletedProcess[str]]
TOOL = [sys.executable, "-m", "snnprune"]

NOISY = """
import atexit, os, subprocess, sys
import torch
from snnprune.models.networks import conv_snn

class Quit(BaseException): ...

def noise():
    print("noise")
    os.write(1, b"noise\\n")
    sys.__stdout__.write("noise\\n")
    sys.__stdout__.flush()
    subprocess.run(["echo", "noise"])

class Noisy(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        noise()
        atexit.register(noise)
        self.net = conv_snn(**options)
    def forward(self, x):
        noise()
        ENDING
        return self.net(x)

class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        noise()
        return torch.rand(1, 28, 28), index

def build(): return Noisy(width=4, in_channels=1, classes=10)
def batches(): return torch.utils.data.DataLoader(Pictures(), batch_size=4, num_workers=1)
"""


def evaluated(
    folder: Path, checkpoint: Path, run: Run, ending: str
) -> subprocess.CompletedProcess[str]:
    code = folder / "own.py"
    code.write_text(NOISY.replace("ENDING", ending))
    own = ("--model", f"{code}:build", "--data", f"{code}:batches")
    return run("eval", checkpoint, *own, "--json")


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the noisy network."""
    from safetensors.torch import save_file

    from snnprune.models.networks import conv_snn

    path = tmp_path_factory.mktemp("wrapped") / "m.safetensors"
    net = conv_snn(width=4, in_channels=1, classes=10)
    save_file({f"net.{name}": tensor for name, tensor in net.state_dict().items()}, path)
    return path


@pytest.mark.slow
def test_nothing_that_a_users_code_does_to_stdout_gets_into_the_result(
    wrapped: Path, process: Run, tmp_path: Path
) -> None:
    done = evaluated(tmp_path, wrapped, process, "pass")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True  # one object and nothing else
    assert "noise" not in done.stdout
    assert done.stderr.count("noise") > 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("raise Quit('bye')", "Quit: bye"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("raise SystemExit", "SystemExit"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("os._exit(0)", "os._exit(0)"),
    ],
)
def test_code_that_ends_the_program_in_any_way_that_python_has_is_told_as_the_users(
    ending: str, words: str, wrapped: Path, process: Run, tmp_path: Path
) -> None:
    done = evaluated(tmp_path, wrapped, process, ending)
    assert_one_line(done, 3, words)
    error = json.loads(done.stdout)["error"]
    assert words in error["message"]


def test_the_line_of_code_that_ended_the_program_is_named(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    code = tmp_path / "own.py"
    code.write_text("class Quit(BaseException): ...\n\ndef build():\n    raise Quit('bye')\n")
    done = run("inspect", model_file, "--model", f"{code}:build")
    assert_one_line(done, 3, f"{code}:4", "Quit: bye", "-v shows its traceback")


WORDS = (["recipes", "ls"], ["recipes", "show", "smoke"], ["--help"], ["prune", "--help"])
ENDS = (*WORDS, ["--version"], ["env"], ["env", "--json"])


@pytest.mark.many(2)
@pytest.mark.parametrize("arguments", ENDS, ids=" ".join)
def test_a_result_for_which_there_is_no_room_is_one_line_and_exit_code_5(
    arguments: list[str],
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*TOOL, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "error: stdout: cannot be written: No space left on device\n"
    assert done.returncode == 5


def test_an_error_keeps_its_code_where_its_json_has_no_room() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*TOOL, "inspect", "nothing.pth", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert_one_line(done, 3, "nothing.pth")


@pytest.mark.many(2)
@pytest.mark.parametrize("arguments", ENDS, ids=" ".join)
def test_a_reader_that_left_before_the_first_line_is_no_fault(arguments: list[str]) -> None:
    gone, stdout = os.pipe()
    os.close(gone)
    done = subprocess.run(
        [*TOOL, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(stdout)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(("closed", "code"), [("env >&-", 0), ("env 2>&-", 0), ("nox 2>&-", 2)])
def test_a_closed_stdout_or_stderr_is_no_fault(closed: str, code: int) -> None:
    command = ["sh", "-c", f"{sys.executable} -m snnprune {closed}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")


def test_an_error_that_cannot_be_told_keeps_its_code() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*TOOL, "inspect", "nothing.pth"], stderr=full, check=False)
    assert done.returncode == 3


@pytest.mark.slow
def test_a_character_that_stdout_has_no_code_for_is_an_escape(
    model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "größe.safetensors"
    done = subprocess.run(
        [*TOOL, "prune", model_file, "--sparsity", "0.5", "--no-eval", "-o", out],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert r"gr\xf6\xdfe.safetensors" in done.stdout
