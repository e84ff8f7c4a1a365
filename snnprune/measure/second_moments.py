"""Second moments of what enters layers, and what least squares and OBS make of them.

OBS is the Optimal Brain Surgeon: the order in which it takes weights out, each row by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from snnprune.data.batches import Batches
from snnprune.graph.calls import LayerCall
from snnprune.graph.network import Network, find_bias_key
from snnprune.graph.replay import Replay, Run
from snnprune.graph.state import use_eval_mode
from snnprune.measure.layer_inputs import RowSampler, Usage, count_usage
from snnprune.runtime import make_generator

STRIP = 1024  # inputs whose products with all later ones are taken at once
PART = 256  # inputs whose products with what is wanted are taken at once


@dataclass(frozen=True, kw_only=True)
class Gram:
    """Means over the rows x that a layer met; d = in / groups * kernel."""

    second: Tensor
    """E[x x'], (groups, d, d) float64."""
    mean: Tensor
    """E[x], (groups, d) float64."""
    rows: int
    """How many rows it was taken over."""
    free: bool
    """Whether a bias or a normalisation takes up the mean of what the layer gives."""

    def compute_matrix(self) -> Tensor:
        """What a change of the weights is measured by, (groups, d, d): the covariance if `free`."""
        return _take_off_means(self.second.clone(), self.mean) if self.free else self.second


@dataclass(frozen=True, kw_only=True)
class LayerMoments:
    """Of the rows x that a layer met, and of what those rows were to give, y; all float64."""

    matrix: Tensor
    """(groups, d, d): the covariance of x where the mean is free, or else E[x x']."""
    cross: Tensor
    """(groups, d, out / groups): of x and y, likewise."""
    mean: Tensor
    """E[x], (groups, d)."""
    target_mean: Tensor
    """E[y], (groups, out / groups)."""
    constant: float
    """See `GramSum.constant`."""
    rows: int

    @property
    def gram(self) -> Gram:
        """The matrix as it is."""
        return Gram(second=self.matrix, mean=self.mean, rows=self.rows, free=False)


def _take_off_means(second: Tensor, mean: Tensor) -> Tensor:
    """E[x x'] (groups, d, d) less the products of E[x] (groups, d), in place, and strip by strip:
    of a wide layer there is no room for another one.
    """
    for first in range(0, second.shape[1], STRIP):
        strip = slice(first, first + STRIP)
        second[:, strip] -= mean[:, strip].unsqueeze(2) * mean.unsqueeze(1)
    return second


class GramSum:
    """A `Gram` that grows row by row, and the moments of what those rows are to give."""

    def __init__(self) -> None:
        self.rows = 0
        self.constant = 1.0
        """What the rows have of an input that is always 1, on average; see `Rows.constant`."""
        self.second = self.cross = self.sum = self.target = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor | None = None) -> None:
        """Take in rows (groups, n, d), and their targets (groups, n, out / groups)."""
        groups, rows, size = x.shape
        if not self.rows:
            self.second = x.new_zeros(groups, size, size, dtype=torch.float64)
            self.sum = x.new_zeros(groups, size, dtype=torch.float64)
        self.second = _add_products(self.second.to(x.device), x)
        self.sum = self.sum.to(x.device)
        self.rows += rows
        wanted = None if y is None else y.double()
        if wanted is not None:
            if not self.cross.dim():
                self.cross = wanted.new_zeros(groups, size, wanted.shape[2])
            self.target = self.target.to(x.device) + wanted.sum(1)
        for first in range(0, size, PART):  # there is no room for all of x in float64
            strip = slice(first, first + PART)
            part = x[..., strip].double()
            self.sum[:, strip] += part.sum(1)
            if wanted is not None:
                self.cross[:, strip] += part.mT @ wanted

    def gram(self, *, free: bool) -> Gram:
        """What the rows come to."""
        mean = self.sum / self.rows
        return Gram(second=_mirror(self.second) / self.rows, mean=mean, rows=self.rows, free=free)

    def finish(self, *, free: bool) -> LayerMoments:
        """What rows and targets come to; with `free` less their means. The sums are used up."""
        mean, target = self.sum / self.rows, self.target / self.rows
        matrix, cross = _mirror(self.second).div_(self.rows), self.cross / self.rows
        del self.second, self.cross
        if free:
            matrix = _take_off_means(matrix, mean)
            cross = cross - mean.unsqueeze(2) * target.unsqueeze(1)
        return LayerMoments(
            matrix=matrix,
            cross=cross,
            mean=mean,
            target_mean=target,
            constant=self.constant,
            rows=self.rows,
        )


