"""What a round of `imp` prunes: how many, which of them for good, and by whose scores."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import CPU, PASSING, WEIGHTS, Found, recipe_for, same, write_images
from torch import Tensor

from snnprune.checkpoint.mask_file import read_masks
from snnprune.errors import InputError
from snnprune.jobs.train import train
from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.train import imp_recipe
from snnprune.masks import Masks, count_kept, count_pruned
from snnprune.recipe.schema import Recipe
from snnprune.training.imp import imp
from snnprune.training.rounds import ImpRun
from snnprune.training.setup import open_recipe_data
from snnprune.training.step import Trainer

METHODS = ["imp", "sf-imp-1", "sf-imp-2", "random"]
SPARSITIES = [0.4, 0.65, 0.9]
HELD = "blocks.0.conv.weight"

CRITERION = """
from snnprune.pruning.criteria import criterion

@criterion(needs="weight")
def largest_first(evidence):
    return -evidence.weight.abs()
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


def recipe(images: Path, training: Mapping[str, Any] | None = None, **imp: Any) -> Recipe:
    section = {"methods": METHODS, "sparsities": SPARSITIES, "rewind_epoch": 1, **imp}
    return recipe_for(images, training, imp=section)


@pytest.fixture(scope="module")
def found(images: Path) -> Found:
    """A run of all methods."""
    return Found(recipe(images))


def masks_of(found: Found, method: str) -> list[Masks]:
    """Those of its rounds."""
    return [found.kept.masks[f"{method}/round-{number:02}"] for number in (1, 2, 3)]


def returned(before: Masks, after: Masks, key: str) -> int:
    return int((~before[key] & after[key]).sum())


@pytest.mark.parametrize("method", METHODS)
def test_exactly_as_many_as_asked_are_pruned_and_zero(method: str, found: Found) -> None:
    total = sum(mask.numel() for mask in masks_of(found, method)[0].values())
    rows = [row for row in found.tickets.rows if row["method"] == method]
    for number, sparsity in enumerate(SPARSITIES):
        masks = masks_of(found, method)[number]
        tensors = found.kept.tensors[f"{method}/round-{number + 1:02}"]
        assert count_pruned(masks) == round(sparsity * total) == rows[number]["pruned"]
        assert all(not tensors[key][~mask].any() for key, mask in masks.items())
        assert rows[number]["layers"] == [
            {"weight": key, "kept": int(mask.sum()), "weights": mask.numel()}
            for key, mask in masks.items()
        ]


@pytest.mark.parametrize("method", ["imp", "sf-imp-1", "random"])
def test_what_is_pruned_stays_so(method: str, found: Found) -> None:
    first, second, third = masks_of(found, method)
    for before, after in ((first, second), (second, third)):
        assert [returned(before, after, key) for key in WEIGHTS] == [0, 0, 0]


def test_by_sf_imp_2_only_weights_of_unsuited_layers_return(images: Path) -> None:
    # a high rate: weights change their order within a round
    asked = recipe(images, {"learning_rate": 1.0}, methods=["sf-imp-2"])
    kept = Found(asked).kept.masks
    rounds = [kept[f"round-{number:02}"] for number in (1, 2, 3)]
    both = ((rounds[0], rounds[1]), (rounds[1], rounds[2]))
    assert [returned(before, after, HELD) for before, after in both] == [0, 0]
    assert sum(returned(*pair, key) for pair in both for key in PASSING) > 0


def test_weights_that_may_return_are_not_masked_where_a_round_begins(found: Found) -> None:
    early = found.starts["sf-imp-2/round-01"].tensors
    for folder in ("sf-imp-2/round-02", "sf-imp-2/round-03"):
        start = found.starts[folder]
        for key in PASSING:
            assert torch.equal(start.tensors[key], early[key])
            assert early[key].all()
        assert not start.tensors[HELD][~start.masks[HELD]].any()


def test_a_weight_that_is_alive_and_zero_is_no_pruned_one(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_on = Trainer.train_on

    def zeroing(self: Trainer, x: Tensor, y: Tensor) -> tuple[float, int]:
        done = train_on(self, x, y)
        with torch.no_grad():
            self.module.get_parameter(HELD).zero_()
        return done

    monkeypatch.setattr(Trainer, "train_on", zeroing)
    found = Found(recipe(images, methods=["random"]))
    total = found.tickets.rows[0]["prunable"]
    assert [row["pruned"] for row in found.tickets.rows] == [
        0,
        *(round(sparsity * total) for sparsity in SPARSITIES),
    ]
    masks, tensors = found.kept.masks["round-01"], found.kept.tensors["round-01"]
    assert not tensors[HELD].any()
    assert int(masks[HELD].sum()) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("method", "criterion"), [("imp", "magnitude"), ("sf-imp-1", "sf")])
