"""Algorithm 1: against a plain implementation of our own, and where its rounds begin."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import (
    CPU,
    EPOCHS,
    PASSING,
    STEPS,
    WEIGHTS,
    Found,
    Kept,
    recipe_for,
    same,
    write_images,
)
from torch import Tensor, nn
from torch.nn import functional

from snnprune.data import Augmentation, DataSet
from snnprune.data.images import ImageSplit
from snnprune.models.networks import conv_snn
from snnprune.recipe.schema import Recipe
from snnprune.runtime import seed_draws
from snnprune.training.setup import open_recipe_data
from snnprune.training.train import train

RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


def recipe(images: Path, training: Mapping[str, Any] | None = None, **imp: Any) -> Recipe:
    section = {"methods": ["imp"], "sparsities": [0.5, 0.83], "rewind_epoch": 1, **imp}
    return recipe_for(images, training, imp=section)


class Algorithm1:
    """Iterative magnitude pruning with rewinding as the paper tells it, in plain torch."""

    def __init__(self, data: DataSet, *, rewind_statistics: bool) -> None:
        assert isinstance(data.train, ImageSplit)
        self.images, self.rewind_statistics = data.train, rewind_statistics
        with seed_draws(0, "weights"):
            self.network = conv_snn(
                in_channels=1, size=6, classes=2, width=2, depth=2, time_steps=2
            )

    def found(self, sparsities: list[float], rewind: int) -> list[dict[str, Tensor]]:
        """The weights after each round, the dense one first."""
        masks = {key: torch.ones_like(self.weight(key), dtype=torch.bool) for key in WEIGHTS}
        self.train(masks, rewind, key=(), schedule=(0, EPOCHS))
        early = self.state()
        self.train(masks, EPOCHS - rewind, key=(), schedule=(rewind, EPOCHS), go_on=True)
        found = [self.state()]
        for number, sparsity in enumerate(sparsities, start=1):
            masks = self.pruned(masks, sparsity)
            statistics = {k: v for k, v in self.state().items() if "running" in k or "num" in k}
            self.network.load_state_dict(
                early if self.rewind_statistics else {**early, **statistics}
            )
            length = EPOCHS - rewind
            self.train(masks, length, key=("round", number), schedule=(0, length))
            found.append(self.state())
        return found

    def train(
        self,
        masks: dict[str, Tensor],
        epochs: int,
        *,
        key: tuple[object, ...],
        schedule: tuple[int, int],
        go_on: bool = False,
    ) -> None:
        if not go_on:
            self.sgd = torch.optim.SGD(
                self.network.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
            )
        self.enforce(masks)
        self.network.train()
        for epoch in range(schedule[0], schedule[0] + epochs):
            batches = self.images.shuffle(
                4, key=(0, *key, epoch), device=CPU, augment=Augmentation(crop=1, flip=True)
            )
            for step, (x, y) in enumerate(batches):
                done = (epoch * STEPS + step) / (schedule[1] * STEPS)
                self.sgd.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * done)) / 2
                self.sgd.zero_grad()
                assert y is not None
                losses = [
                    functional.cross_entropy(at, y, reduction="none") for at in self.network(x)
                ]
                torch.stack(losses).mean(0).mean().backward()
                self.sgd.step()
                self.enforce(masks)

    def enforce(self, masks: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for key, mask in masks.items():
                self.weight(key).mul_(mask)
                about = self.sgd.state[self.weight(key)]
                if about:
                    about["momentum_buffer"].mul_(mask)

    def pruned(self, masks: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        sizes = {key: self.weight(key).detach().abs() for key in WEIGHTS}
        ranked = sorted(
            (float(size) if masks[key].flatten()[place] else -1.0, key, place)
            for key in WEIGHTS
            for place, size in enumerate(sizes[key].flatten())
        )
        after = {key: torch.ones_like(mask) for key, mask in masks.items()}
        for _, key, place in ranked[: round(sparsity * len(ranked))]:
            after[key].view(-1)[place] = False
        return after

    def weight(self, key: str) -> nn.Parameter:
        return self.network.get_parameter(key)

    def state(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.network.state_dict().items()}


@pytest.mark.parametrize("rewind_statistics", [True, False])
def test_magnitude_pruning_is_that_of_the_paper_to_the_bit(
    rewind_statistics: bool, images: Path
) -> None:
    found = Found(recipe(images, rewind_statistics=rewind_statistics))
    plain = Algorithm1(found.data, rewind_statistics=rewind_statistics)
    dense, *rounds = plain.found([0.5, 0.83], rewind=1)
    assert same(found.kept.tensors["round-00"], dense)
    for number, expected in enumerate(rounds, start=1):
        folder = f"round-{number:02}"
        tensors, masks = found.kept.tensors[folder], found.kept.masks[folder]
        for key, value in expected.items():
            assert torch.equal(tensors[key], value), key  # 0 and -0 are equal
        assert set(masks) == set(WEIGHTS)
        assert all(torch.equal(masks[key], expected[key] != 0) for key in WEIGHTS)


def test_the_dense_network_is_the_one_that_train_gives(images: Path) -> None:
    asked = recipe(images)
    found, run = Found(asked), Kept()
    trained = train(asked, open_recipe_data(asked), device=CPU, run=run)
    assert same(found.kept.tensors["round-00"], trained.tensors)
    own = [{**row, "method": "dense", "round": 0} for row in run.rows_of("epoch")]
    assert found.epochs("dense", 0) == own


@pytest.mark.many(2)
@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("method", ["imp", "sf-imp-1", "random"])
def test_every_round_begins_with_all_tensors_of_the_epoch_that_is_rewound_to(
    epoch: int, method: str, images: Path
) -> None:
    found = Found(recipe(images, methods=[method], rewind_epoch=epoch))
    early = after_epochs(images, epoch)
    for folder in ("round-01", "round-02"):
        start = found.starts[folder]
        assert list(start.tensors) == list(early)
        for key, tensor in start.tensors.items():
            mask = start.masks.get(key, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor, early[key] * mask), key


def after_epochs(images: Path, epochs: int) -> Mapping[str, Tensor]:
    """The dense network after that many of the recipe's epochs."""
    with seed_draws(0, "weights"):
        network = conv_snn(in_channels=1, size=6, classes=2, width=2, depth=2, time_steps=2)
    if epochs == 0:
        return network.state_dict()
    plain = Algorithm1(open_recipe_data(recipe(images)), rewind_statistics=True)
    masks = {key: torch.ones_like(plain.weight(key), dtype=torch.bool) for key in WEIGHTS}
    plain.train(masks, epochs, key=(), schedule=(0, EPOCHS))
    return plain.state()


