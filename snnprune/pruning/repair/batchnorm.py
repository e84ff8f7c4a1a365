"""BatchNorm: statistics taken again or matched, and normalising by the batch in hand."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnprune.graph.calls import NormCall
from snnprune.graph.forward import Batch
from snnprune.graph.hooks import NormObserver, observe
from snnprune.graph.network import Network
from snnprune.graph.state import replace_tensors, use_eval_mode
from snnprune.masks import Masks
from snnprune.measure.channel_sums import ChannelMoments, reshape_to_blocks
from snnprune.pruning.repair import Pruned, silence

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
    gain_stays: bool = False
    """Whether its factors are left as they are, and its mean is moved alone."""

    def compute_form(self) -> tuple[Tensor, Tensor]:
        """Gain and shift, (C,) float64: deviation and mean of what leaves it before its own scale
        and shift, over all calls together.
        """
        entered = _merge_moments(moments for calls in self.calls.values() for moments in calls)
        sigma = (self.variance.double() + self.eps).sqrt()
        gain = (entered.compute_variance() + self.eps).sqrt() / sigma
        return gain, (entered.mean - self.mean) / sigma

    def match_statistics(self, dense: ChannelMoments, now: ChannelMoments) -> tuple[Tensor, Tensor]:
        """The running mean and variance, (C,) float64, under which `now` leaves it as `dense` does.

        With m and v the mean and variance of what enters (d dense, p pruned) and M, V as held:

            V' + eps = (V + eps) v_p / v_d,    M' = m_p - (m_d - M) sqrt(v_p / v_d)

        Equal moments give M and V to the bit. A channel that is constant in one of the two has its
        mean moved alone, as all have where the gain stays.
        """
        mean, variance = self.mean.double(), self.variance.double()
        fixed = _flatten(dense) | _flatten(now) | self.gain_stays
        ratio = torch.where(fixed, 1.0, now.compute_variance() / dense.compute_variance())
        least = (self.eps / (variance + self.eps)).clamp(min=LEAST)  # or V' would be negative
        ratio = ratio.maximum(least)
        moved = (now.mean - dense.mean) - (dense.mean - mean) * (ratio.sqrt() - 1)
        grown = variance * ratio + self.eps * (ratio - 1)
        return mean + moved, grown.clamp(min=0)


def measure_dense_norms(pruned: Pruned) -> dict[str, DenseNorm]:
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
        norms[key].calls[batch].append(_compute_moments(call))

    with torch.no_grad(), use_eval_mode(module), replace_tensors(module, pruned.dense):
        for number, (x, _) in enumerate(pruned.network.feed(pruned.batches)):
            with observe(network, on_norm=partial(keep, number)) as start:
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
            self.now[key].merge(_compute_moments(call))
            mean, variance = self.norms[key].match_statistics(self.dense[key], self.now[key])
            assert call.mean is not None
            assert call.variance is not None
            call.mean.copy_(mean)
            call.variance.copy_(variance)

        return match


@torch.no_grad()
def match(pruned: Pruned, norms: Mapping[str, DenseNorm]) -> None:
    """Set the running statistics of the pruned network by all calibration images."""
    module, matching = pruned.network.module, Matching(norms)
    with use_eval_mode(module):
        for number, (x, _) in enumerate(pruned.network.feed(pruned.batches)):
            with observe(pruned.network, on_norm=matching.on_norm(number)) as start:
                start()
                pruned.network.run(x)
    silence(module, pruned.silenced)


def _compute_moments(call: NormCall) -> ChannelMoments:
    found = ChannelMoments()
    for block in reshape_to_blocks(call.input, 1 - call.input.dim()):  # (N, C, ...)
        found.add(block)
    return found


def _merge_moments(moments: Iterator[ChannelMoments]) -> ChannelMoments:
    whole = ChannelMoments()
    for one in moments:
        whole.merge(one)
    return whole


def _flatten(moments: ChannelMoments) -> Tensor:
    return moments.compute_variance() <= FLAT * moments.mean**2


def find_batchnorms(module: nn.Module) -> dict[str, _BatchNorm]:
    """The normalisations that keep running statistics, by the key of their variance."""
    return {
        f"{name}.running_var": child
        for name, child in module.named_modules()
        if isinstance(child, _BatchNorm) and child.track_running_stats
    }


@torch.no_grad()
def recalibrate_batchnorm(network: Network, batches: Iterable[Batch]) -> None:
    """Replace the running mean and variance of every BatchNorm by those of `batches` together.

    Meanwhile each normalises by the batch in hand, so that what follows sees repaired inputs. No
    weight changes, nothing else is in training mode, and no label is read.
    """
    norms = find_batchnorms(network.module)
    moments: dict[str, ChannelMoments] = defaultdict(ChannelMoments)

    def add(key: str, call: NormCall) -> None:
        for block in reshape_to_blocks(call.input, 1 - call.input.dim()):  # (N, C, ...)
            moments[key].add(block)

    with (
        use_eval_mode(network.module),
        normalise_by_batch(norms.values()),
        observe(network, on_norm=add) as start,
    ):
        for x, _ in network.feed(batches):
            start()
            network.run(x)
    for key, seen in moments.items():
        if key in norms:
            _set_statistics(norms[key], seen)


def _set_statistics(norm: _BatchNorm, seen: ChannelMoments) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(seen.mean)
    norm.running_var.copy_(seen.squares / max(seen.count - 1, 1))  # unbiased, as in training


@contextlib.contextmanager
def normalise_by_batch(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let `norms` use batch statistics and keep none, in the block alone.

    A batch with one value per channel has no variance: there the running statistics do.
    """
    before = [(norm, norm.training, norm.momentum, _read_count(norm)) for norm in norms]
    hooks = [norm.register_forward_pre_hook(_train_if_several) for norm, *_ in before]
    try:
        for norm, *_ in before:
            norm.momentum = 0.0
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, training, momentum, count in before:
            norm.training, norm.momentum = training, momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(count)


