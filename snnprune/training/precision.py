"""Automatic mixed precision, as recipes ask for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from snnprune.recipe import TrainingSection

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(training: TrainingSection, device: str) -> AbstractContextManager[object]:
    """The block in which a pass on that type of device is run in the recipe's precision."""
    if training.precision == "off":
        return nullcontext()
    return torch.autocast(device, dtype=AUTOCAST[training.precision])
