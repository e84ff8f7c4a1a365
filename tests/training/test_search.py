"""Edge-popup: against a plain implementation of our own, and what its sub-networks are."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from small_runs import CPU, EPOCHS, STEPS, WEIGHTS, Kept, recipe_for, same, write_images
from torch import Tensor, nn, optim
from torch.nn import functional

from snnprune.data import Augmentation
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError, UsageError
from snnprune.models.networks import conv_snn
from snnprune.recipe.loading import load_recipe
from snnprune.recipe.schema import Recipe
from snnprune.recipe.yaml_text import dump_recipe
from snnprune.training.edge_popup import draw_scores, draw_weight
from snnprune.training.search import search
from snnprune.training.setup import open_recipe_data
from snnprune.training.train import train

RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4
SPARSITIES = [0.3, 0.9]

SPIKINGJELLY = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from spikingjelly.activation_based import layer, neuron

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = layer.Conv2d(1, 3, 3, step_mode="m")
        self.norm = layer.BatchNorm2d(3, step_mode="m")
        self.lif = neuron.ParametricLIFNode(step_mode="m")
        self.fc = layer.Linear(48, 2, step_mode="m")

    def forward(self, x):
        spikes = self.lif(self.norm(self.conv(x.expand(2, *x.shape))))
        return self.fc(spikes.flatten(2))

def build():
    return Own()

def images():
    drawn = torch.Generator().manual_seed(0)
    y = torch.arange(12) % 2
    x = torch.rand(12, 1, 6, 6, generator=drawn) + y.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)
"""
UNSEARCHABLE = """
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from snnprune.models.networks import conv_snn

def normed():
    network = conv_snn(in_channels=1, size=6, classes=2, width=2, depth=2, time_steps=2)
    weight_norm(network.classifier)
    return network

def pruned():
    network = conv_snn(in_channels=1, size=6, classes=2, width=2, depth=2, time_steps=2)
    prune.random_unstructured(network.classifier, "weight", 0.5)
    return network
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.safetensors")


def recipe(images: Path, training: Mapping[str, Any] | None = None, **section: Any) -> Recipe:
    return recipe_for(images, training, search={"sparsities": SPARSITIES, **section})


def with_model(asked: Recipe, reference: str) -> Recipe:
    model = asked.model.model_copy(update={"name": reference, "args": {}})
    return asked.model_copy(update={"model": model})


def kept_of(asked: Recipe) -> Kept:
    """What a run of it keeps; the images to validate on are those to test on too."""
    kept, data = Kept(), open_recipe_data(asked)
    search(asked, replace(data, test=data.validation), device=CPU, run=kept)
    return kept


@pytest.fixture(scope="module")
def found(images: Path) -> Kept:
    """A run of two sparsities after the dense network."""
    return kept_of(recipe(images, dense=True))


def highest(scores: Tensor, kept: float) -> Tensor:
    """True for that share of the scores of highest absolute value."""
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    ranked = scores.detach().abs().flatten().argsort()
    mask.view(-1)[ranked[-round(kept * len(ranked)) :]] = True
    return mask


def small_network() -> nn.Module:
    return conv_snn(in_channels=1, size=6, classes=2, width=2, depth=2, time_steps=2)


class EdgePopup:
    """Training of scores in plain torch: the masked weights are put where the weights were."""

    def __init__(self, images: ImageSplit, kept: float, ema: float | None = None) -> None:
        self.images, self.kept, self.ema = images, kept, ema
        self.network = small_network()
        shapes = {key: self.network.get_parameter(key).shape for key in WEIGHTS}
        self.weights = {
            key: draw_weight(shape, "signed-constant", kept=kept, seed=0, key=key)
            for key, shape in shapes.items()
        }
        self.scores = {
            key: nn.Parameter(draw_scores(shape, seed=0, key=key)) for key, shape in shapes.items()
        }
        for name, parameter in self.network.named_parameters():
            if name not in WEIGHTS:
                nn.init.constant_(parameter, 1.0 if name.endswith("norm.weight") else 0.0)

    def train(self) -> None:
        sgd = optim.SGD(self.scores.values(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
        averages = {key: scores.detach().clone() for key, scores in self.scores.items()}
        for epoch in range(EPOCHS):
            batches = self.images.shuffle(
                4, key=(0, "search", epoch), device=CPU, augment=Augmentation(crop=1, flip=True)
            )
            for step, (x, y) in enumerate(batches):
                done = (epoch * STEPS + step) / (EPOCHS * STEPS)
                sgd.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * done)) / 2
                self.put_masked()
                self.network.zero_grad()
                assert y is not None
                losses = [functional.cross_entropy(at, y) for at in self.network(x)]
                torch.stack(losses).mean().backward()
                for key, scores in self.scores.items():
                    gradient = self.network.get_parameter(key).grad
                    assert gradient is not None
                    scores.grad = gradient * self.weights[key] * scores.detach().sign()
                sgd.step()
                for key, average in averages.items():
                    average.lerp_(self.scores[key].detach(), 1 - (self.ema or 0.0))
        self.scores = {key: nn.Parameter(average) for key, average in averages.items()}
        self.put_masked()

    @torch.no_grad()
    def put_masked(self) -> None:
        for key, mask in self.masks().items():
            self.network.get_parameter(key).copy_(self.weights[key] * mask)

    def masks(self) -> dict[str, Tensor]:
        return {key: highest(scores, self.kept) for key, scores in self.scores.items()}


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_it_is_edge_popup_in_plain_torch(sparsity: float, images: Path, found: Kept) -> None:
    data = open_recipe_data(recipe(images))
    assert isinstance(data.train, ImageSplit)
    plain = EdgePopup(data.train, kept=1 - sparsity)
    before = plain.masks()
    plain.train()
    tensors, masks = found.tensors[f"sparsity-{sparsity}"], found.masks[f"sparsity-{sparsity}"]
    assert not same(plain.masks(), before)  # there was something to learn
    assert same(masks, plain.masks())
    assert list(tensors) == list(plain.network.state_dict())
    for key, value in plain.network.state_dict().items():
        torch.testing.assert_close(tensors[key], value)


def test_a_row_counts_what_was_kept_and_names_k_beside_the_sparsity(found: Kept) -> None:
    rows = found.rows_of("ticket")
    assert [(row["method"], row["sparsity_asked"], row["k"]) for row in rows] == [
        ("dense", 0.0, 1.0),
        ("edge-popup", 0.3, 0.7),
        ("edge-popup", 0.9, 0.1),
    ]
    for row in rows[1:]:
        masks = found.masks[f"sparsity-{row['sparsity_asked']}"]
        assert row["layers"] == [
            {"weight": key, "kept": round(row["k"] * mask.numel()), "weights": mask.numel()}
            for key, mask in masks.items()
        ]
        assert row["pruned"] == sum(int((~mask).sum()) for mask in masks.values())


def test_the_dense_network_is_the_one_that_train_gives(images: Path, found: Kept) -> None:
    asked = recipe(images)
    trained = train(asked, open_recipe_data(asked), device=CPU)
    assert same(found.tensors["dense"], trained.tensors)


def test_a_sparsity_does_not_depend_on_what_was_searched_before_it(
    images: Path, found: Kept
) -> None:
    alone = kept_of(recipe(images, sparsities=[0.9]))
    assert same(alone.tensors["sparsity-0.9"], found.tensors["sparsity-0.9"])
    assert same(alone.masks["sparsity-0.9"], found.masks["sparsity-0.9"])
    assert "dense" not in alone.tensors


def test_both_sparsities_have_the_signs_of_one_draw(found: Kept) -> None:
    some, few = (found.tensors[f"sparsity-{sparsity}"] for sparsity in SPARSITIES)
    for key in WEIGHTS:
        both = found.masks["sparsity-0.3"][key] & found.masks["sparsity-0.9"][key]
        assert bool(both.any())
        assert torch.equal(some[key][both].sign(), few[key][both].sign())


def test_the_epochs_of_a_search_are_its_own_and_its_schedule_ends_with_them(images: Path) -> None:
    asked = recipe(images, {"schedule": "one-cycle"}, dense=True, epochs=2, sparsities=[0.5])
    rows = kept_of(asked).rows_of("epoch")
    assert [row["method"] for row in rows] == ["dense"] * 3 + ["edge-popup"] * 2
    done = 5 / 6 - 0.3  # of the steps, after the rise
    last = RATE * (1 + math.cos(math.pi * done / 0.7)) / 2
    assert rows[-1]["learning_rate"] == pytest.approx(last)


@torch.no_grad()
def test_accuracy_and_firing_rates_are_those_of_the_plain_network_that_is_kept(
    images: Path, found: Kept
) -> None:
    validation = open_recipe_data(recipe(images)).validation
    assert isinstance(validation, ImageSplit)
    (x, y), *_ = validation.batches(4)
    network, spikes = small_network().eval(), list[Tensor]()
    network.get_submodule("encoder.neuron").register_forward_hook(
        lambda _module, _given, given: spikes.append(given)
    )
    for row in found.rows_of("ticket"):
        name = f"sparsity-{row['sparsity_asked']}" if row["sparsity_asked"] else "dense"
        network.load_state_dict(found.tensors[name])
        assert y is not None
        right = (network(x).sum(0).argmax(1) == y).float().mean()
        assert float(right) == row["validation_accuracy"] == row["test"]["accuracy"]
        rate = row["test"]["firing_rates"]["encoder.neuron"]
        assert rate == pytest.approx(float(spikes[-1].mean()))
    assert len(spikes) == 3
    assert not torch.equal(spikes[-1], spikes[-2])


def test_with_an_average_the_scores_that_rank_are_averaged(images: Path) -> None:
    data = open_recipe_data(recipe(images))
    assert isinstance(data.train, ImageSplit)
    last, averaged = (EdgePopup(data.train, kept=0.7, ema=ema) for ema in (None, 0.95))
    last.train()
    averaged.train()
    kept = kept_of(recipe(images, {"ema": 0.95}, sparsities=[0.3]))
    assert same(kept.masks["sparsity-0.3"], averaged.masks())
    assert not same(last.masks(), averaged.masks())


@pytest.mark.parametrize(
    "training",
    [
        {"ema": 0.5, "clip_norm": 0.1},
        {"optimizer": "adamw", "learning_rate": 0.01, "accumulate": 2},
        {"precision": "bf16", "channels_last": True},
    ],
)
def test_scores_learn_under_every_setting_of_training(
    training: dict[str, Any], images: Path
) -> None:
    kept = kept_of(recipe(images, training, sparsities=[0.5]))
    tensors, masks = kept.tensors["sparsity-0.5"], kept.masks["sparsity-0.5"]
    first = {
        key: highest(draw_scores(mask.shape, seed=0, key=key), 0.5) for key, mask in masks.items()
    }
    assert not same(masks, first)
    for key, mask in masks.items():
        drawn = draw_weight(mask.shape, "signed-constant", kept=0.5, seed=0, key=key)
        assert torch.equal(tensors[key], drawn * mask)


def test_a_network_and_a_loader_of_the_users_are_searched_too(images: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(SPIKINGJELLY)
    asked = with_model(recipe(images, dense=True, sparsities=[0.5]), f"{own}:build")
    data = asked.data.model_copy(update={"name": f"{own}:images", "crop": 0, "flip": False})
    kept = kept_of(asked.model_copy(update={"data": data}))
    tensors = kept.tensors["sparsity-0.5"]
    assert list(tensors)[:3] == ["conv.weight", "conv.bias", "norm.weight"]
    assert int(tensors["conv.weight"].count_nonzero()) == 14  # of 27
    assert int(tensors["fc.weight"].count_nonzero()) == 48
    assert not tensors["conv.bias"].any()
    assert kept.tensors["dense"]["lif.w"] != 0  # it learnt; tau = 2 is where it began
    assert tensors["lif.w"] == 0
    assert kept.rows_of("ticket")[1]["pruned"] == 13 + 48


@pytest.mark.parametrize(
    ("function", "message"),
    [("normed", "is made by weight_norm"), ("pruned", "is masked by torch.nn.utils.prune")],
)
def test_what_cannot_be_masked_is_refused_before_the_dense_network_is_trained(
    function: str, message: str, images: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.py"
    own.write_text(UNSEARCHABLE)
    asked, kept = with_model(recipe(images, dense=True), f"{own}:{function}"), Kept()
    with pytest.raises(InputError, match=message):
        search(asked, open_recipe_data(asked), device=CPU, run=kept)
    assert kept.rows == []


def test_a_recipe_without_the_section_takes_its_defaults(images: Path) -> None:
    kept = kept_of(recipe_for(images, {"epochs": 1}))
    assert list(kept.tensors) == [f"sparsity-{s}" for s in (0.1, 0.3, 0.5, 0.7, 0.9)]


def test_networks_of_another_seed_are_drawn_anew(images: Path, found: Kept) -> None:
    other = kept_of(recipe(images).model_copy(update={"seed": 1}))
    for key in WEIGHTS:
        masks = [kept.masks["sparsity-0.3"][key] for kept in (found, other)]
        tensors = [kept.tensors["sparsity-0.3"][key] for kept in (found, other)]
        both = masks[0] & masks[1]
        assert not torch.equal(tensors[0][both], tensors[1][both])


def test_a_warm_up_must_fit_into_a_search() -> None:
    settings = ["training.warmup_epochs=2", "search.epochs=2"]
    load_recipe("fashion-mnist-mini", settings, run=("imp",))
    with pytest.raises(UsageError, match=r"search\.epochs: 2 leave no room for 2 of warm-up"):
        load_recipe("fashion-mnist-mini", settings, run=("search",))


@pytest.mark.slow
def test_the_command_tables_pictures_and_says_when_nothing_is_left(
    run: Callable[..., CompletedProcess[str]], images: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "small.yaml", tmp_path / "run"
    path.write_text(dump_recipe(recipe(images, {"epochs": 1}, dense=True)))
    done = run("search", "--recipe", path, "--out", out)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["sparsity", "edge-popup"]
    assert [line.split()[0] for line in lines[2:4]] == ["30%", "90%"]
    assert lines[4].startswith("dense ")
    assert {"accuracy.png", "densities.svg", "DONE"} <= {each.name for each in out.iterdir()}
    again = run("search", "--resume", "--out", out)
    assert again.returncode == 0, again.stderr
    assert f"{out} holds a finished run: nothing to do" in again.stdout
