"""Two processes of torchrun that are killed, stopped or hang, and runs that go on after it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from launched import LIMIT, Launched, alive, metrics, results, sums_hold
from pace import pace
from safetensors.torch import save_file

Run = Callable[..., subprocess.CompletedProcess[str]]
HERE = Path(__file__).parent
RECIPE = """\
model: {{name: conv-snn, args: {{width: 2, depth: 2, time_steps: 2}}}}
data: {{name: "tensors:{images}", validation: 0.25, crop: 1}}
training: {{epochs: {epochs}, batch_size: 4, learning_rate: 0.1}}
imp: {{methods: [sf-imp-2], sparsities: [0.5, 0.8], rewind_epoch: 1}}
"""
WITH_A_SHORT_PATIENCE = """
import sys
from datetime import timedelta

from snnprune.cli import main
from snnprune.distributed import ranks

ranks.TIMEOUT = timedelta(seconds=float(sys.argv[1]))
main(sys.argv[2:])
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[int], Path]:
    """`recipe(epochs)`: one for 12 images of 6 x 6, three steps an epoch."""
    import torch

    draws, labels = torch.Generator().manual_seed(0), torch.arange(16) % 2
    x = torch.rand(16, 1, 6, 6, generator=draws) + labels.view(-1, 1, 1, 1)
    images = tmp_path / "images.safetensors"
    save_file({"x": x, "y": labels, "x_test": x.roll(1, -1), "y_test": labels.clone()}, images)

    def written(epochs: int) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(images=images, epochs=epochs))
        return path

    return written


def killed(recipe: Path, folder: Path, kills: int) -> dict[str, int]:
    """What `killed_together.py` counted."""
    search = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, HERE / "killed_together.py", recipe, folder, str(kills), "17"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counted


@pytest.mark.slow
def test_imp_of_two_processes_killed_in_four_ways_ends_bit_identical(
    recipe: Callable[[int], Path], tmp_path: Path
) -> None:
    counted = killed(recipe(8), tmp_path, 4)
    compared, too_late = counted.pop("runs compared"), counted.pop("too late")
    assert sum(counted.values()) == 4
    assert compared >= 1
    assert too_late >= 0
    assert {stage.partition(",")[0] for stage in counted} == {
        *("the first rank", "the second rank", "both ranks", "the launcher")
    }


@pytest.mark.faults
def test_imp_of_two_processes_killed_fifty_times_ends_bit_identical(
    recipe: Callable[[int], Path], tmp_path: Path
) -> None:
    counted = killed(recipe(12), tmp_path, 50)
    assert sum(counted.values()) - counted["runs compared"] - counted["too late"] == 50


def until_an_epoch(run: Launched) -> None:
    run.wait_until_at_work()
    deadline = time.monotonic() + LIMIT * pace()
    while not metrics(run.out):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_of_two_processes_is_not_taken_up_by_one_unless_that_is_allowed(
    recipe: Callable[[int], Path],
    tmp_path: Path,
    process: Run,
) -> None:
    run = Launched(recipe(40), tmp_path / "run")
    until_an_epoch(run)
    os.kill(run.process.pid, signal.SIGKILL)
    run.require_nobody_left()
    before = results(tmp_path / "run", whole=False)
    alone = ("imp", "--resume", "--out", tmp_path / "run", "--device", "cpu", "-q")
    refused = process(*alone)
    assert refused.returncode == 3
    [line] = refused.stderr.splitlines()
    assert "processes: 2 in the run, 1 now" in line
    assert line.endswith("--allow-change processes goes on all the same")
    assert results(tmp_path / "run", whole=False) == before
    allowed = process(*alone, "--allow-change", "processes")
    assert allowed.returncode == 0, allowed.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert any(line.startswith("processes: 2 in the run, 1 now") for line in report["warnings"])
    assert sums_hold(tmp_path / "run")


@pytest.mark.slow
def test_ranks_whose_launcher_is_killed_save_their_state_and_say_how_to_go_on(
    recipe: Callable[[int], Path], tmp_path: Path
) -> None:
    run = Launched(recipe(400), tmp_path / "run")
    until_an_epoch(run)
    os.kill(run.process.pid, signal.SIGKILL)
    run.require_nobody_left()
    [line] = run.told.read_text().splitlines()
    assert line.startswith("the launcher is gone: stopped in dense, epoch ")
    assert ". to go on: snnprune imp --resume --out " in line


class ByHand:
    """Two ranks that no launcher looks after, of `eval` or of a run."""

    def __init__(self, patience: float, *words: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        about = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        command = [sys.executable, "-c", WITH_A_SHORT_PATIENCE, str(patience), *map(str, words)]
        self.ranks = [
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    **about,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "OMP_NUM_THREADS": "1",
                },
            )
            for rank in (0, 1)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_whose_peer_dies_or_hangs_ends_by_itself_and_says_so(
    victim: int, sent: signal.Signals, recipe: Callable[[int], Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ("--recipe", recipe(4000), "--out", out, "--device", "cpu", "-q")
    ranks = ByHand(10 * pace(), "train", *words).ranks
    try:
        deadline = time.monotonic() + LIMIT * pace()
        while not list(out.glob("state/step-*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ranks[victim].send_signal(sent)
        other = ranks[1 - victim]
        _, told = other.communicate(timeout=LIMIT * pace())
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
    assert other.returncode == 143
    [line] = [line for line in told.splitlines() if line.startswith("error: ")]
    assert "another process ended or gives no answer" in line
    assert "Traceback" not in told
    assert list((out / "state").glob("step-*"))
    assert not any(alive(rank.pid) for rank in ranks)
