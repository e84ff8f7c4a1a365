"""The pruned tensors of a checkpoint, repaired."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from snnprune.errors import InputError, NonFiniteError
from snnprune.jobs.binding import load
from snnprune.jobs.subject import Subject
from snnprune.mask import masked
from snnprune.network.aliases import aliases
from snnprune.progress import Progress
from snnprune.pruning import Cut
from snnprune.repair.batchnorm import batchnorms, recalibrate_batchnorm


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
    # a parameter that has two names in the file is pruned under both
    tied = subject.prunable.tied
    masks = {name: mask for key, mask in cut.masks.items() for name in tied.get(key, (key,))}
    tensors = masked(subject.checkpoint.tensors, masks)
    network = subject.network
    if network is None:
        return tensors
    module = network.module
    load(module, tensors)
    if repair == "bn":
        batches = progress.track(
            subject.calibration_batches(),
            label="repairing BatchNorm",
            total=subject.calibration_steps(),
        )
        recalibrate_batchnorm(network, batches, run=subject.run)
        tensors |= _repaired(module, tensors)
        load(module, tensors)  # what is measured now is what the file will hold
    return tensors


def _repaired(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The statistics of every BatchNorm, under all the names that `tensors` have them by."""
    repaired, same = module.state_dict(), aliases(module)
    statistics = [
        f"{variance.removesuffix('running_var')}{kind}"
        for variance in batchnorms(module)
        for kind in ("running_mean", "running_var")
    ]
    return {
        name: _stored(repaired[key], tensors[name], name)
        for key in statistics
        for name in same[key]
        if name in tensors
    }


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