def test_running_statistics_stay_where_they_are_not_rewound(images: Path) -> None:
    found = Found(recipe(images, rewind_statistics=False))
    early, before = after_epochs(images, 1), found.kept.tensors["round-01"]
    start = found.starts["round-02"].tensors
    for key in start:
        if key in WEIGHTS:
            continue
        kept = "running" in key or "num_batches" in key
        assert torch.equal(start[key], (before if kept else early)[key]), key
        assert not torch.equal(before[key], early[key])


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw", "learning_rate": 0.01}])
def test_a_round_begins_with_a_fresh_optimizer_and_the_schedule_from_its_start(
    settings: dict[str, Any], images: Path
) -> None:
    found = Found(recipe(images, settings))
    peak = settings.get("learning_rate", RATE)
    assert {start.remembered for start in found.starts.values()} == {0}
    for number, length in enumerate((EPOCHS, EPOCHS - 1, EPOCHS - 1)):
        rows = found.epochs("imp" if number else "dense", number)
        last = [(epoch + 1) * STEPS - 1 for epoch in range(length)]
        expected = [peak * (1 + math.cos(math.pi * step / (length * STEPS))) / 2 for step in last]
        assert [row["learning_rate"] for row in rows] == pytest.approx(expected)


def test_learning_rate_rewinding_keeps_the_weights_and_goes_on_with_the_schedule(
    images: Path,
) -> None:
    found = Found(recipe(images, rewind="learning-rate"))
    dense_rates = [row["learning_rate"] for row in found.epochs("dense", 0)]
    before = found.kept.tensors["round-00"]
    for folder in ("round-01", "round-02"):
        start = found.starts[folder]
        for key, tensor in start.tensors.items():
            mask = start.masks.get(key, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor, before[key] * mask), key
        assert start.remembered == 0
        rows = found.epochs("imp", int(folder[-1]))
        assert [row["learning_rate"] for row in rows] == dense_rates[1:]
        before = found.kept.tensors[folder]


