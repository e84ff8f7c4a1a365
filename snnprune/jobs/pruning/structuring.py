"""`prune --structure`: what cuts to a structure."""

from __future__ import annotations

from snnprune.errors import InputError
from snnprune.jobs.subjects.subject import Subject
from snnprune.one_shot import Plan
from snnprune.one_shot.one_shot import Cutting
from snnprune.structure import UNSTRUCTURED, Structure
from snnprune.structure.channels import ChannelCutting
from snnprune.structure.patterns import PatternCutting


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
