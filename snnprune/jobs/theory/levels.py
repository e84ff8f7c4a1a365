"""How strongly something is changed, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from snnprune.errors import InputError, UsageError
from snnprune.randomness import generator
from snnprune.theory import changes

Weights = Callable[[Tensor], Tensor]
Input = Callable[[Tensor, int, int], Tensor]
"""From a batch, the number of its first sample and of its samples to the changed batch."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """How strongly something is changed."""

    name: str
    """As it is shown, such as `4 bits`."""
    value: float
    weights: Weights | None = None
    """From a weight to the changed one."""
    input: Input | None = None
    parameters: Callable[[Tensor], int] | None = None
    """How many numbers a weight is stored as then, where these are fewer."""


def quantize_levels(bits: Iterable[int], *, per_channel: bool) -> tuple[Level, ...]:
    """Of whole-number weights."""

    def level(n: int) -> Level:
        def rounded(weight: Tensor) -> Tensor:
            return changes.quantized(weight, n, per_channel=per_channel)

        return Level(name=f"{n} bits", value=n, weights=rounded)

    return tuple(map(level, bits))


def low_rank_levels(keeps: Iterable[float]) -> tuple[Level, ...]:
    """Of decompositions."""

    def level(keep: float) -> Level:
        return Level(
            name=f"{100 * keep:.4g}% of ranks",
            value=keep,
            weights=lambda weight: changes.low_rank(weight, keep)[0],
            parameters=lambda weight: changes.low_rank(weight, keep)[1],
        )

    return tuple(map(level, keeps))


def prune_levels(sparsities: Iterable[float]) -> tuple[Level, ...]:
    """Of each layer's smallest weights."""

    def level(sparsity: float) -> Level:
        return Level(
            name=f"{100 * sparsity:.4g}% pruned",
            value=sparsity,
            weights=lambda weight: changes.without_smallest(weight, sparsity),
        )

    return tuple(map(level, sparsities))


def noise_levels(kind: str, shares: Iterable[float], seed: int, axis: int) -> tuple[Level, ...]:
    """Of the network's input; `axis` is that of time in a batch.

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
        change = partial(kinds[kind], axis=axis) if kind == "jitter" else kinds[kind]
        return Level(
            name=f"{kind} {share:g}",
            value=share,
            input=partial(_disturbed, kind, change, share, seed),
        )

    return tuple(map(level, shares))


def _disturbed(
    kind: str,
    change: Callable[..., Tensor],
    share: float,
    seed: int,
    x: Tensor,
    first: int,
    samples: int,
) -> Tensor:
    """Each sample by draws of its own, so that batches do not matter."""
    if kind != "gaussian" and not bool(((x == 0) | (x == 1)).all()):
        raise InputError(
            f"{kind} is for spikes, and the input has other values than 0 and 1",
            field="--kind",
            hint="choose gaussian",
        )
    where = 0 if x.shape[0] == samples else 1  # time may come first
    parts = [
        change(one, share, generator(seed, "input", kind, first + number))
        for number, one in enumerate(x.split(1, where))
    ]
    return torch.cat(parts, where)