def test_rounds_may_be_longer_than_what_is_left_after_the_early_epoch(images: Path) -> None:
    found = Found(recipe(images, round_epochs=4))
    assert [len(found.epochs(*which)) for which in (("dense", 0), ("imp", 1), ("imp", 2))] == [
        *(EPOCHS, 4, 4)
    ]


def test_two_methods_of_one_run_find_what_each_finds_alone(images: Path) -> None:
    methods = ["imp", "sf-imp-2", "random"]
    together = Found(recipe(images, methods=methods))
    for method in methods:
        alone = Found(recipe(images, methods=[method]))
        for folder in ("round-01", "round-02"):
            assert same(together.kept.tensors[f"{method}/{folder}"], alone.kept.tensors[folder])
            assert same(together.kept.masks[f"{method}/{folder}"], alone.kept.masks[folder])
        rows = [row for row in together.tickets.rows if row["method"] == method]
        assert rows == list(alone.tickets.rows)[1:]


def test_random_tickets_differ_by_seed_and_by_nothing_else(images: Path) -> None:
    asked = recipe(images, methods=["random"])
    first, again = Found(asked), Found(asked)
    other = Found(asked.model_copy(update={"seed": 1}))
    assert same(first.kept.masks["round-01"], again.kept.masks["round-01"])
    assert not same(first.kept.masks["round-01"], other.kept.masks["round-01"])


def test_a_rate_and_rounds_give_the_powers_of_what_stays(images: Path) -> None:
    found = Found(recipe(images, sparsities=[], rate=0.25, rounds=3))
    total = sum(mask.numel() for mask in found.kept.masks["round-01"].values())
    assert [row["pruned"] for row in found.tickets.rows] == [
        0,
        *(round((1 - 0.75**number) * total) for number in (1, 2, 3)),
    ]


def test_the_average_is_what_is_kept_ranked_and_measured(images: Path) -> None:
    found = Found(recipe(images, {"ema": 0.5}, methods=["imp", "sf-imp-2"]))
    for method in ("imp", "sf-imp-2"):
        for folder in ("round-01", "round-02"):
            tensors = found.kept.tensors[f"{method}/{folder}"]
            masks = found.kept.masks[f"{method}/{folder}"]
            trainer = found.starts[f"{method}/{folder}"].trainer
            assert all(not tensors[key][~mask].any() for key, mask in masks.items())
            held = [key for key in masks if method == "imp" or key not in PASSING]
            for key in held:  # no trace of what was pruned
                assert not trainer.average.tensors[key][~masks[key]].any()


def test_what_a_round_ranks_is_the_average_that_the_one_before_kept(images: Path) -> None:
    found = Found(recipe(images, {"ema": 0.9}))
    for before, after in (("round-00", "round-01"), ("round-01", "round-02")):
        sizes = {key: found.kept.tensors[before][key].abs() for key in WEIGHTS}
        masks = found.kept.masks[after]
        gone = torch.cat([sizes[key][~masks[key]] for key in WEIGHTS])
        stays = torch.cat([sizes[key][masks[key]] for key in WEIGHTS])
        assert gone.max() <= stays.min()
