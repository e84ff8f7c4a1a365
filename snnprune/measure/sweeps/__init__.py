"""What a calibration pass adds up of tensors: by one sweep of a kernel, or by torch's operations.

The kernel is taken where it gives the same bits, so that no statistic depends on it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from snnprune.measure.channel_sums import (
    ONE_CHANNEL,
    ChannelHistogram,
    ChannelMean,
    StepMoments,
    align_spikes,
    reshape_to_blocks,
)
from snnprune.measure.sweeps.native import LONGEST, choose_native, fits


def add_inputs(mean: ChannelMean, x: Tensor, axis: int) -> None:
    """Take in what enters a layer, its channels at `axis`, counted from the end."""
    native = choose_native(x) if mean.values == "binary" else None
    ones = native.count_ones(_reshape_to_rows(x, axis)) if native else None
    if ones is not None:
        mean.add_ones(ones, x.numel() // len(ones))
        return
    for block in _split_channels(x, axis):
        mean.add(block)


def add_membrane(
    moments: StepMoments, histogram: ChannelHistogram, distance: Tensor, axis: int, *, first: int
) -> bool:
    """Take in u - u_th (T, N, ...), its channels at `axis`, of time steps from `first` on.

    False, and not all is taken in, where one is NaN or infinite.
    """
    native = choose_native(distance) if _is_for_kernel(distance, axis) else None
    if native is not None:
        return all(
            native.add_membrane(block, moments.at(step), histogram)
            for step, u in enumerate(distance, start=first)
            for block in reshape_to_blocks(u, axis)
        )
    for step, u in enumerate(distance, start=first):
        for block in _split_channels(u, axis):
            moments.at(step).add(block)
    # once for all channels and steps: each look at the values waits for the device
    if not bool(moments.compute_variance().isfinite().all()):
        return False
    for block in _split_channels(distance, axis):
        histogram.add(block)
    return True


def _is_for_kernel(distance: Tensor, axis: int) -> bool:
    """Whether there are several channels of rows of several values, which are not too long."""
    length = 1 if axis == ONE_CHANNEL else distance.shape[axis:][1:].numel()
    return 1 < length <= LONGEST and distance.shape[axis] > 1


def add_spikes(
    mean: ChannelMean,
    spikes: Tensor,
    distances: Sequence[Tensor],
    axis: int | None,
    *,
    at_threshold: bool,
) -> bool:
    """Take in spikes that follow from u - u_th, (T, N, ...) in pieces; False if they do not.

    Nothing is taken in where `axis`, that of the channels, is None.
    """
    if axis is not None and mean.values == "binary":
        ones = _count_spikes(spikes, distances, axis, at_threshold=at_threshold)
        if ones is not None:
            mean.add_ones(ones, spikes.numel() // len(ones))
            return True
    whole = torch.cat(tuple(distances))
    found = align_spikes(spikes, whole >= 0 if at_threshold else whole > 0)
    if found is None:
        return False
    for block in () if axis is None else _split_channels(found, axis):
        mean.add(block)
    return True


def _count_spikes(
    spikes: Tensor, distances: Sequence[Tensor], axis: int, *, at_threshold: bool
) -> Tensor | None:
    """Spikes of each channel, (C,), if each is 1 where its membrane says so and 0 elsewhere."""
    native = choose_native(spikes)
    sizes = [distance.numel() for distance in distances]
    if native is None or sum(sizes) != spikes.numel() or not all(map(fits, distances)):
        return None
    total: Tensor | None = None
    for part, distance in zip(spikes.view(-1).split(sizes), distances, strict=True):
        rows = _reshape_to_rows(distance, axis)
        ones = native.count_spikes(part.view_as(rows), rows, at_threshold=at_threshold)
        if ones is None:
            return None
        total = ones if total is None else total + ones
    return total


def _reshape_to_rows(x: Tensor, axis: int) -> Tensor:
    """(A, C, S) of what has its channels at `axis`, counted from the end."""
    if axis == ONE_CHANNEL:
        return x.reshape(-1, 1, 1)
    before, after = x.shape[:axis], x.shape[axis:][1:]
    return x.reshape(before.numel(), x.shape[axis], after.numel())


def _split_channels(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """The same in blocks."""
    return (
        reshape_to_blocks(x.reshape(-1, 1), -1)
        if axis == ONE_CHANNEL
        else reshape_to_blocks(x, axis)
    )
