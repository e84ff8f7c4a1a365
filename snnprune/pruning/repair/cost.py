"""What the closed form takes of a network, told before it begins.

Counted are multiply-adds and numbers that are moved, kind by kind; what one of each kind takes is
tried out on the machine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from snnprune.graph import replay
from snnprune.graph.forward import device_of
from snnprune.graph.network import Network
from snnprune.measure.layer_inputs import BYTES, FirstBatch, InputCourse, RowSampler, Usage
from snnprune.measure.second_moments import (
    LEAST_BYTES,
    MEMORY,
    STRIP,
    USUAL_STEPS,
    compute_losses,
    invert,
    is_eliminated,
    is_solved_directly,
    multiplies_bytes_well,
    solve_rows,
)
from snnprune.pruning.repair import CostEstimate, Pruned
from snnprune.runtime import read_memory, read_peak_memory

KINDS = ("passes", "bytes", "single", "double", "inverse", "surgeon", "solved", "moved", "ranked")
"""Multiply-adds of passes, of products in int8, float32 and float64, of the inversion of matrices
and of the elimination of weights; numbers of the matrices that are solved, numbers of rows that are
drawn, and weights that are ranked.
"""
Work = Counter[str]
"""How much there is of each kind."""
Rates = Mapping[str, float]
"""Seconds for one of each kind."""
LONG = 30.0
"""Seconds: what takes less is not announced."""
SLOW: Rates = {
    "bytes": 1e-9,
    "single": 1e-9,
    "double": 2e-9,
    "inverse": 2e-9,
    "surgeon": 5e-9,
    "solved": 3e-7,
    "moved": 5e-8,
    "ranked": 1e-6,
}
"""Seconds for one of each kind on a machine several times as slow as a core of today."""
CALLS, ENOUGH = 4, 0.04
"""How often one kind is tried, and how many seconds of it are enough."""
ELIMINATED = 4 / 7
"""Of d^3: the multiply-adds by which a row loses all its weights, half of them at a time."""
DOUBLE = 8  # bytes


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """What the work on a layer follows from; d = in / groups * kernel."""

    groups: int
    out: int
    """Of each group."""
    inputs: int
    """d"""
    kept: int
    """Weights, of all groups."""
    rows: int
    """That its moments are taken over."""
    exact: bool
    """Whether they are made of spikes, and their products whole numbers."""
    drives: bool
    """Whether statistics of a neuron weigh its errors."""

    @property
    def weights(self) -> int:
        """All of them."""
        return self.groups * self.out * self.inputs

    @property
    def matrix(self) -> int:
        """Numbers of its Gram matrices."""
        return self.groups * self.inputs**2


def count_rows(made: Sequence[int], out: int, course: InputCourse, quota: int) -> int:
    """Rows that `RowSampler` draws of calls of one batch, which gave `made` numbers each."""
    steps = course.steps or 1
    if course.ends and steps > 1 and len(made) == steps:
        made = made[-1:]
    elif course.ends and steps > 1 and len(made) == 1:
        made = [made[0] // steps]
    return sum(min(quota, numbers // out) for numbers in made)


def count_layer_work(size: LayerSize, *, chooses: bool) -> Work:
    """Of the moments of a layer and the fit of its weights, and if it `chooses` of their choice."""
    work = _count_moments(size)
    if chooses:
        work.update(_count_choice(size))
    work.update(_count_fit(size))
    return work


def _count_moments(size: LayerSize) -> Work:
    by_row = size.groups * size.inputs * size.rows
    ends = range(size.inputs, 0, -STRIP)
    products = size.groups * size.rows * sum(min(STRIP, end) * end for end in ends)
    work: Work = Counter(single=by_row * size.out, double=by_row * size.out, moved=4 * by_row)
    fit_bytes = size.groups == 1 and size.inputs >= LEAST_BYTES
    kind = ("bytes" if fit_bytes else "single") if size.exact else "double"
    work[kind] += products
    return work


def _count_choice(size: LayerSize) -> Work:
    work: Work = Counter(
        inverse=size.matrix * size.inputs // 2, double=size.matrix * size.out, ranked=size.weights
    )
    if not size.drives:  # the variance of its current is that of its inputs
        work["double"] += size.matrix * size.out
    if is_eliminated(size.groups, size.out, size.inputs):
        work["surgeon"] = round(ELIMINATED * size.weights * size.inputs**2)
    return work


def _count_fit(size: LayerSize) -> Work:
    rows = size.groups * size.out
    work: Work = Counter(double=size.matrix * size.out)
    each = size.kept / rows
    if is_solved_directly(rows * each**3, size.inputs, size.weights):
        work["solved"] = round(rows * each**2)
        work["inverse"] = round(rows * each**3 / 6)
    else:
        work["double"] += USUAL_STEPS * size.matrix * size.out
    return work


def count_bytes(size: LayerSize, *, chooses: bool) -> int:
    """The most that a layer has in work at once, beside the network and what is kept of passes."""
    matrix, by_weight = size.matrix * DOUBLE, size.weights * DOUBLE
    row = size.groups * size.inputs * DOUBLE // 2  # float32
    drawn = min(BYTES, size.rows * row) * (2 if size.exact else 4)
    summed = matrix + by_weight + 4 * min(STRIP, size.inputs) * row + drawn
    chosen = (2 * matrix + 5 * by_weight) if chooses else 0
    return max(summed, chosen, matrix + _count_bytes_of_fit(size))


def _count_bytes_of_fit(size: LayerSize) -> int:
    """As `fit_weights` holds them beside the matrices: what was measured of it."""
    rows, by_weight = size.groups * size.out, size.weights * DOUBLE
    each = size.kept / rows
    if not is_solved_directly(rows * each**3, size.inputs, size.weights):
        return 16 * by_weight
    return 10 * by_weight + min(MEMORY, round(4 * DOUBLE * rows * each**2))


@torch.no_grad()
def measure_rates(device: torch.device) -> Rates:
    """Seconds for one of each kind but `passes`; takes some tenths of a second."""
    kept, rows, size = 64, 48, 256  # as many rows as go together in layers of some 500 inputs
    all_, maps = torch.rand(1024, 1024, device=device), torch.rand(2**13, 512, device=device)
    matrix = torch.eye(3 * size, dtype=torch.float64, device=device)[None]
    small = matrix[:, :size, :size]
    weights = torch.rand(1, rows, size, dtype=torch.float64, device=device)
    keep = torch.arange(size, device=device).expand(1, rows, size) % (size // kept) == 0
    places = torch.randint(len(maps), (256 * 9,), device=device)
    bytes_ = (2 * all_).to(torch.int8) if multiplies_bytes_well(device) else all_
    multiply = torch.matmul if bytes_ is all_ else torch._int_mm
    tried: dict[str, tuple[float, Callable[[], object]]] = {
        "bytes": (2**30, lambda: multiply(bytes_.mT, bytes_)),
        "single": (2**29, lambda: all_[:512] @ all_),
        "double": (2**29, lambda: all_[:512].double() @ all_.double()),
        "inverse": ((3 * size) ** 3 / 2, lambda: invert(matrix, 0.0)),
        "surgeon": (ELIMINATED * rows * size**3, lambda: compute_losses(small, weights)),
        "solved": (rows * kept**2, lambda: solve_rows(small, weights, keep, matrix[:, :1, :1])),
        "moved": (
            len(places) * 512,
            lambda: maps.index_select(0, places).view(256, 9, -1).transpose(1, 2).flatten(1),
        ),
        "ranked": (2**18, lambda: all_[:256].flatten().argsort(stable=True)),
    }
    return {kind: _time(device, do) / units for kind, (units, do) in tried.items()}


def _time(device: torch.device, do: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls: in others threads wait for whoever else works here."""
    taken: list[float] = []
    while sum(taken) < ENOUGH or (len(taken) < CALLS and sum(taken) < CALLS * ENOUGH):
        start = time.perf_counter()
        do()
        finish_work(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def finish_work(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def announce_cost(
    pruned: Pruned,
    usage: Usage,
    keys: Sequence[str],
    passes: Iterable[frozenset[int]],
    *,
    chooses: bool,
) -> None:
    """Tell what the closed form of the layers `keys` is going to take, where that is long.

    `passes` are the calls of each pass that it makes, by their place, beside one of the dense and
    one of the mended network for BatchNorms.
    """
    first, device = usage.first, device_of(pruned.network.module)
    if not keys or len(first.made) != len(first.keys):
        return  # calls within calls: it is not known what each of them gives
    by_call = count_multiply_adds(pruned.network, first)
    run = 2 * sum(by_call) + sum(by_call[place] for places in passes for place in places)
    sizes = [measure_size(pruned, usage, key) for key in keys]
    work = [count_layer_work(size, chooses=chooses) for size in sizes]
    work.append(Counter(passes=run * usage.samples // first.samples))
    of_passes = {"passes": first.seconds / max(1, sum(by_call))}
    if estimate_seconds(work, {**SLOW, **of_passes}) < LONG:
        return  # wherever it runs: nothing needs to be tried
    seconds = estimate_seconds(work, {**measure_rates(device), **of_passes})
    if seconds >= LONG:
        kept = usage.batches * sum(usage.graph.sizes) if usage.graph else 0
        on_cpu = device.type == "cpu"
        peak = estimate_peak(sizes, kept=kept, chooses=chooses) if on_cpu else None
        pruned.tell_estimate(CostEstimate(seconds=round(seconds, 1), peak_memory=peak))
        pruned.progress.announce(format_estimate(seconds, peak))


def count_multiply_adds(network: Network, first: FirstBatch) -> list[int]:
    """Of each call of the first batch, in order."""
    inputs = {key: prod(layer.shape[1:]) for key, layer in network.layers.items()}
    return [made * inputs[key] for key, made in zip(first.keys, first.made, strict=True)]


def measure_size(pruned: Pruned, usage: Usage, key: str) -> LayerSize:
    """What the work on a layer follows from."""
    layer = pruned.network.layers[key]
    known = pruned.calibration.layers.get(key) if pruned.calibration else None
    return LayerSize(
        groups=layer.groups,
        out=layer.shape[0] // layer.groups,
        inputs=prod(layer.shape[1:]),
        kept=int(pruned.masks[key].sum()),
        rows=_count_all_rows(pruned, usage, key),
        exact=known is not None and known.input_values != "analog",
        drives=known is not None and bool(known.drives),
    )


def _count_all_rows(pruned: Pruned, usage: Usage, key: str) -> int:
    """Of all batches."""
    layer, first = pruned.network.layers[key], usage.first
    rows = RowSampler(pruned.network, key, usage, filtered=True, seed=pruned.seed)
    made = [count for name, count in zip(first.keys, first.made, strict=True) if name == key]
    whole, rest = divmod(usage.samples, first.samples)
    last = [count * rest // first.samples for count in made]
    assert rows.course is not None
    whole_batch, last_batch = (
        count_rows(calls, layer.shape[0], rows.course, rows.quota) for calls in (made, last)
    )
    return whole * whole_batch + last_batch


def estimate_seconds(work: Iterable[Work], rates: Rates) -> float:
    """Of all of it together."""
    return sum(count * rates[kind] for one in work for kind, count in one.items())


def estimate_peak(sizes: Iterable[LayerSize], *, kept: int, chooses: bool) -> int | None:
    """Bytes that the process will have had at most; None where nobody tells what it has.

    `kept` are those of what layers gave, that passes keep; of two networks.
    """
    now, peak = read_memory(), read_peak_memory()
    if now is None or peak is None:
        return None
    held = 2 * min(kept, replay.MEMORY)
    return max(peak, now + held + max(count_bytes(size, chooses=chooses) for size in sizes))


def format_estimate(seconds: float, peak: int | None) -> str:
    """A line such as: closed form: about 12 minutes and 3.1 GB."""
    memory = "" if peak is None else f" and {peak / 1e9:.1f} GB"
    return f"closed form: about {_format_time(seconds)}{memory}"


def _format_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
