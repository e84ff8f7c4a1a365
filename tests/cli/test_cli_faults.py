"""Bad input: one line, the right exit code, nothing written, nothing overwritten."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import load_file, save_file

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("sparsity", "words"),
    [
        ("95", "did you mean 0.95?"),
        ("1", "outside [0, 1)"),
        ("-0.1", "outside"),
        ("nan", "outside"),
    ],
)
def test_a_sparsity_outside_its_range_is_a_usage_error(
    sparsity: str, words: str, model_file: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    done = run("prune", model_file, f"--sparsity={sparsity}", "-o", out)
    assert_one_line(done, 2, "--sparsity", words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--criterion", "magnitud"], "did you mean magnitude?"),
        (["--allocation", "globl"], "did you mean global?"),
        (["--repair", "lqs"], "did you mean lsq?"),
        (["--device", "gpu9"], "no device 'gpu9' here"),
        (["--model", "res-snn"], "did you mean res-snn-19"),
        (["--model-arg", "widht=3"], "did you mean width?"),
        (["--data", "cifar"], "did you mean cifar10"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_names_on_the_command_line_are_usage_errors(
    flags: list[str], words: str, model_file: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    done = run("prune", model_file, "--sparsity", "0.5", "-o", out, *flags)
    assert_one_line(done, 2, words)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_bad_input(run: Run, tmp_path: Path) -> None:
    done = run("prune", "nope.safetensors", "--sparsity", "0.5", "-o", tmp_path / "p.safetensors")
    assert_one_line(done, 3, "nope.safetensors", "no such file")


def test_an_existing_output_is_kept_without_force(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    out.write_text("precious")
    command = ("prune", model_file, "--sparsity", "0.5", "-o", out, "--criterion", "magnitude")
    assert_one_line(run(*command), 5, "exists already", "--force")
    assert out.read_text() == "precious"
    assert run(*command, "--force").returncode == 0
    assert load_file(out)


def test_the_input_is_never_the_output_not_even_through_a_link(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    copy, link = tmp_path / "m.safetensors", tmp_path / "l.safetensors"
    copy.write_bytes(model_file.read_bytes())
    link.symlink_to(copy)
    hard = tmp_path / "h.safetensors"
    os.link(copy, hard)
    for out in (copy, link, hard):
        done = run("prune", copy, "--sparsity", "0.5", "-o", out, "--force")
        assert_one_line(done, 5, "output is the input")
    assert copy.read_bytes() == model_file.read_bytes()


def test_an_output_folder_that_is_a_file_is_refused_before_any_work(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run("prune", model_file, "--sparsity", "0.5", "-o", tmp_path / "file" / "p.safetensors")
    assert_one_line(done, 5, "is not a folder")
    assert "calibrating" not in done.stderr


def test_keys_that_do_not_fit_the_model_are_named(
    model_file: Path, run: Run, tmp_path: Path
) -> None:
    tensors = load_file(model_file)
    tensors["extra.weight"] = tensors.pop("classifier.weight")
    other = tmp_path / "other.safetensors"
    save_file(tensors, other)
    done = run("score", other, "--model", "conv-snn", "--model-arg", "width=4")
    assert_one_line(done, 3, "does not fit the model")
    flags = ("--model-arg", "width=4", "--model-arg", "depth=2", "--model-arg", "time_steps=2")
    done = run("score", other, "--model", "conv-snn", *flags)
    assert_one_line(done, 3, "1 of 14 tensors missing: classifier.weight")


def test_nan_weights_are_named(model_file: Path, run: Run, tmp_path: Path) -> None:
    tensors = load_file(model_file)
    tensors["blocks.0.conv.weight"].view(-1)[7] = float("nan")
    bad = tmp_path / "bad.safetensors"
    save_file(tensors, bad)
    done = run("prune", bad, "--sparsity", "0.5", "-o", tmp_path / "p.safetensors")
    assert_one_line(done, 3, "blocks.0.conv.weight", "7")
    assert not (tmp_path / "p.safetensors").exists()


def test_errors_are_an_object_with_json(run: Run) -> None:
    done = run("inspect", "nope.safetensors", "--json")
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert found["error"]["code"] == done.returncode == 3
    assert found["error"]["file"] == "nope.safetensors"
    assert set(found["error"]) == {"code", "file", "field", "message", "hint"}


def test_hostile_names_reach_the_terminal_escaped(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    name = "\x1b[31m[bold]red[/bold]\u202e\n::error::.weight"
    save_file({name: torch.ones(2, 2)}, path)
    done = run("inspect", path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "[bold]" in done.stdout.replace("\n", "").replace(" ", "")


def test_a_recipe_typo_is_told_with_its_line(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {name: conv-snn}\ndata: {name: cifar10}\ntraining:\n  epcohs: 3\n")
    done = run("train", "--recipe", recipe, "--out", tmp_path / "run")
    assert done.returncode == 3
    assert f"{recipe}:4: training.epcohs: unknown setting. did you mean epochs?" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_data_set_says_where_it_was_looked_for(run: Run, tmp_path: Path) -> None:
    flags = ("--data-root", tmp_path / "nowhere", "--out", tmp_path / "run")
    done = run("train", "--recipe", "cifar10", *flags)
    assert_one_line(done, 3, "cifar10", "nowhere", "--download")


def test_training_that_explodes_ends_with_its_own_code(run: Run, tmp_path: Path) -> None:
    flags = ("--set", "training.learning_rate=1e38", "--out", tmp_path / "run")
    done = run("train", "--recipe", "smoke", *flags)
    assert_one_line(done, 6, "loss is", "lower the learning rate")
    assert not (tmp_path / "run" / "DONE").exists()


def test_a_finished_run_is_not_overwritten(small: Path, run: Run) -> None:
    assert_one_line(run("train", "--recipe", "smoke", "--out", small), 5, "--force")


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_file(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    command = [sys.executable, "-m", "snnprune", "prune", str(model_file), "--sparsity", "0.5"]
    command += ["-o", str(out), "--criterion", "magnitude", "--no-eval", "--samples", "8"]
    done = subprocess.run(
        ["prlimit", "--fsize=4096", *command], capture_output=True, text=True, check=False
    )
    assert_one_line(done, 5, "cannot be written")
    assert list(tmp_path.iterdir()) == []


# as in a terminal, also where the suite runs in the background and children ignore Ctrl-C
LISTENING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("snnprune", run_name="__main__")
"""


