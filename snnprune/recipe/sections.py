"""Sections of a recipe: the types that they are made of and their limits, and those of methods."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
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
Part = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Bits = Annotated[int, Field(ge=2, le=16)]
NotNegative = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Section(BaseModel):
    """Part of a recipe: unknown settings, NaN and coercion (other than int to float) refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def make_fault(
    message: str, place: Sequence[str | int] = (), value: object = None
) -> InitErrorDetails:
    """What is wrong with the setting at `place`, to be raised by `refuse`."""
    error = PydanticCustomError("argument", "{message}", {"message": message})
    return InitErrorDetails(type=error, loc=tuple(place), input=value)


def refuse(section: str, faults: Sequence[InitErrorDetails]) -> None:
    """Raise the faults of a section, if there are any.

    Raises:
        ValidationError: there are.
    """
    if faults:
        raise ValidationError.from_exception_data(section, list(faults))


def require_increasing(values: Sequence[float]) -> None:
    """Refuse a list that does not grow.

    Raises:
        PydanticCustomError: it does not.
    """
    if list(values) != sorted(set(values)):
        raise PydanticCustomError("order", "the values should increase")


def require_plain(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments that a recipe may hold: numbers, switches, text and sections of them.

    Raises:
        ValidationError: there are others.
    """
    refuse("args", list(_find_not_plain(args, ())))
    return args


def _find_not_plain(args: dict[str, Any], path: tuple[str, ...]) -> Iterator[InitErrorDetails]:
    for key, value in args.items():
        place = (*path, key)
        if isinstance(value, dict) and len(place) <= MAX_ARGUMENT_DEPTH:
            yield from _find_not_plain(value, place)
        elif isinstance(value, dict):
            yield make_fault("nested too deeply", place, value)
        elif isinstance(value, float) and not math.isfinite(value):
            yield make_fault("Input should be a finite number", place, value)
        elif not isinstance(value, bool | int | float | str):
            yield make_fault(
                "Input should be a number, true, false, text or a section", place, value
            )


def rename_loss(name: Any) -> Any:
    """The name of today for a loss, which was called `per-step` once."""
    return "cross-entropy" if name == "per-step" else name


class TrainingSection(Section):
    """How it is trained."""

    epochs: Count = Field(description="passes over the training samples")
    batch_size: Count = Field(default=128, description="samples per optimizer step")
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
    loss: Annotated[Name, BeforeValidator(rename_loss)] = Field(
        default="cross-entropy",
        description="cross-entropy, the mean over time of those of each step; mean, that of the "
        "logits' mean; mse-rate, mse-count, tet, or file.py:function to a scalar",
    )
    loss_args: dict[Name, float] = Field(
        default={},
        description="arguments of the loss: correct and incorrect of mse-rate and mse-count, lamb "
        "and target of tet, or your function's own",
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


Sparsities = Annotated[tuple[Part, ...], Field(strict=False)]
Names = Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]


class GradualSection(Section):
    """Pruning inside one training run, by a cubic schedule; Zhu and Gupta 2017, arXiv 1710.01878.

    Only `train` and `finetune` look at it.
    """

    sparsity: Part = Field(description="share of the prunable weights pruned at the end, in (0, 1)")
    criterion: Name = Field(default="magnitude", description="what weights are ranked by")
    allocation: Name | None = Field(
        default=None, description="how the budget is shared; null: global, or pools beside sf"
    )
    start_epoch: NotNegative = Field(default=0, description="epoch in which the pruning begins")
    end_epoch: Count | None = Field(
        default=None, description="epoch before which it is done; null: three quarters of them"
    )
    steps: Count = Field(default=20, description="how often it prunes on the way")
    samples: Count = Field(default=1024, description="training samples to calibrate sf on")


class ImpSection(Section):
    """Iterative pruning with rewinding; Algorithm 1 of Yao et al. 2023, arXiv 2305.12148."""

    methods: Names = Field(
        default=("sf-imp-1",),
        description="imp, sf-imp-1, sf-imp-2, random, or any criterion; they share one dense run",
    )
    sparsities: Sparsities = Field(
        default=(), description="sparsity after each round, increasing; instead of rounds and rate"
    )
    rounds: Count = Field(default=15, description="rounds of pruning after the dense one")
    rate: Part = Field(
        default=0.25, description="share of the weights alive that a round prunes, in (0, 1)"
    )
    rewind_epoch: NotNegative = Field(
        default=0, description="epoch whose weights every round begins with"
    )
    rewind: Literal["weights", "learning-rate"] = Field(
        default="weights",
        description="weights, or learning-rate: weights stay and the schedule alone is rewound",
    )
    rewind_statistics: bool = Field(
        default=True,
        description="rewind BatchNorm's running statistics too; Kim et al. do not",
    )
    round_epochs: Count | None = Field(
        default=None, description="epochs of each round; null: training.epochs - rewind_epoch"
    )
    allocation: Name | None = Field(
        default=None, description="how the budget is shared; null: global, or pools beside sf"
    )
    repair: Literal["none", "bn"] = Field(
        default="none", description="what is mended before a round trains: none or bn"
    )
    surgery: Literal["rank", "dns"] = Field(
        default="rank",
        description="how sf-imp-2 lets weights return: ranked again each round, or dns within it",
    )
    early_time_steps: Count | None = Field(
        default=None,
        description="time steps while the ticket is searched for; the last round has all of them",
    )
    early_bird: Part | None = Field(
        default=None,
        description="distance between the masks of epochs below which training ends: "
        "0.1 (You et al.) or 0.02 (Kim et al.); see early_bird_ends",
    )
    early_bird_ends: Literal["rounds", "dense"] = Field(
        default="rounds",
        description="rounds: each round but the last; dense: the dense run, as published, from "
        "which each ticket is drawn on its way and then trained whole",
    )
    samples: Count = Field(default=1024, description="training samples to calibrate on")

    @field_validator("methods")
    @classmethod
    def _each_once(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(methods)) < len(methods):
            raise PydanticCustomError("methods", "each method should be named once")
        return methods

    @field_validator("sparsities")
    @classmethod
    def _growing(cls, sparsities: tuple[float, ...]) -> tuple[float, ...]:
        require_increasing(sparsities)
        return sparsities

    @field_validator("early_bird_ends")
    @classmethod
    def _at_a_distance(cls, ends: str, info: ValidationInfo) -> str:
        if ends == "dense" and info.data.get("early_bird") is None:
            raise PydanticCustomError("early_bird", "dense needs a distance, early_bird")
        return ends

    @property
    def drawn_while_dense(self) -> bool:
        """Whether tickets are drawn while the dense network trains, one for each sparsity."""
        return self.early_bird is not None and self.early_bird_ends == "dense"

    @property
    def targets(self) -> tuple[float, ...]:
        """The sparsity after each round, in (0, 1)."""
        return self.sparsities or tuple(1 - (1 - self.rate) ** n for n in range(1, self.rounds + 1))


class SearchSection(Section):
    """Sub-networks without weight training; Ramanujan et al. 2020, arXiv 1911.13299."""

    sparsities: Annotated[Sparsities, Field(min_length=1)] = Field(
        default=(0.1, 0.3, 0.5, 0.7, 0.9),
        description="share of the weights of each layer that is masked, increasing",
    )
    weights: Literal["signed-constant", "kaiming-normal"] = Field(
        default="signed-constant", description="what the weights are drawn from, never trained"
    )
    dense: bool = Field(default=False, description="also train the whole network, to compare with")
    epochs: Count | None = Field(
        default=None, description="epochs of each search; null: training.epochs"
    )

    @field_validator("sparsities")
    @classmethod
    def _growing(cls, sparsities: tuple[float, ...]) -> tuple[float, ...]:
        require_increasing(sparsities)
        return sparsities


class FinetuneSection(Section):
    """Training of a pruned checkpoint, its masks held."""

    epochs: Count | None = Field(default=None, description="null: a tenth of training.epochs")
    learning_rate: Positive | None = Field(
        default=None, description="null: a tenth of training.learning_rate"
    )
    distillation: Share = Field(
        default=0.5,
        description="weight of the teacher's word beside that of the labels, in [0, 1)",
    )
    temperature: Positive = Field(
        default=2.0, description="what the logits are divided by for the teacher's word"
    )


class OutputSection(Section):
    """Where a run goes."""

    folder: Name | None = Field(
        default=None, description="the run folder; null: runs/ and the recipe's name"
    )
    tensorboard: bool = Field(
        default=False, description="also write TensorBoard events; needs the package tensorboard"
    )