def _add_products(second: Tensor, x: Tensor) -> Tensor:
    """Add x' x to `second` (groups, d, d) float64; below the strips on its diagonal it is left."""
    whole = _find_whole_numbers(x)
    if whole is not None and whole.fit_bytes and _can_take_bytes(x):
        rows = torch.empty_like(x[0], dtype=torch.int8)
        for first in range(0, len(rows), PIECE):
            piece = slice(first, first + PIECE)
            rows[piece] = whole.scale * x[0, piece]
        for part in rows.split(whole.count_rows(EXACT_BYTES)):
            _add_strips(second[0], part, torch._int_mm, alpha=whole.scale**-2)
        return second
    some = 0 if whole is None else whole.count_rows(EXACT)
    parts = x.float().split(some, dim=1) if some >= LEAST_EXACT else [x.double()]
    for part in parts:
        _add_strips(second, part, torch.matmul)
    return second


def _add_strips(
    second: Tensor, x: Tensor, multiply: Callable[[Tensor, Tensor], Tensor], alpha: float = 1.0
) -> None:
    """Add alpha x' x, of rows (..., n, d), to `second`, from each strip on to the right."""
    for first in range(0, x.shape[-1], STRIP):
        strip = multiply(x[..., first : first + STRIP].mT, x[..., first:])
        second[..., first : first + STRIP, first:].add_(strip, alpha=alpha)


def _mirror(second: Tensor) -> Tensor:
    """Fill in what `_add_products` leaves of (groups, d, d): each half is the other's image."""
    for first in range(0, second.shape[1], STRIP):
        last = first + STRIP
        second[:, last:, first:last] = second[:, first:last, last:].mT
    return second


EXACT = 2**24  # up to here float32 has every whole number
LEAST_EXACT = 1024  # rows at a time, or the sums of float32 are no faster
HALVINGS = 5
PIECE = 512  # rows that are looked at at once
BYTE, EXACT_BYTES = 127, 2**31 - 1  # the largest of int8, and of the int32 that adds them up
LEAST_BYTES = 128  # inputs, or products of bytes are no faster


