"""How a network is trained."""

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from snnprune.recipe.section import Count, NotNegative, Part, Positive, Section, Share


class TrainingSection(Section):
    """How it is trained."""

    epochs: Count = Field(description="passes over the training images")
    batch_size: Count = Field(default=128, description="images per optimizer step")
    accumulate: Count = Field(
        default=1, description="pieces that a batch is run in, to need less memory"
    )
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd or adamw")
    learning_rate: Positive = Field(description="peak learning rate, above 0")
    momentum: Share = Field(default=0.9, description="momentum of sgd, in [0, 1)")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=5e-4, description="L2 penalty of sgd, decoupled decay of adamw, per step"
    )
    schedule: Literal["cosine", "cosine-epoch", "step", "one-cycle", "constant"] = Field(
        default="cosine",
        description="course of the learning rate over the epochs; cosine falls with every step, "
        "cosine-epoch after every epoch",
    )
    step_epochs: Annotated[tuple[Count, ...], Field(strict=False)] = Field(
        default=(),
        validate_default=True,
        description="epochs at which schedule step lowers the learning rate, increasing",
    )
    step_factor: Part = Field(
        default=0.1, description="what schedule step multiplies the learning rate by, in (0, 1)"
    )
    warmup_epochs: NotNegative = Field(
        default=0, description="epochs over which the learning rate first rises from 0"
    )
    label_smoothing: Share = Field(
        default=0.0, description="share of the target spread over all classes, in [0, 1)"
    )
    loss: Literal["per-step", "mean"] = Field(
        default="per-step",
        description="mean over time of the cross-entropies, or cross-entropy of the logits' mean",
    )
    precision: Literal["off", "bf16", "fp16"] = Field(
        default="off", description="automatic mixed precision"
    )
    channels_last: bool = Field(
        default=False, description="lay pictures out with their channels last, faster on GPUs"
    )
    clip_norm: Positive | None = Field(
        default=None, description="largest norm of the whole gradient; null: no limit"
    )
    ema: Part | None = Field(
        default=None,
        description="decay per step of an average of the weights, which is then what is kept; "
        "null: no average",
    )

    @field_validator("step_epochs")
    @classmethod
    def _steps_within_training(
        cls, steps: tuple[int, ...], info: ValidationInfo
    ) -> tuple[int, ...]:
        epochs = info.data.get("epochs", math.inf)
        if info.data.get("schedule") == "step" and not steps:
            raise PydanticCustomError("steps", "schedule step needs at least one epoch here")
        if list(steps) != sorted(set(steps)):
            raise PydanticCustomError("steps", "the epochs should increase")
        if steps and steps[-1] >= epochs:
            raise PydanticCustomError(
                "steps", f"{steps[-1]} should be less than epochs, which is {epochs}"
            )
        return steps

    @field_validator("warmup_epochs")
    @classmethod
    def _warmup_within_training(cls, warmup: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs", math.inf)
        if warmup >= epochs:
            raise PydanticCustomError(
                "warmup", f"{warmup} should be less than epochs, which is {epochs}"
            )
        if warmup and info.data.get("schedule") == "one-cycle":
            raise PydanticCustomError("warmup", "schedule one-cycle has a warm-up of its own")
        return warmup