def wait_for(metrics: Path) -> None:
    """Until the first epoch is done: then it is at work."""
    last = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.monotonic() < last
        time.sleep(0.05)


@pytest.fixture
def endless(tmp_path: Path) -> list[str]:
    """A run into `run` that is soon at work and long in coming to an end."""
    images = tmp_path / "images.safetensors"
    save_file({"x": torch.rand(16, 1, 6, 6), "y": torch.arange(16) % 2}, images)
    settings = ("training.epochs=100000", "data.validation=0.25", f"data.name=tensors:{images}")
    flags = [part for setting in settings for part in ("--set", setting)]
    return ["train", "--recipe", "smoke", *flags, "--out", str(tmp_path / "run")]


def test_ctrl_c_ends_with_130_a_word_and_no_half_file(endless: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", LISTENING, *endless]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "run" / "metrics.jsonl")
        process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted" in told
    assert "Traceback" not in told
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
def test_sigterm_ends_with_143_and_no_half_file(endless: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snnprune", *endless]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "run" / "metrics.jsonl")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_reader_that_leaves_early_sees_no_traceback(model_file: Path) -> None:
    command = f"{sys.executable} -m snnprune inspect {model_file} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def seconds_of(start: Callable[[], object]) -> float:
    """Of processor time in the processes that `start` waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.many(1)
@pytest.mark.many(2)
@pytest.mark.parametrize("arguments", [["--help"], ["prune", "--help"], ["train", "--recipe", "x"]])
def test_help_and_typos_answer_without_torch(arguments: list[str], process: Run) -> None:
    importing = [sys.executable, "-c", "import torch"]
    whole = seconds_of(lambda: subprocess.run(importing, check=True))
    assert any(seconds_of(lambda: process(*arguments)) < whole / 2 for _ in range(5))
    probe = (
        "import sys; from snnprune.cli import run_app, run_command; "
        f"run_app(run_command, {arguments!r}); print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == "False"


@pytest.mark.slow
def test_a_file_of_ten_thousand_tensors_is_shown_in_short(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    save_file({f"layer.{index}.weight": torch.ones(1, 1) for index in range(10_000)}, path)
    done = run("inspect", path)
    assert done.returncode == 0, done.stderr
    assert "9,700 more layers" in done.stdout
    assert len(done.stdout) < 40_000


def test_long_names_are_broken_at_their_dots_and_stay_within_the_width(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "long.safetensors"
    name = ".".join(["a_part_of_a_name"] * 8)
    save_file({f"{name}.weight": torch.ones(4, 4), f"{'x' * 200}.weight": torch.ones(2, 2)}, path)
    done = run("inspect", path)
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "a_part_of_a_name.a_part_of_a_name.\n" in done.stdout.replace(" ", "")
    assert "…" not in done.stdout


@pytest.mark.parametrize("arguments", [[], ["recipes"]])
def test_no_command_shows_the_help_and_no_error(arguments: list[str], run: Run) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr
    assert "error:" not in done.stderr


def test_inspect_says_why_links_are_not_known(model_file: Path, run: Run, tmp_path: Path) -> None:
    bare = tmp_path / "bare.pth"
    torch.save(load_file(model_file), bare)
    assert "links not known: the file does not say which model" in run("inspect", bare).stdout
