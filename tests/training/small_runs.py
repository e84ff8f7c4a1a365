"""Runs of `imp` on 16 images of 6 x 6 that take a tenth of a second, and a look inside."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from snnprune.data import DataSet
from snnprune.masks import Masks
from snnprune.recipe.schema import Recipe
from snnprune.training import Round
from snnprune.training.imp import imp
from snnprune.training.rounds import ImpRun
from snnprune.training.runs import Unsaved
from snnprune.training.setup import open_recipe_data
from snnprune.training.step import Trainer
from snnprune.training.tickets import TicketResults
from snnprune.training.weights import copy_to_cpu

CPU = torch.device("cpu")
EPOCHS, STEPS = 3, 3  # per epoch
WEIGHTS = ("encoder.conv.weight", "blocks.0.conv.weight", "classifier.weight")
PASSING = ("encoder.conv.weight", "classifier.weight")  # what sf does not suit


def write_images(path: Path) -> Path:
    """16 noisy images of two classes: 12 to train on, 4 to validate."""
    draws, labels = torch.Generator().manual_seed(0), torch.arange(16) % 2
    x = torch.rand(16, 1, 6, 6, generator=draws) + labels.view(-1, 1, 1, 1)
    test = {"x_test": x.roll(1, -1), "y_test": labels.clone()}
    save_file({"x": x, "y": labels, **test}, path)
    return path


def recipe_for(images: Path, training: Mapping[str, Any] | None = None, **sections: Any) -> Recipe:
    """Three epochs of three steps; `training` and `sections` change or add settings."""
    return Recipe.model_validate(
        {
            "model": {"name": "conv-snn", "args": {"width": 2, "depth": 2, "time_steps": 2}},
            "data": {"name": f"tensors:{images}", "validation": 0.25, "crop": 1, "flip": True},
            "training": {
                "epochs": EPOCHS,
                "batch_size": 4,
                "learning_rate": 0.1,
                **(training or {}),
            },
            **sections,
        }
    )


@dataclass
class Kept(Unsaved):
    """A run that keeps in memory what it is given."""

    tensors: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    masks: dict[str, Masks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def keep(
        self,
        folder: str,
        tensors: Mapping[str, Tensor],
        masks: Masks,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.tensors[folder], self.masks[folder] = tensors, masks

    def rows_of(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == kind]


@dataclass(frozen=True, kw_only=True)
class Start:
    """A round as its training begins."""

    tensors: Mapping[str, Tensor]
    masks: Masks
    trainer: Trainer
    remembered: int
    """Parameters that the optimizer remembers something of."""
    time_steps: int


class Found:
    """A finished run of `imp`: what it kept, and how its rounds began."""

    def __init__(self, recipe: Recipe, data: DataSet | None = None) -> None:
        self.kept, self.starts, self.recipe = Kept(), dict[str, Start](), recipe
        self.data = data or open_recipe_data(recipe)
        with pytest.MonkeyPatch.context() as patch:
            train = ImpRun.train

            def watched(rounds: ImpRun, round_: Round) -> None:
                self.starts[round_.folder] = _start(rounds)
                train(rounds, round_)

            patch.setattr(ImpRun, "train", watched)
            self.tickets: TicketResults = imp(recipe, self.data, device=CPU, run=self.kept)

    def epochs(self, method: str, number: int) -> list[dict[str, Any]]:
        """Its rows of a round."""
        rows = self.kept.rows_of("epoch")
        return [row for row in rows if (row["method"], row["round"]) == (method, number)]


def _start(rounds: ImpRun) -> Start:
    trainer = rounds.trainer
    return Start(
        tensors=copy_to_cpu(trainer.module),
        masks=trainer.masking.copy_masks(),
        trainer=trainer,
        remembered=len(trainer.optimizer.state),
        time_steps=int(trainer.module.get_submodule("encoder").time_steps),  # type: ignore[arg-type]  # an int
    )


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether both are alike to the bit."""
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)
