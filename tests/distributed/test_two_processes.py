"""Two processes of torchrun, talking by gloo: what `two_processes.py` checks, and how they end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from two_processes import CHECKS, COMMANDS

HERE = Path(__file__).parent
Run = Callable[..., subprocess.CompletedProcess[str]]

FAILING_LOADER = """
import os
import torch

def batches():
    for number in range(4):
        if os.environ["RANK"] == "1" and number == 3:
            raise OSError("the disk is gone")
        yield torch.rand(8, 1, 28, 28), torch.zeros(8, dtype=torch.int64)
"""


def torchrun(*words: object, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*command, "--nproc-per-node", "2", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"},
    )


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """What it printed on stdout and stderr; it must end by itself."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # torchrun ends its processes
        raise


@pytest.fixture(scope="session")
def told(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes told, started once for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "two"
    known = folder / "told.json"
    with FileLock(f"{folder}.lock"):
        if not known.exists():
            folder.mkdir()
            results = folder / "results.json"
            process = torchrun(HERE / "two_processes.py", model_file, results, folder=folder)
            out, err = ended(process, 240)
            assert process.returncode == 0, err
            found = json.loads(results.read_text("utf-8"))
            known.write_text(
                json.dumps({**found, "model": str(model_file), "printed": out + err}), "utf-8"
            )
    return {**json.loads(known.read_text("utf-8")), "folder": folder}


@pytest.mark.parametrize("name", CHECKS)
def test_two_processes_agree_that(name: str, told: dict[str, Any]) -> None:
    assert told["checks"][name] == ""


def test_nothing_is_printed_beside_the_results(told: dict[str, Any]) -> None:
    assert told["printed"] == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_once_and_what_one_process_prints(
    command: str, told: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    first, second = (said[command] for said in told["commands"])
    assert second == {"code": 0, "out": "", "err": ""}
    out = ["-o", tmp_path / "one.safetensors"] if command == "calibrate" else []
    alone = run(command, told["model"], "--json", "--samples", 300, *out)
    found, expected = json.loads(first["out"]), json.loads(alone.stdout)
    if command == "calibrate":
        assert found.pop("outputs") != expected.pop("outputs")  # other names and last digits
    else:
        losses = [report["evaluation"].pop("loss") for report in (found, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert found == expected


def test_a_calibration_file_of_two_is_that_of_one(
    told: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "one.safetensors"
    run("calibrate", told["model"], "--samples", 300, "-o", out)
    found, expected = load_file(told["folder"] / "two.safetensors"), load_file(out)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_one_that_fails_ends_all_and_says_why(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text(FAILING_LOADER)
    words = ["-m", "snnprune", "eval", model_file, "--data", "loader.py:batches"]
    process = torchrun(*words, folder=tmp_path)
    out, err = ended(process, 120)
    assert process.returncode != 0
    assert out == ""
    told = [line for line in err.splitlines() if line.startswith("error:")]
    reason = "--data: loader.py:batches raised OSError: the disk is gone"
    assert told == [f"error: {reason}. -v shows its traceback"]
    assert "exitcode  : 3" in err.partition("Root Cause")[2]


@pytest.mark.slow
def test_a_fault_that_all_meet_is_told_once(tmp_path: Path) -> None:
    process = torchrun("-m", "snnprune", "eval", "none.safetensors", folder=tmp_path)
    _, err = ended(process, 120)
    assert err.count("no such file") == 1
    assert "exitcode  : 3" in err.partition("Root Cause")[2]
