"""Train with `snnprune.MaskCallback` in Lightning's own Trainer, by both names that it goes by.

It needs lightning or pytorch-lightning, which the tests do not.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import snnprune
from snnprune.training.holding import HOMES

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def make_module(lightning: Any) -> Any:
    """A small LightningModule."""

    class Small(lightning.LightningModule):  # type: ignore[misc]  # a class of a package not here
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 0.01)

    return Small()


def train(home: str) -> None:
    """Masks are held, and gone with the training."""
    lightning = import_module(home)
    module = make_module(lightning)
    masks = {"0.weight": torch.rand(5, 6) > 0.5, "2.weight": torch.rand(3, 5) > 0.5}
    callback = snnprune.MaskCallback(masks)
    assert isinstance(callback, lightning.Callback)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[callback],
        enable_checkpointing=False,
        gradient_clip_val=0.5,
        accumulate_grad_batches=2,
        **QUIET,
    )
    samples = TensorDataset(torch.randn(64, 6), torch.arange(64) % 3)
    trainer.fit(module, DataLoader(samples, 16))
    for key, mask in masks.items():
        weight = module.net.get_parameter(key)
        assert not weight[~mask].any()
        assert weight[mask].all()
        assert not weight._post_accumulate_grad_hooks
        remembered = trainer.optimizers[0].state[weight]["exp_avg"]
        assert not remembered[~mask].any()
        assert remembered[mask].any()
    print(f"{home} {import_module(home.partition('.')[0]).__version__}: {callback.holder}")


if __name__ == "__main__":
    found = [home for home in HOMES if find_spec(home.partition(".")[0]) is not None]
    if not found:
        sys.exit("there is no Lightning here")
    for home in found:
        train(home)
