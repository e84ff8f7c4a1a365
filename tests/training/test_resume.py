"""A run that was stopped and taken up again is, to the bit, one that was left alone."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from snnprune.errors import InputError, NonFiniteError, OutputError, StoppedError
from snnprune.jobs.train import looping
from snnprune.jobs.train.looping import LoopRun
from snnprune.jobs.train.options import AllowedChange, LoopOptions
from snnprune.jobs.train.train import train_recipe
from snnprune.measure.evaluation import evaluate
from snnprune.recipe.schema import Recipe
from snnprune.runtime import LIF_VARIABLE, SILENT
from snnprune.training.runs import StopSignal
from snnprune.training.runs.state import (
    check_differences,
    collect_conditions,
    read_state,
    write_state,
)
from snnprune.training.step import Trainer

EPOCHS, STEPS = 2, 3  # per epoch
RESULTS = ("model.safetensors", "best.safetensors", "metrics.jsonl", "recipe.yaml")

SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"clip_norm": 1.0},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "one-cycle"},
    "bf16": {"precision": "bf16", "momentum": 0.0, "warmup_epochs": 1},
}

MODEL = """
from torch import nn
from snnprune.models.networks import conv_snn

class Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.body = conv_snn(in_channels=1, size=6, classes=2, width=2, depth=2, time_steps=2)

    def forward(self, x):
        return self.body(self.dropout(x))

def build():
    return Dropped()
"""


class After(StopSignal):
    """A stop that is asked for while batch number `after`, from 1, is trained on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def __bool__(self) -> bool:
        return Counted.batches >= self.after


class Counted:
    """Batches since the test began."""

    batches = 0


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    train_on = Trainer.train_on

    def counting(self: Trainer, *batch: Any) -> tuple[float, int]:
        done = train_on(self, *batch)
        Counted.batches += 1
        return done

    monkeypatch.setattr(Trainer, "train_on", counting)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 noisy images of two classes: 12 to train on, 4 to validate."""
    path = tmp_path_factory.mktemp("images") / "images.safetensors"
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 2
    x = torch.rand(16, 1, 6, 6, generator=draws) + labels.view(-1, 1, 1, 1)
    test = {"x_test": x.roll(1, -1), "y_test": labels.clone()}
    save_file({"x": x, "y": labels, **test}, path)
    return path


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of a run that nobody disturbed."""
    asked = options(images, tmp_path_factory.mktemp("undisturbed") / "run")
    run(asked)
    return results(asked.out)


def options(images: Path, out: Path, **training: Any) -> LoopOptions:
    recipe = Recipe.model_validate(
        {
            "model": {"name": "conv-snn", "args": {"width": 2, "depth": 2, "time_steps": 2}},
            "data": {"name": f"tensors:{images}", "validation": 0.25, "crop": 1, "flip": True},
            "training": {"epochs": EPOCHS, "batch_size": 4, "learning_rate": 0.1, **training},
        }
    )
    return LoopOptions(recipe=recipe, out=out, device="cpu")


def run(asked: LoopOptions) -> LoopRun:
    return train_recipe(asked, SILENT)


def resumed(asked: LoopOptions) -> LoopRun:
    return run(replace(asked, resume=True))