@dataclass(frozen=True)
class _WholeNumbers:
    """What rows are made of: whole numbers up to `most`, once they are multiplied by `scale`."""

    scale: int
    most: float

    @property
    def fit_bytes(self) -> bool:
        return self.most <= BYTE

    def count_rows(self, exact: int) -> int:
        """How many rows have products that come to no more than `exact` together."""
        return exact if self.most == 0 else int(exact // self.most**2)


def _find_whole_numbers(x: Tensor) -> _WholeNumbers | None:
    """The whole numbers that rows (groups, n, d) are multiples of a power of 1 / 2 by.

    Spikes are whole numbers, and what a membrane has gathered of them with a decay of 1 / 2 is
    whole multiples of a power of it. None where sums of products of float32 would round, also as
    somebody lets torch round what it multiplies (TF32, bfloat16).
    """
    if not _multiplies_as_given():
        return None
    least, greatest = x.aminmax() if x.numel() else (x.new_zeros(()), x.new_zeros(()))
    most = float(torch.maximum(-least, greatest))
    for scale in (2**number for number in range(HALVINGS + 1)):
        if scale * most > EXACT**0.5:
            return None
        # what is not whole shows in the first rows, and copies of all would take room
        if all(_is_whole(scale * piece) for piece in x.split(PIECE, dim=1)):
            return _WholeNumbers(scale, scale * most)
    return None


def _count_exact_rows(x: Tensor) -> int:
    """How many rows float32 adds the products of without rounding; 0 if it rounds."""
    whole = _find_whole_numbers(x)
    return 0 if whole is None else whole.count_rows(EXACT)


def _can_take_bytes(x: Tensor) -> bool:
    """Whether products of rows (groups, n, d) are to be had as those of bytes, and faster so."""
    wide = x.shape[0] == 1 and x.shape[2] >= LEAST_BYTES and x.shape[1] >= LEAST_EXACT
    return wide and multiplies_bytes_well(x.device)


@cache
def multiplies_bytes_well(device: torch.device) -> bool:
    """Whether torch multiplies matrices of int8 faster than float32 there, and without an error.

    Some processors have no such instruction, and sums of some overflow halfway. Tried once on the
    largest numbers there are; whichever way is taken, the products are the same to the bit.
    """
    if device.type != "cpu":
        return False  # it is not known of which sizes
    drawn = make_generator("products of bytes")
    bytes_ = torch.randint(-BYTE, BYTE + 1, (1024, 512), generator=drawn).to(torch.int8)
    bytes_[:, ::2] = BYTE
    rows = bytes_.float()
    try:
        found, exact = torch._int_mm(bytes_.mT, bytes_), rows.double().mT @ rows.double()
        if not torch.equal(found.double(), exact):
            return False
        return _time(lambda: torch._int_mm(bytes_.mT, bytes_)) < _time(lambda: rows.mT @ rows)
    except (AttributeError, RuntimeError):  # it is no part of what torch promises
        return False


def _time(do: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        do()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _multiplies_as_given() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set otherwise for one device than for another
        return False


def _is_whole(x: Tensor) -> bool:
    return bool((x == x.round()).all())


class Grams:
    """The Gram matrices of a network as it is, each taken when it is asked for.

    One is kept at a time: those of a wide network together would not fit into memory.
    """

    def __init__(
        self, network: Network, batches: Batches, *, filtered: bool, seed: int = 0
    ) -> None:
        """With `filtered`, of what the membranes have of the inputs; see `InputCourse`.

        Whenever one is asked for, the network is to have the same tensors.
        """
        self.network, self.batches = network, batches
        self.filtered, self.seed = filtered, seed
        self._usage: Usage | None = None
        self._replay: Replay | None = None
        self._weights: dict[str, Tensor] = {}

    def measure_usage(self) -> Usage:
        """How the network uses its layers."""
        if self._usage is None:
            self._usage = count_usage(self.network, self.batches)
        return self._usage

    @torch.no_grad()
    def of(self, key: str) -> Gram | None:
        """The Gram matrix of a layer; None for one that a pass does not use."""
        usage, layers = self.measure_usage(), self.network.layers
        if not usage.calls[key]:
            return None
        if self._replay is None:
            self._replay = Replay(
                self.network, usage.graph, batches=usage.batches, targets=layers, settled=layers
            )
        with use_eval_mode(self.network.module):
            return self._replay.collect([key], lambda run: self._take(key, run))

    def _take(self, key: str, run: Run) -> Gram:
        rows = RowSampler(
            self.network, key, self.measure_usage(), filtered=self.filtered, seed=self.seed
        )
        moments = GramSum()

        def see(row: Tensor, call: LayerCall) -> None:
            moments.add(row)
            self._keep(key, call)

        for number, (x, y) in enumerate(self.network.feed(self.batches)):
            run(x, number, rows.watched(self.network.count_samples(x, y), number, see))
        return moments.gram(free=is_free(self.network, key))

    def weight(self, key: str) -> Tensor | None:
        """The weight (out, in / groups, *kernel) that a function made of the parameter.

        None where it is the parameter, and before the layer's Gram matrix was taken.
        """
        return self._weights.get(key)

    def _keep(self, key: str, call: LayerCall) -> None:
        if self.network.layers[key].shaped and key not in self._weights:
            self._weights[key] = call.weight.detach().to("cpu", copy=True)


def is_free(network: Network, key: str) -> bool:
    """Whether a bias, or a normalisation behind it, takes up the mean of what a layer gives."""
    return network.layers[key].normalised or find_bias_key(network, key) is not None


TOLERANCE = 1e-6  # of the residual, relative to the right side
STEPS = 200  # of conjugate gradients at most
USUAL_STEPS = 30  # that they take on inputs of real networks


def fit_weights(
    second: Tensor, cross: Tensor, keep: Tensor, start: Tensor, *, ridge: float
) -> Tensor:
    """Weights W (groups, out, d) that minimise E|y - W x|^2 + ridge s |W - start|^2 where kept.

    `second` is E[x x'], (groups, d, d), `cross` E[x y'], (groups, d, out), both float64; `keep`
    (groups, out, d) says which weights there are, all others are 0. s is the mean of E[x^2].

    Rows that keep few weights are solved one by one, or else all together by conjugate gradients,
    whichever takes fewer multiplications.
    """
    scale = second.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(second.dtype).tiny)
    pull = (ridge * scale).view(-1, 1, 1)
    weights = start * keep
    residual = (cross.mT - weights @ second) * keep
    cubes = float((keep.sum(2).double() ** 3).sum())
    if is_solved_directly(cubes, keep.shape[2], keep.numel()):
        return weights + solve_rows(second, residual, keep, pull)
    enough = TOLERANCE * ((cross.mT + pull * weights) * keep).norm(dim=2, keepdim=True)
    return weights + _descend(second, residual, keep, pull, enough)


def is_solved_directly(cubes: float, inputs: int, weights: int) -> bool:
    """Whether Cholesky takes less than `USUAL_STEPS`; `cubes` is the sum of what rows keep, ^3."""
    return cubes / 3 < 2.0 * USUAL_STEPS * inputs * weights


def solve_rows(second: Tensor, right: Tensor, keep: Tensor, pull: Tensor) -> Tensor:
    """D (groups, out, d), 0 where nothing is kept, with D (`second` + `pull`) = `right` where kept.

    By the Cholesky factors of what each row keeps; rows that keep about as many go together.
    """
    found = torch.zeros_like(right)
    for group, rows in enumerate(keep):
        counts = rows.sum(1)
        order = counts.argsort(stable=True)
        while len(order):
            most = int(counts[order[-1]])
            if not most:
                break
            at_once = max(1, MEMORY // (4 * 8 * most**2))  # four such at a time
            some, order = order[-at_once:], order[:-at_once]
            # the places of those kept, filled up with some that are not
            places = (
                rows[some].to(torch.uint8).sort(dim=1, descending=True, stable=True)[1][:, :most]
            )
            kept = rows[some].gather(1, places)
            both = kept.unsqueeze(2) & kept.unsqueeze(1)
            at = places.unsqueeze(2) * len(second[group]) + places.unsqueeze(1)
            matrix = second[group].reshape(-1).index_select(0, at.flatten()).view(at.shape)
            matrix *= both
            matrix.diagonal(dim1=1, dim2=2).add_(torch.where(kept, pull[group], 1.0))
            factor = torch.linalg.cholesky(matrix)
            asked = right[group, some].gather(1, places).unsqueeze(2)
            solved = torch.cholesky_solve(asked, factor).squeeze(2)
            found[group, some] = torch.zeros_like(found[group, some]).scatter(1, places, solved)
    return found


def _descend(
    second: Tensor, residual: Tensor, keep: Tensor, pull: Tensor, enough: Tensor
) -> Tensor:
    """The same, by conjugate gradients until what is missing is `enough`, (groups, out, 1).

    Preconditioned by the diagonal; a step is one product of matrices for all rows, however many
    weights they keep.
    """
    diagonal = second.diagonal(dim1=1, dim2=2).unsqueeze(1) + pull
    found = torch.zeros_like(residual)
    preconditioned = residual / diagonal
    direction, slope = preconditioned, _dot(residual, preconditioned)
    for _ in range(STEPS):
        if bool((residual.norm(dim=2, keepdim=True) <= enough).all()):
            break
        image = (direction @ second + pull * direction) * keep
        length = _ratio(slope, _dot(direction, image))
        found = found + length * direction
        residual = residual - length * image
        preconditioned = residual / diagonal
        before, slope = slope, _dot(residual, preconditioned)
        direction = preconditioned + _ratio(slope, before) * direction
    return found


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(2, keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where a row is done and both are 0."""
    return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))


WORK = 1e11  # of multiplications in one layer, some 10 s on a CPU core
MEMORY = 2**27  # bytes of the inverses that are in work
TOGETHER = 32  # weights that have gone whose updates of H^-1 are made together


def compute_losses(inverses: Tensor, weights: Tensor, *, exact: bool | None = None) -> Tensor:
    """What the removal of each weight adds to E|dW x|^2, where those left make up for it.

    `inverses` has H^-1 of H = E[x x'], (groups, d, d) float64, see `invert`; `weights` is
    (groups, out, d). From each row the weight of the least w_q^2 / [H^-1]_qq is taken out, the
    others make up for it, H^-1 loses its row and column, and so on (Hassibi and Stork 1993; row by
    row as Frantar and Alistarh 2022, arXiv 2208.11580). A row's values never fall on the way, so
    that they rank the weights of a row in the order of removal.

    In a wide layer, where that is more than `WORK`, or where it is not to be `exact`, the values
    are those of the first look: what each weight costs if it is the first to go.
    """
    groups, out, size = weights.shape
    if exact is None:
        exact = is_eliminated(groups, out, size)
    rows = weights.double()
    if not exact:
        return rows**2 / inverses.diagonal(dim1=1, dim2=2).unsqueeze(1)
    found = torch.empty_like(rows)
    at_once = max(1, MEMORY // (8 * size**2))
    for group, inverse in enumerate(inverses):
        for first in range(0, out, at_once):
            some = slice(first, first + at_once)
            found[group, some] = _eliminate_rows(inverse, rows[group, some])
    return found


def is_eliminated(groups: int, out: int, inputs: int) -> bool:
    """Whether the weights of a layer of groups * out rows are taken out one by one."""
    return groups * out * float(inputs) ** 3 <= WORK


def invert(matrix: Tensor, ridge: float) -> Tensor:
    """The inverse of `matrix` (..., d, d) with `damping` added to its diagonal."""
    raised = matrix.clone().mT  # it is symmetric; lies so that LAPACK works in place
    raised.diagonal(dim1=-2, dim2=-1).add_(damping(matrix, ridge).unsqueeze(-1))
    torch.linalg.cholesky(raised, out=raised)
    return torch.cholesky_inverse(raised, out=raised)


def damping(matrix: Tensor, ridge: float) -> Tensor:
    """`ridge` times the mean of the diagonal of `matrix` (..., d, d)."""
    return ridge * matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)


def _eliminate_rows(inverse: Tensor, weights: Tensor) -> Tensor:
    """The values of rows (R, d) under one H^-1 (d, d), which each row loses weights of by itself.

    Half of the weights that are left go, then H^-1 shrinks to what stays, and so on.
    """
    values = torch.empty_like(weights)
    matrices = inverse.repeat(len(weights), 1, 1)
    left = torch.arange(len(inverse), device=weights.device).repeat(len(weights), 1)
    level = weights.new_zeros(len(weights))
    while left.shape[1]:
        size = left.shape[1]
        half = _Elimination(matrices, weights, level)
        for _ in range(size // 2 if size > 2 * TOGETHER else size):
            gone = half.remove_least()
            values.scatter_(1, left.gather(1, gone), half.level.unsqueeze(1))
        matrices, weights, stay = half.collect_left()
        level, left = half.level, left.gather(1, stay)
    return values


class _Elimination:
    """Weights of rows (R, n) that go one by one, and the H^-1 of what is left, (R, n, n).

    A weight q that goes takes u u' off H^-1, u = H^-1_q / sqrt(H^-1_qq). The products of several
    are taken off together, by one product of matrices; until then what is asked for, the diagonal
    and a row at a time, is kept up to date by the vectors u themselves.
    """

    def __init__(self, matrices: Tensor, weights: Tensor, level: Tensor) -> None:
        self.matrices, self.weights, self.level = matrices, weights.clone(), level
        self.diagonal = matrices.diagonal(dim1=1, dim2=2).clone()
        self.gone = torch.zeros_like(weights, dtype=torch.bool)
        self.vectors = weights.new_zeros(len(weights), TOGETHER, weights.shape[1])
        self.waiting = 0
        self.rows = torch.arange(len(weights), device=weights.device)

    def remove_least(self) -> Tensor:
        """Take out of each row the weight that costs least; its place, (R, 1)."""
        cost = (self.weights**2 / self.diagonal).masked_fill_(self.gone, torch.inf)
        least, place = cost.min(1)
        self.level = torch.maximum(self.level, least)
        u = self._read_row(place) * self.diagonal[self.rows, place].rsqrt().unsqueeze(1)
        at = u[self.rows, place]  # sqrt of the diagonal
        self.weights -= u * (self.weights[self.rows, place] / at).unsqueeze(1)
        self.diagonal -= u**2
        self.gone[self.rows, place] = True
        self.diagonal[self.rows, place] = 1.0  # is asked for no more
        self.vectors[:, self.waiting] = u
        self.waiting += 1
        if self.waiting == TOGETHER:
            self._update()
        return place.unsqueeze(1)

    def collect_left(self) -> tuple[Tensor, Tensor, Tensor]:
        """H^-1 and weights of what is left, and their places (R, m)."""
        self._update()
        stay = (~self.gone).nonzero()[:, 1].view(len(self.rows), -1)
        across = stay.unsqueeze(2).expand(-1, -1, self.matrices.shape[2])
        kept = self.matrices.gather(1, across)
        kept = kept.gather(2, stay.unsqueeze(1).expand(-1, stay.shape[1], -1))
        return kept, self.weights.gather(1, stay), stay

    def _read_row(self, place: Tensor) -> Tensor:
        """The row of H^-1 at a place of each row of weights, (R, n)."""
        stale = self.matrices[self.rows, place]
        waiting = self.vectors[:, : self.waiting]
        shares = waiting[self.rows, :, place].unsqueeze(1)
        return torch.baddbmm(stale.unsqueeze(1), shares, waiting, alpha=-1).squeeze(1)

    def _update(self) -> None:
        waiting = self.vectors[:, : self.waiting]
        self.matrices.baddbmm_(waiting.mT, waiting, alpha=-1)
        self.waiting = 0
