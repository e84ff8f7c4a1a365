"""Resuming as a user meets it: real signals, real processes, a file system that is full."""

import contextlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
RESULTS = ("model.safetensors", "best.safetensors", "metrics.jsonl")
RECIPE = """
model: {{name: conv-snn, args: {{width: 2, depth: 2, time_steps: 2}}}}
data: {{name: "tensors:{images}", validation: 0.25, crop: 1}}
training: {{epochs: {epochs}, batch_size: 4, learning_rate: 0.05}}
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[int], Path]:
    """A recipe of that many epochs, of three steps each."""
    draws = torch.Generator().manual_seed(0)
    images, labels = tmp_path / "images.safetensors", torch.arange(16) % 2
    x = torch.rand(16, 1, 6, 6, generator=draws)
    test = {"x_test": x.roll(1, -1), "y_test": labels.clone()}
    save_file({"x": x, "y": labels, **test}, images)

    def write(epochs: int) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(images=images, epochs=epochs))
        return path

    return write


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def killed_at_random(recipe: Path, folder: Path, kills: int) -> None:
    script = Path(__file__).with_name("killed_at_random.py")
    done = subprocess.run(
        [sys.executable, script, "train", recipe, folder, str(kills)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(folder / "killed") == results(folder / "undisturbed")
    assert (folder / "killed" / "DONE").exists()
    assert not list((folder / "killed").rglob("*.tmp"))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_bit_identical(
    recipe: Callable[[int], Path], tmp_path: Path
) -> None:
    killed_at_random(recipe(40), tmp_path, 10)


@pytest.mark.slow
def test_killed_a_hundred_times_it_ends_bit_identical(
    recipe: Callable[[int], Path], tmp_path: Path
) -> None:
    killed_at_random(recipe(2000), tmp_path, 100)


@contextlib.contextmanager
def training(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`snnprune train` in a process of its own that has saved its first state."""
    command = [sys.executable, "-m", "snnprune", "train", *map(str, arguments)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        metrics = Path(str(arguments[arguments.index("--out") + 1])) / "metrics.jsonl"
        last = time.monotonic() + 120
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 1):
            assert time.monotonic() < last
            time.sleep(0.05)
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_signal_of_slurm_saves_the_run_and_names_the_command_that_goes_on(
    recipe: Callable[[int], Path], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "a run"
    with training("--recipe", recipe(100_000), "--out", out, "--json") as process:
        second = run("train", "--resume", "--out", out)
        process.send_signal(signal.SIGUSR1)
        printed, told = process.communicate(timeout=60)
    assert second.returncode == 5
    assert f"a run is at work here: process {process.pid} on " in second.stderr
    assert process.returncode == 143
    (last,) = [line for line in told.splitlines() if not line.startswith("epoch ")]
    assert last.startswith("stopped by SIGUSR1 in epoch ")
    command = last.partition("to go on: ")[2]
    assert shlex.split(command) == ["snnprune", "train", "--resume", "--out", str(out)]
    error = json.loads(printed)["error"]
    assert (error["code"], error["hint"]) == (143, f"to go on: {command}")
    rows = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == list(range(len(rows)))
    assert len(list((out / "state").iterdir())) == 2
    resumed = run(*shlex.split(command)[1:], "--set", "training.epochs=3")
    assert resumed.returncode == 3
    assert "training.epochs: 100000 in the run, 3 now" in resumed.stderr


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails, as on a full disk; Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_is_told_and_the_run_goes_on_later(
    recipe: Callable[[int], Path], run: Run, tmp_path: Path
) -> None:
    out, alone = tmp_path / "run", tmp_path / "alone"
    with no_file_larger_than(900):  # the recipe has 700 bytes, a state 6,000
        done = run("train", "--recipe", recipe(2), "--out", out, "-q")
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 1
    assert "step-000003.safetensors: cannot be written: File too large" in done.stderr
    assert f"free some space, then: snnprune train --resume --out {out}" in done.stderr
    assert run("train", "--resume", "--out", out, "-q").returncode == 0
    assert run("train", "--recipe", recipe(2), "--out", alone, "-q").returncode == 0
    assert results(out) == results(alone)


def test_resuming_needs_a_run_and_no_force(
    recipe: Callable[[int], Path], run: Run, tmp_path: Path
) -> None:
    nothing = run("train", "--resume", "--out", tmp_path / "nothing")
    assert nothing.returncode == 3
    assert "nothing: holds no run to resume" in nothing.stderr
    both = run("train", "--resume", "--force", "--recipe", recipe(1), "--out", tmp_path / "run")
    assert both.returncode == 2
    assert "either --resume or --force" in both.stderr
    for arguments in ((), ("--resume",), ("--out", tmp_path / "run")):
        missing = run("train", *arguments)
        assert missing.returncode == 2
        assert "--recipe: missing" in missing.stderr


def test_a_finished_run_says_so(recipe: Callable[[int], Path], run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = run("train", "--recipe", recipe(1), "--out", out, "--json")
    again = run("train", "--resume", "--out", out)
    assert again.returncode == 0
    assert again.stdout.endswith(f"{out} holds a finished run: nothing to do\n")
    as_json = run("train", "--resume", "--recipe", recipe(1), "--out", out, "--json")
    assert json.loads(as_json.stdout) == json.loads(first.stdout)
    refused = run("train", "--recipe", recipe(1), "--out", out)
    assert refused.returncode == 5
    assert "holds a finished run. --force replaces it" in refused.stderr


def test_a_resumed_run_says_where_it_goes_on(
    recipe: Callable[[int], Path], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run("train", "--recipe", recipe(2), "--out", out).returncode == 0
    (out / "DONE").unlink()
    done = run("train", "--resume", "--out", out)
    assert done.returncode == 0
    assert f"going on from {out}/state/step-000006.safetensors" in done.stderr.splitlines()


def test_a_run_of_another_torch_is_exit_code_3_until_the_change_is_allowed(
    recipe: Callable[[int], Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snnprune.jobs.train import looping
    from snnprune.training.runs.state import collect_conditions

    out = tmp_path / "run"
    command = ("train", "--recipe", recipe(2), "--out", out, "--device", "cpu")
    made = {**collect_conditions(torch.device("cpu")), "torch": "1.0"}
    with monkeypatch.context() as patch:
        patch.setattr(looping, "collect_conditions", lambda *_: made)
        assert run(*command).returncode == 0
    (out / "DONE").unlink()
    refused = run("train", "--resume", "--out", out, "--device", "cpu")
    assert refused.returncode == 3
    assert "torch: 1.0 in the run" in refused.stderr
    assert "--allow-change torch goes on all the same" in refused.stderr
    allowed = run("train", "--resume", "--out", out, "--device", "cpu", "--allow-change", "torch")
    assert allowed.returncode == 0, allowed.stderr
    assert "warning: torch: 1.0 in the run" in allowed.stderr
    wrong = run("train", "--resume", "--out", out, "--allow-change", "recipe")
    assert (wrong.returncode, "'recipe' is not one of" in wrong.stderr) == (2, True)
    assert run(*command, "--allow-change", "torch").returncode == 2
