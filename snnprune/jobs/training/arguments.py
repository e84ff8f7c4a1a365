"""Arguments of the built-in models, checked without building any: that takes torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from snnprune.errors import InputError
from snnprune.recipe.section import Count, Section
from snnprune.recipe.wording import problem_of
from snnprune.spelling import did_you_mean


class NeuronArguments(Section):
    """Those of `snnprune.models.dynamics.Dynamics`."""

    beta: Annotated[float, Field(ge=0, le=1)] = 0.5
    threshold: float = 1.0
    reset: Literal["hard", "soft"] = "hard"
    v_reset: float = 0.0
    v_rest: float = 0.0
    decay_input: bool = False
    surrogate: Literal["atan", "triangle", "sigmoid"] = "atan"
    detach_reset: bool = True


class ModelArguments(Section):
    """Those of every built-in model."""

    in_channels: Count = 1
    size: Count = 1
    classes: Count = 1
    time_steps: Count = 1
    neuron: NeuronArguments | None = None


class ConvSnnArguments(ModelArguments):
    """Those of `conv-snn`."""

    width: Count = 1
    depth: Count = 1


ARGUMENTS: Mapping[str, type[ModelArguments]] = {
    "conv-snn": ConvSnnArguments,
    "res-snn-19": ModelArguments,
    "res-snn-19-light": ModelArguments,
    "snn-vgg-16": ModelArguments,
    "6conv2fc": ModelArguments,
}


def require_arguments(model: str, args: Mapping[str, Any]) -> None:
    """Refuse arguments that a built-in model does not take; of others nothing is known.

    Raises:
        InputError: there is no such argument, or its value is outside its range.
    """
    known = ARGUMENTS.get(model)
    if known is None:
        return
    for name in args:
        if name not in known.model_fields:
            raise InputError(
                f"{model} has no argument {name!r}",
                field="model.args",
                hint=did_you_mean(name, known.model_fields),
            )
    try:
        known.model_validate(dict(args))
    except ValidationError as error:
        found = problem_of(error.errors()[0], 0, root=known)
        field = f"model.args.{found.field}"
        raise InputError(found.message, field=field, hint=found.hint) from None