def stop_after(asked: LoopOptions, batches: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run until that many batches are done; what is told then."""

    Counted.batches = 0
    with monkeypatch.context() as patch:
        patch.setattr(looping, "catch_signals", lambda: contextlib.nullcontext(After(batches)))
        with pytest.raises(StoppedError) as caught:
            run(asked)
    return str(caught.value)


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.many(2)
@pytest.mark.parametrize("settings", SETTINGS)
def test_stopped_at_any_step_it_ends_bit_identical(
    settings: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = options(images, tmp_path / "undisturbed", **SETTINGS[settings])
    run(undisturbed)
    expected = results(undisturbed.out)
    for batches in range(1, EPOCHS * STEPS + 1):
        stopped = replace(undisturbed, out=tmp_path / f"stopped-{batches}")
        told = stop_after(stopped, batches, monkeypatch)
        epoch, step = divmod(batches - 1, STEPS)
        assert f"in epoch {epoch + 1} after step {step + 1} of {STEPS}" in told
        assert not (stopped.out / "DONE").exists()
        resumed(stopped)
        assert results(stopped.out) == expected
        assert names_in(stopped.out) == names_in(undisturbed.out)


def test_stopped_after_every_single_step_it_ends_bit_identical(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = options(images, tmp_path / "undisturbed")
    run(undisturbed)
    asked = replace(undisturbed, out=tmp_path / "stopped")
    for _ in range(EPOCHS * STEPS):
        stop_after(asked, 1, monkeypatch)
        asked = replace(asked, resume=True)
    assert resumed(asked).report["test"] == run(replace(undisturbed, force=True)).report["test"]
    assert results(asked.out) == results(undisturbed.out)


class WhileEvaluating(StopSignal):
    """A stop that is asked for in the evaluation number `number`, from 1."""

    def __init__(self, number: int, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.left = number

        def counting(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            return evaluate(*arguments, **named)

        patch.setattr("snnprune.training.setup.evaluate", counting)

    def __bool__(self) -> bool:
        return self.left <= 0


def test_stopped_while_it_validates_it_ends_after_the_epoch(
    images: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(images, tmp_path / "run")
    with monkeypatch.context() as patch:
        stop = WhileEvaluating(1, patch)
        patch.setattr(looping, "catch_signals", lambda: contextlib.nullcontext(stop))
        with pytest.raises(StoppedError, match=f"in epoch 1 after step {STEPS} of {STEPS}"):
            run(asked)
    assert len((asked.out / "metrics.jsonl").read_text().splitlines()) == 1
    assert names_in(asked.out / "state") == {f"step-{STEPS:06}.safetensors"}
    resumed(asked)
    assert results(asked.out) == expected


@pytest.mark.parametrize("number", [EPOCHS, EPOCHS + 1])
def test_a_run_that_has_done_its_last_step_is_finished_all_the_same(
    number: int,
    images: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = options(images, tmp_path / "run")
    stop = WhileEvaluating(number, monkeypatch)
    monkeypatch.setattr(looping, "catch_signals", lambda: contextlib.nullcontext(stop))
    run(asked)
    assert results(asked.out) == expected


def test_a_network_that_draws_by_itself_draws_the_same_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dropped.py").write_text(MODEL)
    plain = options(images, tmp_path / "undisturbed")
    model = plain.recipe.model.model_copy(
        update={"name": f"{tmp_path}/dropped.py:build", "args": {}}
    )
    asked = replace(plain, recipe=plain.recipe.model_copy(update={"model": model}))
    torch.manual_seed(1)
    run(asked)
    stopped = replace(asked, out=tmp_path / "stopped")
    torch.manual_seed(2)
    stop_after(stopped, 2, monkeypatch)
    resumed(stopped)
    assert results(stopped.out) == results(asked.out)


def test_the_report_of_a_resumed_run_tells_of_all_epochs(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, stopped = (options(images, tmp_path / name) for name in ("alone", "stopped"))
    expected = run(alone).report
    stop_after(stopped, STEPS + 1, monkeypatch)
    found = resumed(stopped).report
    assert found["epochs"] == expected["epochs"]
    assert found["best"] == expected["best"]
    assert found["test"] == expected["test"]
    assert found["warnings"] == []
    best = max(found["epochs"], key=lambda epoch: epoch["validation_accuracy"])
    assert found["best"] == best


def test_tensorboard_shows_every_epoch_once_after_a_resume(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = options(images, tmp_path / "run")
    output = plain.recipe.output.model_copy(update={"tensorboard": True})
    asked = replace(plain, recipe=plain.recipe.model_copy(update={"output": output}))
    stop_after(asked, STEPS + 1, monkeypatch)
    rows = [row for row in map(json.loads, resumed_lines(asked)) if row["kind"] == "epoch"]
    accumulator = EventAccumulator(str(asked.out / "tensorboard"))
    accumulator.Reload()
    shown = [(event.step, event.value) for event in accumulator.Scalars("train_loss")]
    assert shown == [
        (number, pytest.approx(row["train_loss"])) for number, row in enumerate(rows, start=1)
    ]
    assert len(shown) == EPOCHS


def resumed_lines(asked: LoopOptions) -> list[str]:
    resumed(asked)
    return (asked.out / "metrics.jsonl").read_text().splitlines()


def test_a_run_that_died_in_its_first_epoch_begins_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(images, tmp_path / "run")
    stop_after(asked, 1, monkeypatch)
    shutil.rmtree(asked.out / "state")
    (asked.out / "metrics.jsonl").write_text('{"epoch": 0}\n')
    resumed(asked)
    run(replace(asked, out=tmp_path / "alone"))
    assert results(asked.out) == results(tmp_path / "alone")


def test_a_damaged_newest_state_costs_one_epoch_and_a_warning(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(images, tmp_path / "run")
    stop_after(asked, STEPS + 2, monkeypatch)
    newest = asked.out / "state" / f"step-{STEPS + 2:06}.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    found = resumed(asked).report
    run(replace(asked, out=tmp_path / "alone"))
    assert results(asked.out) == results(tmp_path / "alone")
    assert len(found["warnings"]) == 1
    assert f"{newest}: does not fit its hash" in found["warnings"][0]


def test_when_no_state_is_whole_the_run_is_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(images, tmp_path / "run")
    stop_after(asked, STEPS + 2, monkeypatch)
    for path in (asked.out / "state").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"no state is whole"):
        resumed(asked)
    run(replace(asked, force=True))
    assert (asked.out / "DONE").exists()


@pytest.fixture
def of_an_abacus(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopOptions:
    asked = options(images, tmp_path / "run")
    made = {"snnprune": "0.0", "torch": "1.0", "device": "abacus", "processes": "3"}
    with monkeypatch.context() as patch:
        patch.setattr(looping, "collect_conditions", lambda *_: made)
        stop_after(asked, 1, monkeypatch)
    return asked


def test_another_torch_or_machine_is_refused_with_every_difference_and_the_way_to_go_on(
    of_an_abacus: LoopOptions,
) -> None:
    before = contents(of_an_abacus.out)
    with pytest.raises(InputError) as caught:
        resumed(replace(of_an_abacus, allowed=("torch",)))
    told = str(caught.value)
    assert "snnprune: 0.0 in the run, " in told
    assert "device: abacus in the run, " in told
    assert "processes: 3 in the run, 1 now" in told
    assert "--allow-change snnprune --allow-change device --allow-change processes" in told
    assert "torch" not in told.replace(str(of_an_abacus.out), "")
    assert contents(of_an_abacus.out) == before


def test_another_number_of_threads_is_no_other_device(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(images, tmp_path / "run")
    made = {**collect_conditions(torch.device("cpu")), "device": "cpu (99 threads)"}
    with monkeypatch.context() as patch:
        patch.setattr(looping, "collect_conditions", lambda *_: made)
        stop_after(asked, 1, monkeypatch)
    [warning] = resumed(asked).report["warnings"]
    assert warning.startswith("device: cpu (99 threads) in the run, cpu (")


def test_what_may_be_changed_is_what_a_run_says_that_it_is_made_with() -> None:
    assert {str(change) for change in AllowedChange} == set(collect_conditions(torch.device("cpu")))


def test_another_torch_or_machine_that_is_allowed_is_told_and_remembered(
    of_an_abacus: LoopOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = tuple(AllowedChange)
    stop_after(replace(of_an_abacus, resume=True, allowed=changes), 1, monkeypatch)
    warnings = resumed(of_an_abacus).report["warnings"]
    assert [warning.partition(" in the run, ")[0] for warning in warnings] == [
        "snnprune: 0.0",
        "torch: 1.0",
        "device: abacus",
        "processes: 3",
    ]
    assert f"{version('torch')} now" in warnings[1]


@pytest.fixture
def unfinished(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopOptions:
    asked = options(images, tmp_path / "run")
    stop_after(asked, STEPS + 1, monkeypatch)
    return asked


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "run.lock"
    }


def test_a_changed_recipe_is_refused_with_every_difference(unfinished: LoopOptions) -> None:
    before = contents(unfinished.out)
    training = unfinished.recipe.training.model_copy(update={"learning_rate": 0.2, "epochs": 5})
    model = unfinished.recipe.model.model_copy(update={"args": {"width": 3}})
    changes = {"training": training, "model": model, "seed": 4}
    changed = replace(unfinished, recipe=unfinished.recipe.model_copy(update=changes))
    with pytest.raises(InputError) as caught:
        resumed(changed)
    told = str(caught.value)
    for difference in (
        "training.learning_rate: 0.1 in the run, 0.2 now",
        "training.epochs: 2 in the run, 5 now",
        "model.args.width: 2 in the run, 3 now",
        "model.args.depth: 2 in the run, not set now",
        "seed: 0 in the run, 4 now",
    ):
        assert difference in told
    assert "batch_size" not in told
    assert contents(unfinished.out) == before


def test_an_unfinished_run_is_not_overwritten(unfinished: LoopOptions) -> None:
    before = contents(unfinished.out)
    with pytest.raises(OutputError, match=r"--resume continues it, --force replaces it"):
        run(unfinished)
    assert contents(unfinished.out) == before


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"warnings": "none"}, "its warnings are not lines of text"),
        ({"warnings": ["one", 2]}, "its warnings are not lines of text"),
        ({"rows": -1}, "rows cannot be -1"),
        ({"rows": 2}, "has 1 whole lines, 2 were written"),
        ({"more": 0}, "does not say loop, rows, made_with, warnings alone"),
    ],
)
def test_a_state_that_says_what_cannot_be_of_its_run_is_refused(
    said: dict[str, Any], why: str, unfinished: LoopOptions
) -> None:
    newest = unfinished.out / "state" / f"step-{STEPS + 1:06}.safetensors"
    state = read_state(newest)
    write_state(newest, replace(state, position={**state.position, **said}))
    with pytest.raises(InputError, match=why):
        resumed(unfinished)


def test_force_begins_anew(unfinished: LoopOptions, tmp_path: Path) -> None:
    (unfinished.out / "notes.txt").write_text("mine")
    shorter = unfinished.recipe.training.model_copy(update={"epochs": 1})
    recipe = unfinished.recipe.model_copy(update={"training": shorter})
    alone = replace(unfinished, recipe=recipe, out=tmp_path / "alone")
    run(alone)
    run(replace(alone, out=unfinished.out, force=True))
    assert results(unfinished.out) == results(alone.out)
    assert names_in(unfinished.out / "state") == names_in(alone.out / "state")
    assert (unfinished.out / "notes.txt").read_text() == "mine"


def test_a_finished_run_is_left_as_it_is(unfinished: LoopOptions) -> None:
    first = resumed(unfinished)
    before = contents(unfinished.out)
    again = resumed(unfinished)
    assert again.finished_before
    assert again.report == json.loads(json.dumps(first.report))
    assert contents(unfinished.out) == before


def test_a_finished_run_of_another_recipe_is_refused(unfinished: LoopOptions) -> None:
    resumed(unfinished)
    more = unfinished.recipe.training.model_copy(update={"epochs": 5})
    longer = unfinished.recipe.model_copy(update={"training": more})
    with pytest.raises(InputError, match=r"training\.epochs: 2 in the run, 5 now"):
        resumed(replace(unfinished, recipe=longer))


@pytest.mark.parametrize("made", [False, True])
def test_without_a_run_there_is_nothing_to_resume(made: bool, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    if made:
        out.mkdir()
    with pytest.raises(InputError, match=r"holds no run to resume\. without --resume"):
        resumed(options(images, out))
    assert out.exists() == made


def test_a_run_that_could_not_begin_leaves_no_folder(images: Path, tmp_path: Path) -> None:
    asked = options(images, tmp_path / "run")
    model = asked.recipe.model.model_copy(update={"args": {"widht": 2}})
    with pytest.raises(InputError, match="has no argument 'widht'"):
        run(replace(asked, recipe=asked.recipe.model_copy(update={"model": model})))
    assert not asked.out.exists()


def test_a_killed_save_leaves_nothing_behind(unfinished: LoopOptions) -> None:
    for folder in (unfinished.out, unfinished.out / "state"):
        (folder / ".snnprune-abc.tmp").write_bytes(b"half")
    resumed(unfinished)
    assert not list(unfinished.out.rglob("*.tmp"))


def test_a_loss_that_is_not_finite_keeps_and_names_the_last_good_state(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(images, tmp_path / "run")
    train_on = Trainer.train_on
    Counted.batches = 0

    def spoilt(self: Trainer, x: torch.Tensor, y: torch.Tensor) -> tuple[float, int]:
        return train_on(self, x * torch.nan if Counted.batches == STEPS + 1 else x, y)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_on", spoilt)
        with pytest.raises(NonFiniteError) as caught:
            run(asked)
    state = asked.out / "state" / f"step-{STEPS:06}.safetensors"
    assert f"the last good state is {state}" in str(caught.value)
    resumed(asked)
    run(replace(asked, out=tmp_path / "alone"))
    assert results(asked.out) == results(tmp_path / "alone")


def test_without_validation_data_there_is_no_best(images: Path, tmp_path: Path) -> None:
    asked = options(images, tmp_path / "run")
    data = asked.recipe.data.model_copy(update={"validation": 0.0})
    found = run(replace(asked, recipe=asked.recipe.model_copy(update={"data": data})))
    assert found.report["best"] is None
    assert "best.safetensors" not in names_in(asked.out)


@contextlib.contextmanager
def full_from(number: int) -> Iterator[None]:
    """A disk that is full from that flush on; all files are counted together."""
    done = 0

    def fsync(_: int) -> None:
        nonlocal done
        done += 1
        if done >= number:
            raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


# the first is the recipe, before which there is no run; the last is of the folder of DONE
@pytest.mark.many(2)
@pytest.mark.parametrize("number", range(3, 35))
def test_a_disk_that_is_full_at_any_write_leaves_a_run_that_goes_on(
    number: int, images: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    asked = options(images, tmp_path / "full")
    hint = "No space left on device. free some space, then: snnprune train --resume --out"
    with full_from(number), pytest.raises(OutputError, match=re.escape(hint)):
        run(asked)
    resumed(asked)
    assert results(asked.out) == expected
    assert not list(asked.out.rglob("*.tmp"))


def test_there_are_no_more_writes_than_were_tried(images: Path, tmp_path: Path) -> None:
    with full_from(35):
        run(options(images, tmp_path / "run"))


def test_neurons_by_triton_make_it_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a GPU")
    device, folder = torch.device("cuda"), Path("run")
    monkeypatch.delenv(LIF_VARIABLE, raising=False)
    before = collect_conditions(device)
    assert before["device"] == "a GPU"
    monkeypatch.setenv(LIF_VARIABLE, "native")  # the same bits
    assert collect_conditions(device) == before
    monkeypatch.setenv(LIF_VARIABLE, "triton")
    now = collect_conditions(device)
    assert now["device"] == "a GPU, neurons by triton"
    with pytest.raises(InputError, match="neurons by triton"):
        check_differences(before, now, (), folder)
    assert check_differences(before, now, ("device",), folder)
