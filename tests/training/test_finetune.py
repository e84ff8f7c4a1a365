"""A pruned checkpoint trained on: masks held, teacher asked, taken up again to the bit."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from snnprune.checkpoint.mask_file import read_masks, write_masks
from snnprune.data import DataSpec
from snnprune.errors import InputError, OutputError, StoppedError
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.jobs.train import looping
from snnprune.jobs.train.finetune import finetune_checkpoint
from snnprune.jobs.train.looping import LoopRun
from snnprune.jobs.train.options import FinetuneFiles, LoopOptions
from snnprune.models import ModelSpec
from snnprune.models.networks import conv_snn
from snnprune.recipe.schema import Recipe
from snnprune.training.finetune import make_finetune_recipe
from snnprune.training.runs import StopSignal
from snnprune.training.step import Trainer

pytestmark = pytest.mark.usefixtures("unrendered")
MODEL: dict[str, Any] = {
    "in_channels": 1,
    "size": 6,
    "classes": 2,
    "width": 4,
    "depth": 2,
    "time_steps": 2,
}
WEIGHTS = ("encoder.conv.weight", "blocks.0.conv.weight", "classifier.weight")
EPOCHS, STEPS = 2, 3  # per epoch
RESULTS = ("model.safetensors", "best.safetensors", "mask.safetensors", "metrics.jsonl")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 noisy images of two classes: 12 to train on, 4 to validate."""
    path = tmp_path_factory.mktemp("images") / "images.safetensors"
    draws, labels = torch.Generator().manual_seed(0), torch.arange(16) % 2
    x = torch.rand(16, 1, 6, 6, generator=draws) + labels.view(-1, 1, 1, 1)
    test = {"x_test": x.roll(1, -1), "y_test": labels.clone()}
    save_file({"x": x, "y": labels, **test}, path)
    return path


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """A checkpoint of which every other weight is 0."""
    return written(tmp_path / "pruned.safetensors", halved(dense()))


@pytest.fixture
def asked(images: Path, tmp_path: Path) -> LoopOptions:
    return options(images, tmp_path / "run")


def dense() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(conv_snn(**MODEL).state_dict())


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: torch.where(half(value), value, 0.0) if key in WEIGHTS else value
        for key, value in tensors.items()
    }


def half(weight: Tensor) -> Tensor:
    """A mask of every other weight."""
    return (torch.arange(weight.numel()) % 2 == 0).view(weight.shape)


def written(path: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata or None)
    return path


def recipe(images: Path, **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"name": "conv-snn", "args": {"width": 4, "depth": 2, "time_steps": 2}},
            "data": {"name": f"tensors:{images}", "validation": 0.25, "crop": 1},
            "training": {"epochs": 20, "batch_size": 4, "learning_rate": 1.0},
            **sections,
        }
    )


def options(images: Path, out: Path, **sections: Any) -> LoopOptions:
    return LoopOptions(command="finetune", recipe=recipe(images, **sections), out=out, device="cpu")


def run(asked: LoopOptions, checkpoint: Path, **files: Any) -> LoopRun:
    return finetune_checkpoint(FinetuneFiles(checkpoint=checkpoint, **files), asked)


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in found if row["kind"] == kind]


def test_what_was_pruned_stays_zero_and_the_rest_learns(pruned: Path, asked: LoopOptions) -> None:
    found = run(asked, pruned)
    before, after = load_file(pruned), load_file(asked.out / "model.safetensors")
    best, masks = (
        load_file(asked.out / "best.safetensors"),
        read_masks(asked.out / "mask.safetensors"),
    )
    assert list(after) == list(dense())
    for key in WEIGHTS:
        assert torch.equal(masks[key], half(before[key]))
        assert not after[key][~masks[key]].any()
        assert not best[key][~masks[key]].any()
        assert not torch.equal(after[key], before[key])
    total = sum(before[key].numel() for key in WEIGHTS)
    zeros = sum(int((before[key] == 0).sum()) for key in WEIGHTS)
    assert found.report["masks"]["pruned"] == zeros
    assert found.report["masks"]["prunable"] == total
    assert found.report["masks"]["from"] == "those that are 0 in the checkpoint"


