"""BatchNorm: statistics taken again or matched, and normalising by the batch in hand."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnprune.calibration.moments import ChannelMoments, blocks
from snnprune.mask import Masks
from snnprune.network import Batch, Network, NormCall, evaluating, watching
from snnprune.repair.matching import DenseNorm, dense_norms, match
from snnprune.repair.pruned import Pruned


def batchnorms(module: nn.Module) -> dict[str, _BatchNorm]:
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
    norms = batchnorms(network.module)
    moments: dict[str, ChannelMoments] = defaultdict(ChannelMoments)

    def add(key: str, call: NormCall) -> None:
        for block in blocks(call.input, 1 - call.input.dim()):  # (N, C, ...)
            moments[key].add(block)

    with (
        evaluating(network.module),
        normalising_by_batch(norms.values()),
        watching(network, on_norm=add) as start,
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
def normalising_by_batch(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let `norms` use batch statistics and keep none, in the block alone.

    A batch with one value per channel has no variance: there the running statistics do.
    """
    before = [(norm, norm.training, norm.momentum, _count(norm)) for norm in norms]
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


def _count(norm: _BatchNorm) -> int:
    return 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)


class BatchForm:
    """BatchNorms in the form in which a batch's own statistics may take the place of those held.

    With m, v the moments of what enters in the dense network, M, V those that it holds:

        gamma' = gamma sqrt(v + eps) / sqrt(V + eps)
        beta' = beta + gamma (m - M) / sqrt(V + eps)

    are right with m and v as statistics, as gamma and beta are with M and V. So tuning goes the
    same way in whatever form a network holds its normalisations.
    """

    def __init__(self, module: nn.Module, dense: Mapping[str, DenseNorm]) -> None:
        """`dense` are the norms of the dense network, by running variance; others are left out."""
        norms = batchnorms(module)
        self.norms = {norms[key]: norm for key, norm in dense.items() if key in norms}
        self.forms = {norm: held.compute_form() for norm, held in self.norms.items()}
        self.plain = {
            norm: (gain.to(self.norms[norm].mean), shift.to(self.norms[norm].mean))
            for norm, (gain, shift) in self.forms.items()
            if norm.weight is None and norm.bias is None
        }

    @contextlib.contextmanager
    def tuning(self) -> Iterator[None]:
        """In the block scales and shifts are those of the form; after it, in the network's own."""
        self._turn(lambda gain, mean, scale, shift: (scale * gain, shift + scale * mean))
        try:
            yield
        finally:
            self._turn(lambda gain, mean, scale, shift: (scale / gain, shift - scale / gain * mean))

    @contextlib.contextmanager
    def normalising(self) -> Iterator[None]:
        """Let them normalise by the batch in the block, also those without scale and shift."""
        try:
            for norm, (gain, shift) in self.plain.items():
                norm.__dict__.update(weight=gain, bias=shift)
            with normalising_by_batch(self.norms):
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
            if norm.weight is not None and norm.bias is not None:
                scale, shift = turned(*form, norm.weight.double(), norm.bias.double())
                norm.weight.copy_(scale)
                norm.bias.copy_(shift)


def rematched(pruned: Pruned) -> Masks:
    """Statistics under which the pruned network normalises as the dense one; see `matching`."""
    norms = dense_norms(pruned)
    if norms:
        match(pruned, norms)
    return pruned.masks
