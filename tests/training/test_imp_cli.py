"""`snnprune imp` as a user meets it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import write_images

Run = Callable[..., subprocess.CompletedProcess[str]]
KILLER = Path(__file__).parent.parent / "training" / "killed_at_random.py"
RECIPE = """\
model: {{name: conv-snn, args: {{width: 2, depth: 2, time_steps: 2}}}}
data: {{name: "tensors:{images}", validation: 0.25, crop: 1}}
training: {{epochs: 2, batch_size: 4, learning_rate: 0.1}}
imp:
  methods: [imp, sf-imp-2]
  sparsities: {sparsities}
  rewind_epoch: {rewind_epoch}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """`recipe(rewind_epoch=2)` writes one with that setting."""
    images = write_images(tmp_path / "images.safetensors")

    def write(**settings: Any) -> Path:
        path = tmp_path / "recipe.yaml"
        given = {"sparsities": [0.5, 0.8], "rewind_epoch": 1, **settings}
        path.write_text(RECIPE.format(images=images, **given))
        return path

    return write


def results(folder: Path) -> dict[str, bytes]:
    """Models, masks and metrics."""
    paths = [*folder.rglob("round-*/*.safetensors"), *folder.rglob("metrics.jsonl")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def killed(recipe: Path, folder: Path, kills: int) -> None:
    done = subprocess.run(
        [sys.executable, KILLER, "imp", recipe, folder, str(kills)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = results(folder / "undisturbed")
    assert len(expected) > 5
    assert results(folder / "killed") == expected
    assert (folder / "killed" / "DONE").exists()
    assert not list((folder / "killed").rglob("*.tmp"))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_bit_identical(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    killed(recipe(), tmp_path, 10)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_bit_identical(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    sparsities = [round(0.02 * step, 2) for step in range(1, 49)]
    killed(recipe(sparsities=sparsities), tmp_path, 40)


@pytest.fixture
def without_pictures_of_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs."""
    monkeypatch.setattr("snnprune.jobs.train.train.draw_run", lambda *_: [])


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures_of_seeds")
def test_several_seeds_have_a_folder_each_and_what_they_come_to_lies_above(
    recipe: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run("imp", "--recipe", recipe(), "--seeds", "0,1", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((out / "report.json").read_text())
    assert report["seeds"] == [0, 1]
    rounds = [(method, number) for method in ("imp", "sf-imp-2") for number in (1, 2)]
    kept = {f"{method}/round-{number:02}" for method, number in rounds} | {"round-00"}
    for seed in (0, 1):
        folder = out / f"seed-{seed}"
        assert {str(path.relative_to(folder)) for path in folder.rglob("round-*")} == kept
        tickets = json.loads((folder / "report.json").read_text())["tickets"]
        assert [(row["method"], row["round"]) for row in tickets] == [("dense", 0), *rounds]
    for name in ("accuracy.png", "table.md", "DONE"):
        assert (out / name).exists()
    check = ["sha256sum", "-c", "--strict", "SHA256SUMS"]
    for folder in (out, out / "seed-0", out / "seed-1"):
        subprocess.run(check, cwd=folder, capture_output=True, check=True)
    listed = (out / "SHA256SUMS").read_text()
    assert {"seed-0/SHA256SUMS", "seed-1/SHA256SUMS", "report.json"} <= set(listed.split())


@pytest.fixture
def without_pictures(without_pictures_of_seeds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor those of all together."""
    monkeypatch.setattr("snnprune.jobs.train.sweeps.draw_run", lambda *_: [])


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_sweep_takes_another_seed_and_leaves_those_that_are_there(
    recipe: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked = ("imp", "--recipe", recipe(), "--out", out)
    first = run(*asked, "--seeds", "3,4")
    assert first.returncode == 0, first.stderr
    before = results(out)
    times = {name: (out / name).stat().st_mtime_ns for name in before}
    more = run(*asked, "--seeds", "3,4,5", "--resume", "--json")
    assert more.returncode == 0, more.stderr
    assert json.loads(more.stdout)["seeds"] == [3, 4, 5]
    after = results(out)
    assert {name: after[name] for name in before} == before
    assert {name: (out / name).stat().st_mtime_ns for name in before} == times
    alone = tmp_path / "alone"
    assert run(*asked[:-1], alone, "--seed", "5").returncode == 0
    assert {name: after[f"seed-5/{name}"] for name in results(alone)} == results(alone)


def test_a_rewind_epoch_beyond_the_training_is_told_with_its_line(
    recipe: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    path, out = recipe(rewind_epoch=2), tmp_path / "run"
    done = run("imp", "--recipe", path, "--out", out)
    assert done.returncode == 3
    assert f"{path}:7: imp.rewind_epoch: 2 should be less than training.epochs" in done.stderr
    by_flag = run("imp", "--recipe", recipe(), "--out", out, "--set", "imp.rewind_epoch=2")
    assert by_flag.returncode == 2
    assert "imp.rewind_epoch: 2 should be less than training.epochs" in by_flag.stderr
    assert not out.exists()
    # what only imp does is no fault of train
    assert run("train", "--recipe", path, "--dry-run", "--out", out).returncode == 0


@pytest.mark.parametrize("setting", ["imp.methods=[magnitud]", "imp.allocation=globl"])
def test_a_name_that_does_not_exist_is_told_at_once(
    setting: str, recipe: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    done = run("imp", "--recipe", recipe(), "--out", tmp_path / "run", "--set", setting)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert setting.partition("=")[0] in done.stderr
    assert "did you mean" in done.stderr
    assert not (tmp_path / "run").exists()