def test_it_takes_a_tenth_of_the_epochs_at_a_tenth_of_the_rate(
    pruned: Path, asked: LoopOptions
) -> None:
    run(asked, pruned)
    epochs = rows(asked.out, "epoch")
    assert [row["epoch"] for row in epochs] == [0, 1]
    assert epochs[0]["learning_rate"] < 0.1
    training = make_finetune_recipe(asked.recipe).training
    assert training.epochs == 2
    assert training.learning_rate == pytest.approx(0.1)


def test_the_section_says_how_long_and_the_schedule_keeps_its_shape(images: Path) -> None:
    training = {
        "epochs": 100,
        "learning_rate": 1.0,
        "schedule": "step",
        "step_epochs": [3, 50, 80],
        "warmup_epochs": 10,
    }
    section = {"epochs": 20, "learning_rate": 0.5}
    training_now = make_finetune_recipe(
        recipe(images, training=training, finetune=section)
    ).training
    assert (training_now.epochs, training_now.learning_rate) == (20, 0.5)
    assert (training_now.warmup_epochs, training_now.step_epochs) == (2, (10, 16))


def test_the_report_tells_the_accuracy_before_and_after(pruned: Path, asked: LoopOptions) -> None:
    report = run(asked, pruned).report
    tickets = {row["method"]: row for row in report["tickets"]}
    assert set(tickets) == {"pruned", "finetuned"}
    assert tickets["pruned"]["test"] == report["before"]
    assert tickets["finetuned"]["test"] == report["test"]
    assert tickets["pruned"]["sparsity_asked"] == tickets["finetuned"]["sparsity_asked"]
    assert report["before"]["loss"] != report["test"]["loss"]
    (entry,) = report["inputs"]
    assert (entry["role"], entry["path"]) == ("checkpoint", str(pruned))


def test_masks_beside_the_checkpoint_are_found(pruned: Path, asked: LoopOptions) -> None:
    tensors = load_file(pruned)
    masks = {key: half(tensors[key]) for key in WEIGHTS[:2]}
    masks[WEIGHTS[0]].view(-1)[1::4] = True  # a kept weight that is 0
    write_masks(pruned.with_name("pruned.mask.safetensors"), masks, {})
    report = run(asked, pruned).report
    held = read_masks(asked.out / "mask.safetensors")
    assert all(torch.equal(held[key], masks[key]) for key in masks)
    assert held["classifier.weight"].all()  # it has no mask
    assert report["masks"]["from"] == "masks of pruned.mask.safetensors"
    assert [entry["role"] for entry in report["inputs"]] == ["checkpoint", "masks"]


def test_masks_of_a_round_of_imp_are_found(tmp_path: Path, asked: LoopOptions) -> None:
    (tmp_path / "round-01").mkdir()
    model = written(tmp_path / "round-01" / "model.safetensors", halved(dense()))
    write_masks(model.with_name("mask.safetensors"), {WEIGHTS[1]: half(dense()[WEIGHTS[1]])}, {})
    assert run(asked, model).report["masks"]["from"] == "masks of mask.safetensors"


def test_masks_that_do_not_fit_the_weights_are_held_only_when_asked_for(
    tmp_path: Path, asked: LoopOptions
) -> None:
    checkpoint = written(tmp_path / "dense.safetensors", dense())
    beside, key = tmp_path / "dense.mask.safetensors", WEIGHTS[1]
    write_masks(beside, {key: half(dense()[key])}, {})
    more = int((~half(dense()[key])).sum())
    with pytest.raises(InputError, match=f"prunes {more} weights that are not 0") as caught:
        run(asked, checkpoint)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("--masks")
    assert not asked.out.exists()
    report = run(asked, checkpoint, masks=beside).report
    assert report["masks"]["pruned"] == more
    assert any(f"prunes {more} weights" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ({"other.weight": torch.ones(2, 2, dtype=torch.bool)}, "is no weight of the model"),
        ({WEIGHTS[2]: torch.ones(2, 2, dtype=torch.bool)}, r"has shape \[2, 2\], the weight"),
    ],
)
def test_masks_of_another_network_are_refused(
    masks: dict[str, Tensor], told: str, pruned: Path, asked: LoopOptions, tmp_path: Path
) -> None:
    path = tmp_path / "masks.safetensors"
    write_masks(path, masks, {})
    with pytest.raises(InputError, match=told) as caught:
        run(asked, pruned, masks=path)
    assert (caught.value.file, caught.value.field) == (str(path), next(iter(masks)))


