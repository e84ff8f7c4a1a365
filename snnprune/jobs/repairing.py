"""The pruned tensors of a checkpoint, repaired."""

from __future__ import annotations

from torch import Tensor

from snnprune.errors import InputError, NonFiniteError
from snnprune.jobs.binding import load
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
    network = subject.network
    if network is None:
        return masked(subject.checkpoint.tensors, cut.masks)
    # a parameter that has two names in the file is pruned under both
    masks = {name: mask for key, mask in cut.masks.items() for name in network.tied(key)}
    tensors = masked(subject.checkpoint.tensors, masks)
    module = network.module
    load(module, tensors)
    if repair == "bn":
        batches = progress.track(
            subject.calibration_batches(),
            label="repairing BatchNorm",
            total=subject.calibration_steps(),
        )
        recalibrate_batchnorm(network, batches, run=subject.run)
        repaired = module.state_dict()
        for norm in batchnorms(module):
            for key in (norm, norm.replace("running_var", "running_mean")):
                tensors[key] = _stored(repaired[key], tensors[key], key)
        load(module, tensors)  # what is measured now is what the file will hold
    return tensors


def _stored(repaired: Tensor, before: Tensor, key: str) -> Tensor:
    """A statistic in the type that the file keeps it in."""
    stored = repaired.to("cpu", before.dtype, copy=True)
    if not bool(stored.isfinite().all()):
        raise NonFiniteError(
            f"does not fit into {str(before.dtype).removeprefix('torch.')} after repair",
            field=key,
            hint="choose --repair none, or convert the checkpoint to float32",
        )
    return stored
