"""Pruning to a structure: how it is cut, and the smaller file of a built-in network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnprune.batches import copied
from snnprune.errors import InputError
from snnprune.jobs.subjects.binding import load
from snnprune.jobs.subjects.subject import Subject
from snnprune.mask import Masks
from snnprune.models import MODELS, argument, build_model
from snnprune.network import evaluating
from snnprune.one_shot import Plan
from snnprune.one_shot.one_shot import Cutting
from snnprune.randomness import generator
from snnprune.structure import UNSTRUCTURED, Structure
from snnprune.structure.channels import ChannelCutting
from snnprune.structure.patterns import PatternCutting
from snnprune.structure.slimming import resized, slim


def cutting_of(structure: Structure, subject: Subject, plan: Plan) -> Cutting | None:
    """What cuts to a structure; None for weights one by one.

    Raises:
        InputError: channels are asked for, and there is no network or none that can go.
    """
    if structure.is_pattern:
        return PatternCutting(structure, subject.network.layers if subject.network else None)
    if structure.name == UNSTRUCTURED:
        return None
    if subject.network is None:
        raise InputError(
            f"channels need the network: {subject.missing}",
            file=subject.checkpoint.path,
            field="--structure",
            hint="give --model, or choose N:M",
        )
    return ChannelCutting(subject.network, locally=plan.allocation == "local")


@dataclass(frozen=True, kw_only=True)
class Small:
    """A network without the channels that are gone."""

    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]


def smaller(
    subject: Subject, tensors: Mapping[str, Tensor], masks: Masks, cutting: Cutting | None
) -> Small | None:
    """A built-in network without the channels that are gone, run beside the whole one first.

    None for a network of the user's own, whose code asks for the whole size.

    Raises:
        InputError: the two do not put out the same.
    """
    spec, network = subject.spec, subject.network
    if not isinstance(cutting, ChannelCutting) or spec is None or spec.name not in MODELS.rows:
        return None
    assert network is not None
    small = slim(network, tensors, cutting.removed)
    module = resized(build_model(spec), small).to(subject.device)
    load(module, small)
    x = _example(subject)
    with torch.no_grad(), evaluating(network.module), evaluating(module):
        whole, part = (subject.run(one, copied(x)) for one in (network.module, module))
    if not torch.allclose(whole, part, atol=1e-3, rtol=1e-3):
        raise InputError(
            "the network without the channels puts out something else",
            file=subject.checkpoint.path,
            field="--structure",
            hint="report this, and give --structure unstructured",
        )
    return Small(tensors=small, masks=slim(network, masks, cutting.removed))


def _example(subject: Subject) -> Any:
    """Some images, or noise where there are none."""
    if subject.data is not None and subject.data.train is not None:
        return next(subject.calibration_batches())[0]
    assert subject.spec is not None
    channels, size = (argument(subject.spec, name) for name in ("in_channels", "size"))
    drawn = generator(subject.options.seed, "example")
    return torch.rand(2, channels, size, size, generator=drawn).to(subject.device)
