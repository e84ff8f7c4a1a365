"""Training and `imp` on networks and batches of the user's own."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import CPU, Kept, same
from torch import Tensor

from snnprune.errors import InputError
from snnprune.graph.libraries import library_of
from snnprune.recipe.schema import Recipe
from snnprune.training.imp import imp
from snnprune.training.setup import open_recipe_data
from snnprune.training.step import Trainer
from snnprune.training.train import train

OWN = """
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader, TensorDataset


def batches():
    drawn = torch.Generator().manual_seed(0)
    y = torch.arange(12) % 2
    x = torch.rand(12, 1, 6, 6, generator=drawn) + y.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)


def spikingjelly():
    from spikingjelly.activation_based import layer, neuron

    return nn.Sequential(
        layer.Conv2d(1, 2, 3, padding=1), layer.BatchNorm2d(2), neuron.LIFNode(),
        layer.Conv2d(2, 4, 3, padding=1), layer.BatchNorm2d(4), neuron.LIFNode(),
        layer.Flatten(), layer.Linear(4 * 36, 2),
    )


def all_steps():
    from spikingjelly.activation_based import functional

    made = spikingjelly()
    functional.set_step_mode(made, "m")
    return made


def at_once(module, x):
    return module(x.repeat(3, 1, 1, 1, 1))


def precise():
    made = all_steps()
    made[2]._neuron_precision = (torch.float16, "fp16", "fp16")  # as set_neuron_precision does
    return made


def three_steps(module, x):
    return [module(x) for _ in range(3)]


def last_two(steps):
    return steps[-2] + steps[-1]


class Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + u * u)


class Own(nn.Module):
    def __init__(self, forgets):
        super().__init__()
        self.hidden, self.out, self.forgets = nn.Linear(36, 8), nn.Linear(8, 2), forgets
        self.membrane = torch.zeros(1, 8)

    def forward(self, x):
        if self.forgets:
            self.membrane = torch.zeros(1, 8)
        logits = []
        for _ in range(2):
            self.membrane = 0.5 * self.membrane + self.hidden(x.flatten(1))
            spikes = Heaviside.apply(self.membrane - 1)
            self.membrane = self.membrane * (1 - spikes)
            logits.append(self.out(spikes))
        return torch.stack(logits)


def forgets():
    return Own(True)


def remembers():
    return Own(False)


def normed():
    own = Own(True)
    weight_norm(own.out)
    return own
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def recipe(own: Path, name: str, **model: Any) -> Recipe:
    model = {key: f"{own}:{value}" for key, value in {"name": name, **model}.items()}
    return Recipe.model_validate(
        {
            "model": model,
            "data": {"name": f"{own}:batches"},
            "training": {"epochs": 2, "batch_size": 4, "learning_rate": 0.1},
            "imp": {"methods": ["imp", "sf-imp-1"], "sparsities": [0.5, 0.75], "samples": 8},
        }
    )


def test_a_network_of_spikingjelly_with_batches_forward_and_readout_of_ones_own(own: Path) -> None:
    asked = recipe(own, "spikingjelly", forward="three_steps", readout="last_two")
    first, again = found_by(asked), found_by(asked)
    assert same(first.tensors["sf-imp-1/round-02"], again.tensors["sf-imp-1/round-02"])
    assert first.rows == again.rows
    tickets = first.rows_of("ticket")
    total = 2 * 9 + 4 * 2 * 9 + 4 * 36 * 2
    assert [row["pruned"] for row in tickets] == [0, *[round(0.5 * total), round(0.75 * total)] * 2]
    measured = {(row["measured"]["images"], row["measured"]["samples"]) for row in tickets}
    assert measured == {("validation", 2)}  # one would be no batch
    for folder, masks in first.masks.items():
        assert all(not first.tensors[folder][key][~mask].any() for key, mask in masks.items())
    assert not same(first.masks["imp/round-02"], first.masks["sf-imp-1/round-02"])


def found_by(asked: Recipe) -> Kept:
    run = Kept()
    imp(asked, open_recipe_data(asked), device=CPU, run=run)
    return run


def test_neurons_of_a_known_library_begin_every_batch_at_rest(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Any] = []
    train_on = Trainer.train_on

    def watched(trainer: Trainer, x: Tensor, y: Tensor) -> tuple[float, int]:
        if not entered:
            neurons = [m for m in trainer.module.modules() if library_of(m)]
            neurons[0].register_forward_pre_hook(
                lambda neuron, _: entered.append(neuron.v) if neuron.training else None
            )
        return train_on(trainer, x, y)

    monkeypatch.setattr(Trainer, "train_on", watched)
    asked = recipe(own, "spikingjelly", forward="three_steps")
    train(asked, open_recipe_data(asked), device=CPU)
    of_batches = [entered[start : start + 3] for start in range(0, len(entered), 3)]
    assert len(of_batches) == 2 * 3
    for first, *others in of_batches:
        assert isinstance(first, float)  # not yet a tensor: at rest
        assert first == 0
        assert all(isinstance(other, Tensor) for other in others)


def test_a_neuron_whose_precision_needs_a_gpu_is_trained_here_by_plain_operations(
    own: Path,
) -> None:
    asked, plain = (recipe(own, name, forward="at_once") for name in ("precise", "all_steps"))
    found, expected = (train(one, open_recipe_data(one), device=CPU) for one in (asked, plain))
    assert same(found.tensors, expected.tensors)


def test_a_neuron_of_ones_own_that_is_not_reset_is_told_in_one_line(own: Path) -> None:
    found = train(recipe(own, "forgets"), open_recipe_data(recipe(own, "forgets")), device=CPU)
    assert len(found.epochs) == 2
    asked = recipe(own, "remembers")
    with pytest.raises(InputError) as caught:
        train(asked, open_recipe_data(asked), device=CPU)
    told = str(caught.value)
    assert told.startswith("model.name: its neurons keep their state from one batch to the next.")
    assert "\n" not in told


def test_weight_norm_can_be_trained_and_not_pruned(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(own, "normed")
    found = train(asked, open_recipe_data(asked), device=CPU)
    assert any("original" in key for key in found.tensors)
    monkeypatch.setattr(Trainer, "train_on", lambda *_: pytest.fail("trained"))
    told = r"^model\.name: out\..*weight.* is made by .* and cannot be pruned$"
    with pytest.raises(InputError, match=told):
        imp(asked, open_recipe_data(asked), device=CPU)
    gradual = Recipe.model_validate({**asked.model_dump(), "gradual": {"sparsity": 0.5}})
    with pytest.raises(InputError, match=told):
        train(gradual, open_recipe_data(gradual), device=CPU)
