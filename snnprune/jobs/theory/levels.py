"""How strongly something is changed, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from snnprune.errors import InputError, UsageError
from snnprune.runtime import generator
from snnprune.theory import changes

Weights = Callable[[Tensor, int], Tensor]
"""From a weight and its layer's groups to the changed weight."""
Input = Callable[[int], Callable[[Tensor], Tensor]]
"""From the axis of the samples to what changes the batches of a pass, one after the other."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """How strongly something is changed."""

    name: str
    """As it is shown, such as `4 bits`."""
    value: float
    weights: Weights | None = None
    input: Input | None = None
    parameters: Callable[[Tensor, int], int] | None = None
    """How many numbers a weight is stored as then, where these are fewer."""


def quantize_levels(bits: Iterable[int], *, per_channel: bool) -> tuple[Level, ...]:
    """Of whole-number weights."""

    def level(n: int) -> Level:
        def rounded(weight: Tensor, _: int) -> Tensor:
            return changes.quantized(weight, n, per_channel=per_channel)

        return Level(name=f"{n} bits", value=n, weights=rounded)

    return tuple(map(level, bits))


def low_rank_levels(keeps: Iterable[float]) -> tuple[Level, ...]:
    """Of decompositions."""

    def level(keep: float) -> Level:
        return Level(
            name=f"{100 * keep:.4g}% of ranks",
            value=keep,
            weights=lambda weight, groups: changes.low_rank(weight, keep, groups)[0],
            parameters=lambda weight, groups: changes.low_rank(weight, keep, groups)[1],
        )

    return tuple(map(level, keeps))


def prune_levels(sparsities: Iterable[float]) -> tuple[Level, ...]:
    """Of each layer's smallest weights."""

    def level(sparsity: float) -> Level:
        return Level(
            name=f"{100 * sparsity:.4g}% pruned",
            value=sparsity,
            weights=lambda weight, _: changes.without_smallest(weight, sparsity),
        )

    return tuple(map(level, sparsities))


def noise_levels(
    kind: str, shares: Iterable[float], seed: int, time_axis: int | None
) -> tuple[Level, ...]:
    """Of the network's input; spikes jitter along `time_axis` of a batch.

    Raises:
        UsageError: there is no such noise.
    """
    kinds: dict[str, Callable[..., Tensor]] = {
        "gaussian": changes.with_gaussian,
        "delete": changes.with_deletions,
        "insert": changes.with_insertions,
        "jitter": changes.with_jitter,
    }
    if kind not in kinds:
        known = ", ".join(kinds)
        raise UsageError(f"unknown noise {kind!r}", field="--kind", hint=f"choose from {known}")

    def level(share: float) -> Level:
        return Level(
            name=f"{kind} {share:g}",
            value=share,
            input=partial(_Disturbing, kind, kinds[kind], share, seed, time_axis),
        )

    return tuple(map(level, shares))


def require_one_tensor(batch: object) -> None:
    """Refuse a batch of another kind, of which nobody knows what noise is.

    Raises:
        InputError: it is one.
    """
    if not isinstance(batch, Tensor):
        raise InputError("noise is for batches that are one tensor", field="--data")


class _Disturbing:
    """Each sample by draws of its own, so that batches do not matter."""

    def __init__(
        self,
        kind: str,
        change: Callable[..., Tensor],
        share: float,
        seed: int,
        time_axis: int | None,
        samples_axis: int,
    ) -> None:
        self.kind, self.change, self.share, self.seed = kind, change, share, seed
        self.time_axis, self.samples_axis = time_axis, samples_axis
        self.done = 0

    def __call__(self, x: Tensor) -> Tensor:
        require_one_tensor(x)
        if self.kind != "gaussian" and not bool(((x == 0) | (x == 1)).all()):
            raise InputError(
                f"{self.kind} is for spikes, and the input has other values than 0 and 1",
                field="--kind",
                hint="choose gaussian",
            )
        along = {"axis": self._time_of(x)} if self.kind == "jitter" else {}
        parts = []
        for one in x.split(1, self.samples_axis):
            draws = generator(self.seed, "input", self.kind, self.done)
            parts.append(self.change(one, self.share, draws, **along))
            self.done += 1
        return torch.cat(parts, self.samples_axis)

    def _time_of(self, x: Tensor) -> int:
        """Time comes first, or somebody has to say where."""
        axis = self.time_axis
        if axis is None and self.samples_axis == 1:
            return 0
        if axis is None or axis == self.samples_axis or not 0 <= axis < x.dim():
            said = "which axis is time is not known" if axis is None else f"axis {axis} is not time"
            raise InputError(
                f"{said} of an input {tuple(x.shape)} with its samples along axis "
                f"{self.samples_axis}",
                field="--time-axis",
                hint="give it, counted from 0",
            )
        return axis
