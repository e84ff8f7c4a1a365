"""What the closed form is said to take: counted beside it, and told before it begins."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest
import torch
from multiply_adds import CountingOperations
from pruned_networks import NETWORKS, lif
from repairing import cut, masks_of, pruned
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from snnprune.data.batches import Batches
from snnprune.graph.call_graph import CallTracing
from snnprune.graph.trace import trace
from snnprune.measure.layer_inputs import count_usage
from snnprune.measure.second_moments import TOGETHER, compute_losses, multiplies_bytes_well
from snnprune.pruning.repair import CostEstimate, Pruned, cost
from snnprune.pruning.repair.cost import (
    LayerSize,
    Work,
    count_layer_work,
    format_estimate,
    measure_rates,
    measure_size,
)
from snnprune.pruning.repair.layerwise import PrunedLayers, choose_and_refit, refit
from snnprune.runtime import Silent

CPU = torch.device("cpu")
STEPS = 3
IMAGES = torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(2))


aten = torch.ops.aten
COUNTS = {
    **flop_registry,
    aten.baddbmm_: flop_registry[aten.baddbmm],
    aten._int_mm: flop_registry[aten.mm],
}


class AtOnce(nn.Module):
    """All steps at once: three convolutions, one of them grouped, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, groups=groups)
            for a, b, groups in ((3, 16, 1), (16, 24, 2), (24, 16, 1))
        )
        self.norm, self.fc = nn.BatchNorm2d(24), nn.Linear(16 * 36, 10)
        self.lifs = nn.ModuleList(lif() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        z = self.lifs[0](self.convs[0](x).expand(STEPS, -1, -1, -1, -1))
        current = self.norm(self.convs[1](z.flatten(0, 1)))
        z = self.lifs[1](current.unflatten(0, (STEPS, -1)))
        z = nn.functional.max_pool2d(z.flatten(0, 1), 2)
        z = self.lifs[2](self.convs[2](z).unflatten(0, (STEPS, -1)))
        return self.fc(z.flatten(2))


class StepByStep(AtOnce):
    """The same, one step after the other."""

    def forward(self, x: Tensor) -> Tensor:
        membranes = [torch.zeros(())] * 3
        logits = []
        for _ in range(STEPS):
            z = x
            for number, conv in enumerate(self.convs):
                z = nn.functional.max_pool2d(z, 2) if number == 2 else z
                current = conv(z) if number != 1 else self.norm(conv(z))
                membrane = 0.5 * membranes[number] + current
                z = (membrane > 0.4).float()
                membranes[number] = membrane * (1 - z)
            logits.append(self.fc(z.flatten(1)))
        return torch.stack(logits)


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Two whole ones and a smaller one."""
    for x in IMAGES.split(16):
        yield x, torch.zeros(len(x), dtype=torch.long)


def wide(build: Callable[[], nn.Module]) -> Pruned:
    """A network whose products are more than what goes beside them, half of its weights cut."""
    torch.manual_seed(3)
    network = trace(build().eval(), IMAGES[:16])
    of = cut(network, masks_of(network, kept=0.3))
    return Pruned(network=network, dense=of.dense, masks=of.masks, batches=Batches(begin=batches))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """The work that was counted, layer by layer and then of the passes."""
    found: list[Work] = []
    multiplies_bytes_well(CPU)  # tried once in a process, by products that are none of the work

    def keep(work: Iterable[Work], _: cost.Rates) -> float:
        found.extend(work)
        return 0.0

    monkeypatch.setattr(cost, "estimate_seconds", keep)
    return found


def count_products(of: Pruned, repair: Callable[[Pruned], object]) -> int:
    """What a repair does, beside the first batch that it counts by."""
    with CountingOperations(COUNTS) as whole:
        repair(of)
    with CountingOperations(COUNTS) as first, torch.no_grad():
        of.network.module(IMAGES[:16])
    return whole.done - first.done


@pytest.mark.many(1)
@pytest.mark.parametrize(
    ("build", "cut_short"), [(AtOnce, True), (AtOnce, False), (StepByStep, False)]
)
def test_the_products_of_least_squares_are_those_that_were_counted(
    build: Callable[[], nn.Module],
    cut_short: bool,
    counted: list[Work],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every convolution and product that torch is asked for, as its dispatcher sees it."""
    if not cut_short:
        monkeypatch.setattr(CallTracing, "read", lambda _: None)
    of = wide(build)
    assert (count_usage(of.network, of.batches).graph is not None) == cut_short
    done = count_products(of, refit)
    kinds = ("passes", "bytes", "single", "double")
    expected = sum(work[kind] for work in counted for kind in kinds)
    assert done == pytest.approx(expected, rel=0.02)


def test_the_products_of_a_choice_are_those_that_were_counted(counted: list[Work]) -> None:
    """The elimination is seen too: what goes is taken off by products of matrices."""
    of = wide(AtOnce)
    done = count_products(of, choose_and_refit)
    kinds = ("passes", "bytes", "single", "double", "surgeon")
    expected = sum(work[kind] for work in counted for kind in kinds)
    assert done == pytest.approx(expected, rel=0.1)


def test_an_elimination_takes_four_sevenths_of_the_cube() -> None:
    size, rows = 16 * TOGETHER, 2
    matrix = torch.eye(size, dtype=torch.float64)[None]
    with CountingOperations(COUNTS) as seen:
        compute_losses(matrix, torch.rand(1, rows, size).double(), exact=True)
    assert seen.done == pytest.approx(4 / 7 * rows * size**3, rel=0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rows_are_those_that_are_drawn(name: str) -> None:
    of = pruned(name)
    usage = count_usage(of.network, of.batches)
    layers = PrunedLayers.of(of, usage, norms={}, filtered=True)
    sizes = {key: measure_size(of, usage, key) for key in layers.order}
    assert {key: size.rows for key, size in sizes.items()} == {
        key: layers.moments(key).rows for key in layers.keys("drawing")
    }


def test_the_work_on_a_layer_is_that_of_its_matrices_written_out() -> None:
    """Two groups of 3 outputs and 1100 inputs each, 50 rows; a strip of 1024 and one of 76."""
    size = LayerSize(groups=2, out=3, inputs=1100, kept=660, rows=50, exact=True, drives=False)
    products = 2 * 50 * (1024 * 1100 + 76 * 76)
    currents = cross = 2 * 50 * 1100 * 3
    squares = 2 * 1100**2
    inverse, by_rows = squares * 1100 // 2, squares * 3
    assert count_layer_work(size, chooses=True) == Counter(
        single=products + currents,
        double=cross + 3 * by_rows,  # of the choice, of its variances, of the residual
        moved=4 * 2 * 50 * 1100,
        inverse=inverse + 6 * 110**3 // 6,
        surgeon=round(4 / 7 * 6 * 1100**3),
        solved=6 * 110**2,
        ranked=6 * 1100,
    )
    assert count_layer_work(size, chooses=False) == Counter(
        single=products + currents,
        double=cross + by_rows,
        moved=4 * 2 * 50 * 1100,
        inverse=6 * 110**3 // 6,
        solved=6 * 110**2,
    )


def test_products_of_spikes_in_one_wide_group_are_those_of_bytes() -> None:
    size = LayerSize(groups=1, out=3, inputs=128, kept=0, rows=50, exact=True, drives=True)
    products, others = 50 * 128**2, 50 * 128 * 3
    work = count_layer_work(size, chooses=False)
    assert (work["bytes"], work["single"]) == (products, others)
    analog = count_layer_work(replace(size, exact=False), chooses=False)
    assert (analog["bytes"], analog["double"]) == (0, products + others + 128**2 * 3)


class Hearing(Silent):
    """Progress that keeps what is announced."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def announce(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


@pytest.mark.parametrize("repair", [refit, choose_and_refit])
def test_a_line_tells_how_long_it_takes(
    repair: Callable[[Pruned], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "LONG", 0.0)
    heard, told = Hearing(), list[CostEstimate]()
    repair(replace(pruned("convolved", progress=heard), tell_estimate=told.append))
    (line,), (estimate,) = heard.lines, told
    assert re.fullmatch(r"closed form: about \d+ seconds and \d+\.\d GB", line)
    assert format_estimate(estimate.seconds, estimate.peak_memory) == line


def test_nothing_is_told_or_tried_of_what_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "measure_rates", lambda _: pytest.fail("nothing is to be tried"))
    heard = Hearing()
    choose_and_refit(pruned("convolved", progress=heard))
    assert heard.lines == []


@pytest.mark.parametrize(
    ("seconds", "peak", "told"),
    [
        (31, 3_140_000_000, "31 seconds and 3.1 GB"),
        (89, None, "89 seconds"),
        (720, None, "12 minutes"),
        (9000, 1e9, "2.5 hours and 1.0 GB"),
    ],
)
def test_times_are_told_in_the_unit_that_fits(seconds: float, peak: int | None, told: str) -> None:
    assert format_estimate(seconds, peak) == f"closed form: about {told}"


def test_every_kind_of_work_but_passes_is_tried() -> None:
    rates = measure_rates(CPU)
    assert rates.keys() | {"passes"} == cost.SLOW.keys() | {"passes"} == {*cost.KINDS}
    assert all(0 < rate < 1 for rate in rates.values())


@pytest.mark.parametrize(
    ("now", "peak", "told"),
    [
        (10**9, 0, 10**9 + 2 * 1000 + 2**27 + 2**21 + 2**26 + 2 * 2**27),
        (10**9, 2 * 10**9, 2 * 10**9),
        (None, 10**9, None),
    ],
)
def test_the_memory_that_is_told_is_that_of_matrices_strips_and_rows_beside_what_is_there(
    now: int | None, peak: int, told: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 rows of 4096 weights: 2 MiB, a Gram matrix of 128 MiB, rows by 128 MiB, two at a time."""
    monkeypatch.setattr(cost, "read_memory", lambda: now)
    monkeypatch.setattr(cost, "read_peak_memory", lambda: peak)
    size = LayerSize(groups=1, out=64, inputs=4096, kept=2**16, rows=2**14, exact=True, drives=True)
    assert cost.estimate_peak([size], kept=1000, chooses=True) == told
