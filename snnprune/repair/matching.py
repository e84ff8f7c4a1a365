"""BatchNorm statistics under which a pruned network normalises as the dense one does.

What the file holds may be statistics of other data, of a frozen BatchNorm or none at all, and the
dense network is right with them. So nothing is taken of the calibration images but what pruning
changes on them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from snnprune.calibration.moments import ChannelMoments, blocks
from snnprune.network import NormCall, evaluating, holding, watching
from snnprune.network.capture import NormObserver
from snnprune.repair.pruned import Pruned, silence

FLAT = 1e-10
"""Of the squared mean: a smaller variance is rounding."""
LEAST = 1e-4
"""Of the dense network's variance: a channel that varies less is scaled up no further."""


@dataclass(frozen=True)
class DenseNorm:
    """A normalisation of the dense network: what it holds, and what enters it."""

    mean: Tensor
    variance: Tensor
    eps: float
    calls: Mapping[int, list[ChannelMoments]] = field(default_factory=lambda: defaultdict(list))
    """Moments of the input of each call, by the number of the calibration batch."""

    def compute_form(self) -> tuple[Tensor, Tensor]:
        """Gain and shift, (C,) float64: deviation and mean of what leaves it before its own scale
        and shift, over all calls together.
        """
        entered = _together(moments for calls in self.calls.values() for moments in calls)
        sigma = (self.variance.double() + self.eps).sqrt()
        gain = (entered.compute_variance() + self.eps).sqrt() / sigma
        return gain, (entered.mean - self.mean) / sigma

    def matched(self, dense: ChannelMoments, now: ChannelMoments) -> tuple[Tensor, Tensor]:
        """The running mean and variance, (C,) float64, under which `now` leaves it as `dense` does.

        With m and v the mean and variance of what enters (d dense, p pruned) and M, V as held:

            V' + eps = (V + eps) v_p / v_d,    M' = m_p - (m_d - M) sqrt(v_p / v_d)

        Equal moments give M and V to the bit. A channel that is constant in one of the two has its
        mean moved alone.
        """
        mean, variance = self.mean.double(), self.variance.double()
        ratio = torch.where(
            _flat(dense) | _flat(now), 1.0, now.compute_variance() / dense.compute_variance()
        )
        least = (self.eps / (variance + self.eps)).clamp(min=LEAST)  # or V' would be negative
        ratio = ratio.maximum(least)
        moved = (now.mean - dense.mean) - (dense.mean - mean) * (ratio.sqrt() - 1)
        grown = variance * ratio + self.eps * (ratio - 1)
        return mean + moved, grown.clamp(min=0)


def dense_norms(pruned: Pruned) -> dict[str, DenseNorm]:
    """The normalisations of the dense network on the calibration images, by running variance."""
    network, module = pruned.network, pruned.network.module
    buffers = {id(buffer) for buffer in module.buffers()}
    norms: dict[str, DenseNorm] = {}

    def keep(batch: int, key: str, call: NormCall) -> None:
        if call.training or call.mean is None or call.variance is None:
            return
        if id(call.mean) not in buffers:  # a mean that is computed cannot be set
            return
        if key not in norms:
            norms[key] = DenseNorm(call.mean.clone(), call.variance.clone(), call.eps)
        norms[key].calls[batch].append(_moments(call))

    with torch.no_grad(), evaluating(module), holding(module, pruned.dense):
        for number, (x, _) in enumerate(pruned.network.feed(pruned.batches)):
            with watching(network, on_norm=partial(keep, number)) as start:
                start()
                pruned.network.run(x)
    return norms


class Matching:
    """Sets the statistics of a pruned network as it runs, by all that it has met so far.

    So what comes behind a normalisation sees repaired inputs in the same pass.
    """

    def __init__(self, norms: Mapping[str, DenseNorm]) -> None:
        self.norms = norms
        self.dense: dict[str, ChannelMoments] = defaultdict(ChannelMoments)
        self.now: dict[str, ChannelMoments] = defaultdict(ChannelMoments)

    def on_norm(self, batch: int) -> NormObserver:
        """Who is to be told of the calls of the calibration batch of that number."""
        calls: dict[str, Iterator[ChannelMoments]] = {
            key: iter(norm.calls[batch]) for key, norm in self.norms.items()
        }

        def match(key: str, call: NormCall) -> None:
            dense = next(calls.get(key, iter(())), None)
            if dense is None:
                return
            self.dense[key].merge(dense)
            self.now[key].merge(_moments(call))
            mean, variance = self.norms[key].matched(self.dense[key], self.now[key])
            assert call.mean is not None
            assert call.variance is not None
            call.mean.copy_(mean)
            call.variance.copy_(variance)

        return match


@torch.no_grad()
def match(pruned: Pruned, norms: Mapping[str, DenseNorm]) -> None:
    """Set the running statistics of the pruned network by all calibration images."""
    module, matching = pruned.network.module, Matching(norms)
    with evaluating(module):
        for number, (x, _) in enumerate(pruned.network.feed(pruned.batches)):
            with watching(pruned.network, on_norm=matching.on_norm(number)) as start:
                start()
                pruned.network.run(x)
    silence(module, pruned.silenced)


def _moments(call: NormCall) -> ChannelMoments:
    found = ChannelMoments()
    for block in blocks(call.input, 1 - call.input.dim()):  # (N, C, ...)
        found.add(block)
    return found


def _together(moments: Iterator[ChannelMoments]) -> ChannelMoments:
    whole = ChannelMoments()
    for one in moments:
        whole.merge(one)
    return whole


def _flat(moments: ChannelMoments) -> Tensor:
    return moments.compute_variance() <= FLAT * moments.mean**2