def test_a_checkpoint_of_another_model_blames_the_recipe(
    tmp_path: Path, asked: LoopOptions
) -> None:
    wide = dict(conv_snn(**{**MODEL, "width": 8}).state_dict())
    with pytest.raises(InputError, match="does not fit the model") as caught:
        run(asked, written(tmp_path / "wide.safetensors", wide))
    assert caught.value.hint is not None
    assert "recipe" in caught.value.hint


def test_a_torch_file_with_a_prefix_and_folded_masks_is_taken(
    tmp_path: Path, asked: LoopOptions
) -> None:
    tensors = {f"module.{key}": value for key, value in dense().items()}
    name = f"module.{WEIGHTS[1]}"
    weight = tensors.pop(name)
    tensors |= {f"{name}_orig": weight, f"{name}_mask": half(weight).float()}
    path = tmp_path / "trained.pth"
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    run(asked, path)
    assert torch.equal(read_masks(asked.out / "mask.safetensors")[WEIGHTS[1]], half(weight))


def test_a_dense_checkpoint_is_trained_on_with_a_warning(
    tmp_path: Path, asked: LoopOptions
) -> None:
    found = run(asked, written(tmp_path / "dense.safetensors", dense()))
    assert found.report["masks"]["pruned"] == 0
    assert "nothing is pruned: no prunable weight is 0" in found.report["warnings"]


def test_a_file_that_contradicts_the_recipe_is_told(
    images: Path, tmp_path: Path, asked: LoopOptions
) -> None:
    metadata = make_metadata(
        "train",
        model=ModelSpec(name="conv-snn", args={**MODEL, "time_steps": 3}),
        data=DataSpec(name=f"tensors:{images}", validation=0.25, seed=7),
    )
    path = written(tmp_path / "told.safetensors", halved(dense()), **metadata)
    assert run(asked, path).report["warnings"] == [
        "told.safetensors says that its model has time_steps 3, that of the recipe has 2",
        "told.safetensors was trained with validation samples 0.25 by seed 7, now they are 0.25 by "
        "seed 0: it has seen some of them",
    ]


def test_a_teacher_changes_what_is_learnt_and_is_in_the_table(
    pruned: Path, asked: LoopOptions, tmp_path: Path
) -> None:
    teacher = written(tmp_path / "dense.safetensors", dense())
    alone = run(asked, pruned)
    taught = run(replace(asked, out=tmp_path / "taught"), pruned, teacher=teacher)
    one, other = (load_file(each.out / "model.safetensors") for each in (alone, taught))
    assert not torch.equal(one[WEIGHTS[1]], other[WEIGHTS[1]])
    assert load_file(teacher).keys() == dense().keys()  # it did not learn
    assert {row["method"] for row in taught.report["tickets"]} == {"pruned", "finetuned", "dense"}
    assert [entry["role"] for entry in taught.report["inputs"]] == ["checkpoint", "teacher"]


