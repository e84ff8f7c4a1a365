"""The settings that a recipe may hold, their types, limits and defaults."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

MAX_ARGUMENT_DEPTH = 8  # sections within sections of model.args, far below what YAML may nest

Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Part of a recipe: unknown settings, NaN and coercion (other than int to float) refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _require_plain(args: dict[str, Any]) -> dict[str, Any]:
    faults = list(_not_plain(args, ()))
    if faults:
        raise ValidationError.from_exception_data("args", faults)
    return args


def _not_plain(args: dict[str, Any], path: tuple[str, ...]) -> Iterator[InitErrorDetails]:
    for key, value in args.items():
        place = (*path, key)
        if isinstance(value, dict) and len(place) <= MAX_ARGUMENT_DEPTH:
            yield from _not_plain(value, place)
        elif isinstance(value, dict):
            yield _fault("nested too deeply", place, value)
        elif isinstance(value, float) and not math.isfinite(value):
            yield _fault("Input should be a finite number", place, value)
        elif not isinstance(value, bool | int | float | str):
            yield _fault("Input should be a number, true, false, text or a section", place, value)


def _fault(message: str, place: tuple[str, ...], value: object) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("argument", message), loc=place, input=value)


class ModelSection(Section):
    """Which network is built."""

    name: Name = Field(description="a built-in model, package.module:function or file.py:function")
    args: Annotated[dict[str, Any], AfterValidator(_require_plain)] = Field(
        default={},
        description="arguments of the model's builder; channels, size and classes of the data "
        "are passed where absent",
    )


class DataSection(Section):
    """What it is trained on."""

    name: Name = Field(description="a built-in data set, imagefolder:DIR or tensors:FILE")
    validation: Share = Field(
        default=0.1, description="share of the training images split off, by seed, in [0, 1)"
    )
    crop: NotNegative = Field(
        default=0, description="random crop after padding each side, in pixels"
    )
    flip: bool = Field(default=False, description="flip half of the images left to right")


class TrainingSection(Section):
    """How it is trained."""

    epochs: Count = Field(description="passes over the training images")
    batch_size: Count = Field(default=128, description="images per optimizer step")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="sgd or adamw")
    learning_rate: Positive = Field(description="peak learning rate, above 0")
    momentum: Share = Field(default=0.9, description="momentum of sgd, in [0, 1)")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=5e-4, description="L2 penalty of sgd, decoupled decay of adamw, per step"
    )
    schedule: Literal["cosine", "step", "one-cycle", "constant"] = Field(
        default="cosine", description="course of the learning rate over the epochs"
    )
    step_epochs: Annotated[tuple[Count, ...], Field(strict=False)] = Field(
        default=(),
        validate_default=True,
        description="epochs at which schedule step lowers the learning rate, increasing",
    )
    step_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
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
    clip_norm: Positive | None = Field(
        default=None, description="largest norm of the whole gradient; null: no limit"
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


class Recipe(Section):
    """A training run."""

    model: ModelSection = Field(description="the section that names the network")
    data: DataSection = Field(description="the section that names the images")
    training: TrainingSection = Field(description="the section of epochs and learning rate")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="what every random draw is derived from"
    )


def section_at(path: Sequence[str | int]) -> type[BaseModel]:
    """The class of the section at `path`, such as ["training"]."""
    section: type[BaseModel] = Recipe
    for name in path:
        annotation = section.model_fields[str(name)].annotation
        assert isinstance(annotation, type)
        section = annotation
    return section