def _train_if_several(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
    norm.training = args[0].numel() > args[0].shape[1]


def _read_count(norm: _BatchNorm) -> int:
    return 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)


class BatchNormForm:
    """BatchNorms in the form in which a batch's own statistics may take the place of those held.

    With m, v the moments of what enters in the dense network, M, V those that it holds:

        gamma' = gamma sqrt(v + eps) / sqrt(V + eps)
        beta' = beta + gamma (m - M) / sqrt(V + eps)

    are right with m and v as statistics, as gamma and beta are with M and V. So tuning goes the
    same way in whatever form a network holds its normalisations.
    """

    def __init__(self, module: nn.Module, dense: Mapping[str, DenseNorm]) -> None:
        """`dense` are the norms of the dense network, by running variance; others are left out.

        So are those with a scale and no shift or the other way round, which have no such form.
        """
        norms = find_batchnorms(module)
        turned = {
            key: norm for key, norm in norms.items() if (norm.weight is None) == (norm.bias is None)
        }
        self.norms = {turned[key]: norm for key, norm in dense.items() if key in turned}
        self.forms = {norm: held.compute_form() for norm, held in self.norms.items()}
        self.plain = {
            norm: (gain.to(self.norms[norm].mean), shift.to(self.norms[norm].mean))
            for norm, (gain, shift) in self.forms.items()
            if norm.weight is None
        }

    @contextlib.contextmanager
    def tune_affine(self) -> Iterator[None]:
        """In the block scales and shifts are those of the form; after it, in the network's own."""
        self._turn(lambda gain, mean, scale, shift: (scale * gain, shift + scale * mean))
        try:
            yield
        finally:
            self._turn(lambda gain, mean, scale, shift: (scale / gain, shift - scale / gain * mean))

    @contextlib.contextmanager
    def normalise_by_batch(self) -> Iterator[None]:
        """Let them normalise by the batch in the block, also those without scale and shift."""
        try:
            for norm, (gain, shift) in self.plain.items():
                norm.__dict__.update(weight=gain, bias=shift)
            with normalise_by_batch(self.norms):
                yield
        finally:
            for norm in self.plain:
                for name in ("weight", "bias"):
                    norm.__dict__.pop(name, None)

    @torch.no_grad()
    def _turn(
        self, turned: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> None:
        for norm, form in self.forms.items():
            if norm not in self.plain:
                scale, shift = turned(*form, norm.weight.double(), norm.bias.double())
                norm.weight.copy_(scale)
                norm.bias.copy_(shift)


def rematched(pruned: Pruned) -> Masks:
    """Statistics under which the pruned network normalises as the dense one; see `matching`."""
    norms = measure_dense_norms(pruned)
    if norms:
        match(pruned, norms)
    return pruned.masks
