"""What passes over data add up of tensors: by one sweep of a kernel, or by torch's operations.

The kernel, `kernel.cpp` on the CPU, is taken where it gives the same bits, so that no statistic
depends on it.
"""

import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from snnprune.measure.channel_sums import (
    HISTOGRAM,
    ONE_CHANNEL,
    ChannelHistogram,
    ChannelMean,
    ChannelMoments,
    StepMoments,
    align_spikes,
    reshape_to_blocks,
)
from snnprune.runtime import UnavailableError, count_threads, load_library


def add_inputs(mean: ChannelMean, x: Tensor, axis: int) -> None:
    """Take in what enters a layer, its channels at `axis`, counted from the end."""
    native = choose_native(x) if mean.values == "binary" else None
    ones = native.count_ones(_reshape_to_rows(x, axis)) if native else None
    if ones is not None:
        mean.add_ones(ones, x.numel() // len(ones))
        return
    for block in _split_channels(x, axis):
        mean.add(block)


def sum_channels(x: Tensor, axis: int) -> Tensor:
    """Sums (C,) float64 of spikes, their channels at `axis`, counted from the end."""
    native = choose_native(x)
    rows = x.reshape(1, 1, -1) if axis == ONE_CHANNEL else _reshape_to_rows(x, axis)
    ones = native.count_ones(rows) if native else None
    if ones is not None:
        return ones.double()
    others = [dim for dim in range(-x.dim(), 0) if dim != axis or axis == ONE_CHANNEL]
    return x.sum(others, dtype=torch.float64).reshape(-1)


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


SOURCE = Path(__file__).with_name("kernel.cpp")
LANES = (8, 4)  # floats in a vector of torch's: AVX2 and others
LARGE = 2**16  # elements for which a second of compiling is worth while
MOST = 2**31  # elements, which are counted in 32 bits
LONGEST = 2**16  # rows
SHAPES = (
    *((2, 3, space) for space in (*range(2, 40), 49, 64, 196, 500, 784, 1031, 4099)),
    *((1, 2, space) for space in (12544, LONGEST)),
    *((samples, 2, 3) for samples in (1, 3, 7, 16, 33, 130, 700)),
    *((19, channels, 2) for channels in (4, 5, 8, 15, 16, 17, 23, 64, 100)),
)
ODD = (0.0, -0.0, 1e-40, 5.0, -4.0, 4.0, -9.0, 1e9)


class NativeSweeps:
    """The functions of the compiled library, on tensors (A, C, S) that `fits` lets pass."""

    def __init__(self, library: ctypes.CDLL, lanes: int) -> None:
        pointer, count, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        bins = (ctypes.c_float, ctypes.c_float, ctypes.c_int32)
        known = (pointer, pointer, ctypes.c_double, ctypes.c_double)
        shape = (count, count, count)
        self._membrane, self._spikes = library.sweep_membrane, library.sweep_spikes
        into = (pointer, pointer, pointer, whole)
        self._membrane.argtypes = (pointer, *shape, *bins, whole, *known, *into)
        self._spikes.argtypes = (pointer, pointer, whole, *shape, pointer, whole)
        self._membrane.restype = self._spikes.restype = whole
        self.lanes = lanes
        self.parallel = bool(library.sweep_parallel())
        """Whether it can use several threads."""

    def add_membrane(self, x: Tensor, moments: ChannelMoments, histogram: ChannelHistogram) -> bool:
        """Take a block (A, C, S) into both; whether all is finite."""
        if not histogram.counts.dim():
            width = histogram.bins + 2
            histogram.counts = x.new_zeros(x.shape[1], width, dtype=torch.int64)
        now, before = x.shape[0] * x.shape[2], moments.count
        known = (moments.mean.data_ptr(), moments.squares.data_ptr()) if before else (None, None)
        mean, squares = x.new_empty(2, x.shape[1], dtype=torch.float64)
        finite = self._membrane(
            *(x.data_ptr(), *x.shape),
            *(histogram.scale, histogram.shift, histogram.bins + 1, self.lanes),
            *(*known, now / (before + now), before * now / (before + now)),
            *(mean.data_ptr(), squares.data_ptr(), histogram.counts.data_ptr()),
            count_threads(x.numel()),
        )
        moments.count, moments.mean, moments.squares = before + now, mean, squares
        return bool(finite)

    def count_ones(self, x: Tensor) -> Tensor | None:
        """How many values of each channel are 1, (C,) int64; None where others are not 0."""
        counts = x.new_zeros(x.shape[1], dtype=torch.int64)
        return counts if self._count(x, None, False, counts) else None

    def count_spikes(
        self, spikes: Tensor, distance: Tensor, *, at_threshold: bool
    ) -> Tensor | None:
        """Likewise, of spikes of which each follows from its distance to the threshold."""
        counts = spikes.new_zeros(spikes.shape[1], dtype=torch.int64)
        return counts if self._count(spikes, distance, at_threshold, counts) else None

    def _count(
        self, x: Tensor, distance: Tensor | None, at_threshold: bool, counts: Tensor
    ) -> bool:
        beside = None if distance is None else distance.data_ptr()
        size = (*x.shape, counts.data_ptr(), count_threads(x.numel()))
        return bool(self._spikes(x.data_ptr(), beside, at_threshold, *size))


def choose_native(x: Tensor) -> NativeSweeps | None:
    """The sweeps, where they give the bits of torch's operations on `x`."""
    if not fits(x) or (x.numel() < LARGE and not find_native_sweeps.cache_info().currsize):
        return None  # the library would have to be loaded first, or compiled
    found = find_native_sweeps()
    if isinstance(found, str) or not (found.parallel or torch.get_num_threads() == 1):
        return None
    return found


def fits(x: Tensor) -> bool:
    """Whether it is nothing but float32 numbers in memory, one after the other."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.is_cpu
        and x.dtype == torch.float32
        and x.layout == torch.strided
        and x.is_contiguous()
        and not x.is_neg()  # of which memory holds the opposite
        and 0 < x.numel() < MOST
    )


@cache
def find_native_sweeps() -> NativeSweeps | str:
    """Compiled if need be, or in words why there is none; asked once in a process."""
    try:
        library = load_library(SOURCE)
        made = (NativeSweeps(library, lanes) for lanes in LANES)
    except UnavailableError as error:
        return str(error)
    except AttributeError:  # the file is somebody's who named it as ours
        return "it lacks functions"
    return next(filter(gives_the_same_bits, made), "torch adds up otherwise here")


def gives_the_same_bits(sweeps: NativeSweeps) -> bool:
    """Whether moments and counts are those of torch's operations; some 10 ms."""
    return all(_are_same(sweeps, block) for block in _draw())


def _draw() -> Iterator[Tensor]:
    """Blocks (A, C, S) with ends of all kinds after whole vectors, and with what lies on edges."""
    generator = torch.Generator().manual_seed(0)
    for shape in SHAPES:
        block = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        yield block.mul_(2).add_(0.5)
    block.view(-1)[: len(ODD)] = torch.tensor(ODD)
    yield block


def _are_same(sweeps: NativeSweeps, block: Tensor) -> bool:
    native, plain = (ChannelMoments(), ChannelMoments())
    counts, bins = (ChannelHistogram(*HISTOGRAM), ChannelHistogram(*HISTOGRAM))
    for part in (block, 3 * block[: (1 + len(block)) // 2]):
        sweeps.add_membrane(part, native, counts)
        plain.add(part)
        bins.add(part)
    pairs = (
        *((native.mean, plain.mean), (native.squares, plain.squares)),
        (counts.counts, bins.counts),
    )
    return all(torch.equal(*pair) for pair in pairs)
