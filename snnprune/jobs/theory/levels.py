"""How strongly something is changed, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from snnprune.errors import InputError, UsageError
from snnprune.runtime import make_generator
from snnprune.theory import changes

Weights = Callable[[Tensor, int], Tensor]
"""From a weight and its layer's groups to the changed weight."""
Input = Callable[[int], Callable[[Tensor], Tensor]]
"""From the axis of the samples to what changes the batches of a pass, one after the other."""


@dataclass(frozen=True, kw_only=True)
class ChangeLevel:
    """How strongly something is changed."""

    name: str
    """As it is shown, such as `4 bits`."""
    value: float
    weights: Weights | None = None
    input: Input | None = None
    parameters: Callable[[Tensor, int], int] | None = None
    """How many numbers a weight is stored as then, where these are fewer."""


def make_quantize_levels(bits: Iterable[int], *, per_channel: bool) -> tuple[ChangeLevel, ...]:
    """Of whole-number weights."""

    def level(n: int) -> ChangeLevel:
        def rounded(weight: Tensor, _: int) -> Tensor:
            return changes.quantize_weight(weight, n, per_channel=per_channel)

        return ChangeLevel(name=f"{n} bits", value=n, weights=rounded)

    return tuple(map(level, bits))


def make_low_rank_levels(keeps: Iterable[float]) -> tuple[ChangeLevel, ...]:
    """Of decompositions."""

    def level(keep: float) -> ChangeLevel:
        return ChangeLevel(
            name=f"{100 * keep:.4g}% of ranks",
            value=keep,
            weights=lambda weight, groups: changes.reduce_rank(weight, keep, groups)[0],
            parameters=lambda weight, groups: changes.reduce_rank(weight, keep, groups)[1],
        )

    return tuple(map(level, keeps))


def make_prune_levels(sparsities: Iterable[float]) -> tuple[ChangeLevel, ...]:
    """Of each layer's smallest weights."""

    def level(sparsity: float) -> ChangeLevel:
        return ChangeLevel(
            name=f"{100 * sparsity:.4g}% pruned",
            value=sparsity,
            weights=lambda weight, _: changes.drop_smallest(weight, sparsity),
        )

    return tuple(map(level, sparsities))


def make_noise_levels(
    kind: str, shares: Iterable[float], seed: int, time_axis: int | None
) -> tuple[ChangeLevel, ...]:
    """Of the network's input; spikes jitter along `time_axis` of a batch.

    Raises:
        UsageError: there is no such noise.
    """
    kinds: dict[str, Callable[..., Tensor]] = {
        "gaussian": changes.add_gaussian_noise,
        "delete": changes.delete_spikes,
        "insert": changes.insert_spikes,
        "jitter": changes.jitter_spikes,
    }
    if kind not in kinds:
        known = ", ".join(kinds)
        raise UsageError(f"unknown noise {kind!r}", field="--kind", hint=f"choose from {known}")

    def level(share: float) -> ChangeLevel:
        return ChangeLevel(
            name=f"{kind} {share:g}",
            value=share,
            input=partial(_NoiseInjector, kind, kinds[kind], share, seed, time_axis),
        )

    return tuple(map(level, shares))


def require_one_tensor(batch: object) -> None:
    """Refuse a batch of another kind, of which nobody knows what noise is.

    Raises:
        InputError: it is one.
    """
    if not isinstance(batch, Tensor):
        raise InputError("noise is for batches that are one tensor", field="--data")


class _NoiseInjector:
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
        along = {"axis": self._find_time_axis(x)} if self.kind == "jitter" else {}
        parts = []
        for one in x.split(1, self.samples_axis):
            draws = make_generator(self.seed, "input", self.kind, self.done)
            parts.append(self.change(one, self.share, draws, **along))
            self.done += 1
        return torch.cat(parts, self.samples_axis)

    def _find_time_axis(self, x: Tensor) -> int:
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