def test_a_round_prunes_what_the_command_prunes_of_the_network_of_the_round_before(
    method: str,
    criterion: str,
    images: Path,
    run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train, "draw_run", lambda *_: [])  # it takes longer than the run
    asked = recipe(images, methods=[method])
    data = asked.data.model_copy(update={"validation": 0.0})
    asked = asked.model_copy(update={"data": data})
    imp_recipe(LoopOptions(command="imp", recipe=asked, out=tmp_path / "run", device="cpu"))
    for number, sparsity in enumerate(SPARSITIES):
        before, after = (tmp_path / "run" / f"round-{n:02}" for n in (number, number + 1))
        out = tmp_path / f"{number}.safetensors"
        told = ("--criterion", criterion, "--sparsity", sparsity, "-o", out)
        given = ("--data", asked.data.name, "--batch-size", 4, "-q")
        done = run("prune", before / "model.safetensors", *given, *told)
        assert done.returncode == 0, done.stderr
        expected, tensors = read_masks(after / "mask.safetensors"), load_file(out)
        assert all(torch.equal(tensors[key] != 0, expected[key]) for key in WEIGHTS)


def test_a_criterion_of_the_users_own_ranks(images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CRITERION)
    name = f"{tmp_path}/mine.py:largest_first"
    found = Found(recipe(images, methods=[name], allocation="local"))
    dense, masks = found.kept.tensors["round-00"], found.kept.masks["round-01"]
    for key in WEIGHTS:
        size = dense[key].abs()
        assert size[~masks[key]].min() >= size[masks[key]].max()
    assert {row["method"] for row in found.tickets.rows} == {"dense", name}


def test_methods_with_a_path_in_their_name_have_one_folder_each(
    images: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(CRITERION)
    found = Found(recipe(images, methods=["imp", f"{tmp_path}/mine.py:largest_first"]))
    around = {name.rpartition("/")[0] for name in found.kept.masks} - {"", "imp"}
    (other,) = around
    assert other.endswith("mine.py-largest_first")
    assert "/" not in other
    assert not other.startswith("-")


@pytest.mark.many(2)
@pytest.mark.parametrize("method", ["imp", "sf-imp-2"])
@pytest.mark.parametrize("allocation", ["local", "pools", "pools-alike"])
def test_every_allocation_prunes_exactly_as_many(
    allocation: str, method: str, images: Path
) -> None:
    found = Found(recipe(images, methods=[method], allocation=allocation))
    total = found.tickets.rows[0]["prunable"]
    assert [row["pruned"] for row in found.tickets.rows[1:]] == [
        round(sparsity * total) for sparsity in SPARSITIES
    ]


def test_bn_repair_takes_the_statistics_of_the_pruned_early_network(images: Path) -> None:
    plain, repaired = (Found(recipe(images, methods=["imp"], repair=how)) for how in ("none", "bn"))
    before, after = (found.starts["round-01"].tensors for found in (plain, repaired))
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert moved == [key for key in before if "running_" in key]
    images_seen = plain.data.train
    assert images_seen is not None
    x = torch.cat([x for x, _ in images_seen.batches(4)])
    mask = plain.starts["round-01"].masks["encoder.conv.weight"]
    weight = before["encoder.conv.weight"]
    assert not weight[~mask].any()
    current = torch.nn.functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(after["encoder.norm.running_mean"], current.mean((0, 2, 3)))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"methods": ["magnitud"]}, r"^imp\.methods: .*magnitud.* did you mean .*magnitude"),
        ({"allocation": "globl"}, r"^imp\.allocation: .*globl.* did you mean .*global"),
        (
            {"methods": ["imp", "sf-imp-1"], "allocation": "global"},
            r"^imp\.allocation: global cannot rank sf and magnitude scores together\. choose pools",
        ),
    ],
)
def test_what_cannot_prune_is_refused_before_anything_is_trained(
    settings: dict[str, Any], told: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImpRun, "train", lambda *_: pytest.fail("trained"))
    asked = recipe(images, **settings)
    with pytest.raises(InputError, match=told):
        imp(asked, open_recipe_data(asked), device=CPU)


def test_an_allocation_that_fails_later_is_told_by_its_setting(
    images: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "def nothing(candidates, count):\n"
        "    return {key: candidates.kept(key) for key in candidates.keys}\n"
    )
    asked = recipe(images, methods=["imp"], allocation=f"{tmp_path}/mine.py:nothing")
    with pytest.raises(InputError, match=r"^imp\.allocation: prunes 0 weights instead of"):
        imp(asked, open_recipe_data(asked), device=CPU)


def test_the_same_run_gives_the_same_result(found: Found, images: Path) -> None:
    again = Found(recipe(images))
    assert again.kept.tensors.keys() == found.kept.tensors.keys()
    for folder, tensors in found.kept.tensors.items():
        assert same(tensors, again.kept.tensors[folder])
    assert again.kept.rows == found.kept.rows
    assert min(count_kept(masks) for masks in found.kept.masks.values() if masks) > 0