def test_gradual_pruning_starts_from_what_is_held(
    pruned: Path, images: Path, tmp_path: Path
) -> None:
    gradual = {"sparsity": 0.75, "steps": 2, "end_epoch": 2}
    asked = options(images, tmp_path / "run", gradual=gradual, finetune={"epochs": 2})
    cuts: list[float] = []
    enforce = Trainer.train_on

    def watched(self: Trainer, *batch: Any) -> tuple[float, int]:
        masks = self.masking.copy_masks().values()
        cuts.append(1 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks))
        return enforce(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_on", watched)
        run(asked, pruned)
    first, last = 0.5, 0.75
    middle = last + (first - last) * (1 - 1 / 2) ** 3
    assert cuts == pytest.approx([first] * 3 + [middle] * 3, abs=5e-3)
    masks = read_masks(asked.out / "mask.safetensors")
    kept, total = (sum(int(f(m)) for m in masks.values()) for f in (Tensor.sum, Tensor.numel))
    assert total - kept == round(last * total)
    started = {key: half(mask) for key, mask in masks.items()}
    assert not any((masks[key] & ~started[key]).any() for key in masks)


@pytest.mark.parametrize(
    ("gradual", "field"),
    [
        ({"sparsity": 0.4}, "gradual.sparsity"),
        ({"sparsity": 0.9, "end_epoch": 5}, "gradual.end_epoch"),
        ({"sparsity": 0.9, "start_epoch": 2}, "gradual.start_epoch"),
    ],
)
def test_gradual_pruning_that_does_not_fit_is_refused(
    gradual: dict[str, Any], field: str, pruned: Path, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        run(options(images, tmp_path / "run", gradual=gradual), pruned)
    assert caught.value.field == field
    assert not (tmp_path / "run").exists()


class After(StopSignal):
    """A stop that is asked for while batch number `after`, from 1, is trained on."""

    def __init__(self, after: int, count: Callable[[], int]) -> None:
        super().__init__()
        self.after, self.count = after, count

    def __bool__(self) -> bool:
        return self.count() >= self.after


@contextlib.contextmanager
def stopped_after(batches: int) -> Iterator[None]:
    done = [0]
    train_on = Trainer.train_on

    def counting(self: Trainer, *batch: Any) -> tuple[float, int]:
        found = train_on(self, *batch)
        done[0] += 1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_on", counting)
        stop = After(batches, lambda: done[0])
        patch.setattr(looping, "catch_signals", lambda: contextlib.nullcontext(stop))
        yield


@pytest.mark.slow
def test_stopped_at_any_step_it_ends_bit_identical(pruned: Path, asked: LoopOptions) -> None:
    teacher = written(pruned.with_name("dense.safetensors"), dense())
    run(asked, pruned, teacher=teacher)
    expected = {name: (asked.out / name).read_bytes() for name in RESULTS}
    for batches in range(1, EPOCHS * STEPS):
        again = replace(asked, out=asked.out.with_name(f"stopped-{batches}"))
        with stopped_after(batches), pytest.raises(StoppedError) as caught:
            run(again, pruned, teacher=teacher)
        words = f"snnprune finetune {pruned} --teacher {teacher} --resume --out {again.out}"
        assert words in str(caught.value.hint)
        run(replace(again, resume=True), pruned, teacher=teacher)
        assert {name: (again.out / name).read_bytes() for name in RESULTS} == expected


@pytest.mark.parametrize("finished", [False, True])
def test_another_checkpoint_does_not_go_on(
    finished: bool, pruned: Path, asked: LoopOptions
) -> None:
    if finished:
        run(asked, pruned)
    else:
        with stopped_after(2), pytest.raises(StoppedError):
            run(asked, pruned)
    other = halved(dense())
    other[WEIGHTS[0]] = other[WEIGHTS[0]] * 2
    with pytest.raises(InputError, match=r"checkpoint: [0-9a-f]{64} in the run, [0-9a-f]{64} now"):
        run(replace(asked, resume=True), written(pruned, other))


def test_force_does_not_delete_an_input(images: Path, tmp_path: Path) -> None:
    asked = replace(options(images, tmp_path / "run"), force=True)
    asked.out.mkdir()
    checkpoint = written(asked.out / "model.safetensors", halved(dense()))
    with pytest.raises(OutputError, match="holds its input"):
        run(asked, checkpoint)
    assert checkpoint.exists()
