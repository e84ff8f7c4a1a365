"""The pruned tensors of a checkpoint, repaired."""

from __future__ import annotations

from torch import Tensor

from snnprune.errors import InputError
from snnprune.jobs.subject import Subject
from snnprune.mask import masked
from snnprune.progress import Progress
from snnprune.pruning import Cut
from snnprune.repair import batchnorms, recalibrate_batchnorm


def choose_repair(subject: Subject, asked: str | None) -> str:
    """The repair asked for; by default `bn` where the network has BatchNorm and there is data."""
    able = subject.runnable is not None and bool(batchnorms(subject.runnable.module))
    if asked == "bn" and not able:
        raise InputError(
            f"there is no BatchNorm to repair: {subject.missing or 'the network has none'}",
            file=subject.checkpoint.path,
            field="--repair",
            hint="choose none",
        )
    return asked or ("bn" if able else "none")


def pruned_tensors(
    subject: Subject, cut: Cut, repair: str, progress: Progress
) -> dict[str, Tensor]:
    """The checkpoint's tensors, pruned and repaired; the subject's network is left holding them."""
    tensors = masked(subject.checkpoint.tensors, cut.masks)
    if subject.network is None:
        return tensors
    module = subject.network.module
    module.load_state_dict(tensors)
    if repair == "bn":
        batches = progress.track(
            subject.calibration_batches(),
            label="repairing BatchNorm",
            total=subject.calibration_steps(),
        )
        recalibrate_batchnorm(subject.network, batches)
        repaired = module.state_dict()
        for norm in batchnorms(module):
            for key in (norm, norm.replace("running_var", "running_mean")):
                tensors[key] = repaired[key].to("cpu", tensors[key].dtype, copy=True)
    return tensors
