"""The networks that snnprune can build by name; listing them imports no torch."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snnprune.errors import InputError, did_you_mean, error_class_for
from snnprune.plugins.names import (
    Registry,
    RegistryRow,
    encode_references,
    explain_text_argument,
    flag_of,
    load_objects,
)
from snnprune.plugins.user_code import guard_user_code, is_module_class

if TYPE_CHECKING:
    from torch import nn


NOTE = "snnprune.model"
"""Metadata that tell of what model the weights of a file are."""
MODELS = Registry(
    kind="model",
    group="snnprune.models",
    rows={
        "conv-snn": RegistryRow(
            target="snnprune.models.networks:conv_snn",
            summary="plain convolutional SNN; width and depth are arguments",
        ),
        "res-snn-19": RegistryRow(
            target="snnprune.models.networks:res_snn_19",
            summary="ResNet-19 of Zheng et al. 2021: stem 128, strides 1, 2, 2",
        ),
        "res-snn-19-light": RegistryRow(
            target="snnprune.models.networks:res_snn_19_light",
            summary="ResNet-19 of Kim et al. 2022: stem 64, strides 2, 2, 2",
        ),
        "snn-vgg-16": RegistryRow(
            target="snnprune.models.networks:snn_vgg_16",
            summary="VGG-16 with one linear layer, as Kim et al. 2022",
        ),
        "6conv2fc": RegistryRow(
            target="snnprune.models.networks:six_conv_two_fc",
            summary="six convolutions, two linear layers and a vote, as Fang et al. 2021",
        ),
        "recurrent-snn": RegistryRow(
            target="snnprune.models.networks:recurrent_snn",
            summary="recurrent layers for events (T, N, channels), as of SHD; width and depth are "
            "arguments",
        ),
    },
)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model by name and arguments: what a recipe asks for and a checkpoint remembers."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    """Numbers, text and the like; a `Reference` stands for an object of the user's."""
    builder: Callable[[], nn.Module] | None = field(default=None, compare=False)
    """What builds it, where it is not found by its name."""

    def as_metadata(self) -> dict[str, str]:
        """The metadata that name it in a file of its weights."""
        return {NOTE: json.dumps({"name": self.name, "args": encode_references(dict(self.args))})}


def build_model(spec: ModelSpec, *, field: str = "--model") -> nn.Module:
    """The module that `spec` names, with fresh weights.

    Raises:
        UsageError: there is no such model or argument, and `field` is a flag.
        InputError: likewise, in a file; or it cannot be built so, or an argument cannot be had.
    """
    from snnprune.graph.libraries import allow_missing_kernels

    if spec.builder is not None:
        return spec.builder()
    builder = _load_builder(spec, field)
    _check_arguments(builder, spec, field)
    flag = flag_of(field)
    args = load_objects(spec.args, flag=flag)
    with (
        explain_text_argument(args, flag=flag),
        guard_user_code(spec.name, field=field),
        allow_missing_kernels(),
    ):
        module = builder(**args)
    return _require_module(module, spec, field)


def read_argument(spec: ModelSpec, name: str, *, field: str = "--model") -> Any:
    """What the builder of `spec` gets for an argument, its default included; None without one."""
    parameter = _read_parameters(_load_builder(spec, field)).get(name)
    default = parameter.default if parameter else None
    return spec.args.get(name, None if default is inspect.Parameter.empty else default)


def has_argument(spec: ModelSpec, argument: str, *, field: str = "--model") -> bool:
    """Whether the builder of `spec` has a parameter of that name."""
    return argument in _read_parameters(_load_builder(spec, field))


def _load_builder(spec: ModelSpec, field: str) -> Callable[..., Any]:
    builder = MODELS.load(spec.name, field=field)
    if not callable(builder):
        raise InputError(f"{spec.name} is not a function", field=field)
    if isinstance(builder, type) and not is_module_class(builder):
        raise InputError(f"{spec.name} is no torch.nn.Module", field=field)
    return builder


def _read_parameters(builder: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(builder).parameters)
    except ValueError:  # some builtins have no signature
        return {}


def _check_arguments(builder: Any, spec: ModelSpec, field: str) -> None:
    parameters = _read_parameters(builder)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for name in spec.args:
        if name not in parameters:
            raise error_class_for(field)(
                f"{spec.name} has no argument {name!r}",
                field=field,
                hint=did_you_mean(name, parameters),
            )


def _require_module(module: Any, spec: ModelSpec, field: str) -> nn.Module:
    from torch import nn

    if not isinstance(module, nn.Module):
        raise InputError(
            f"{spec.name} returned {type(module).__name__}, not a torch.nn.Module", field=field
        )
    return module
