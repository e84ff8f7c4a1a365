"""Gradients and BatchNorms of the whole batch, of which each rank holds a part."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from snnprune.distributed.ranks import Ranks
from snnprune.runtime import seed_draws

Compute = Callable[..., Tensor]
"""From what a network is fed to the tensor that the loss is made of, from rest."""


class ReplicatedNetwork:
    """Runs a network of which every rank has a copy.

    Where each rank's loss counts by its share of the whole batch (`Part.share`), `backward` gives
    all of them the gradients that one process would have. The module itself stays as it is, under
    its own keys. Alone, nothing is wrapped.
    """

    def __init__(self, module: nn.Module, compute: Compute, ranks: Ranks, *example: Any) -> None:
        """`compute` runs `module`; `example` is what it takes, to see which parameters it uses.

        All ranks get the parameters and buffers of the first.
        """
        self.wrapped: DistributedDataParallel | None = None
        self.running, self.size = _RunModule(module, compute), ranks.size
        if ranks.size == 1:
            return
        for mine, first in zip(module.buffers(), ranks.share(list(module.buffers())), strict=True):
            mine.copy_(first)
        with _keep_buffers(module), seed_draws("example", device=_find_device(module)):
            unused = ranks.any(_leaves_some_unused(self.running, example))
            self.wrapped = DistributedDataParallel(self.running, find_unused_parameters=unused)
            # it lays its buckets anew after one pass; a run that is taken up again must sum alike
            _find_used_parameters(self.wrapped, example)

    def __call__(self, *fed: Any) -> Tensor:
        """The output for this rank's part of the batch."""
        return (self.wrapped or self.running)(*fed)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the sum of all ranks' losses."""
        (loss if self.size == 1 else loss * self.size).backward()  # DDP takes the mean over ranks

    def apart(self) -> AbstractContextManager[None]:
        """Passes in the block add to this rank's gradients; the next one outside sums them all."""
        return self.wrapped.no_sync() if self.wrapped else contextlib.nullcontext()


class _RunModule(nn.Module):
    """`compute` as a module; it may call the network's parts, or the network many times.

    The parameters are all that is to be seen of the network: buffers are the same on all ranks.
    """

    def __init__(self, module: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.trained = nn.ParameterList(module.parameters())
        self.compute = compute

    def forward(self, *fed: Any) -> Tensor:
        """The output for `fed`."""
        return self.compute(*fed)


def _leaves_some_unused(running: _RunModule, example: tuple[Any, ...]) -> bool:
    """Whether a parameter gets no gradient."""
    used = _find_used_parameters(running, example)
    return any(p.requires_grad and p not in used for p in running.parameters())


def _find_used_parameters(called: nn.Module, example: tuple[Any, ...]) -> set[nn.Parameter]:
    """The parameters that get a gradient in one pass; afterwards none has one."""
    called(*example).sum().backward()
    used = {parameter for parameter in called.parameters() if parameter.grad is not None}
    for parameter in used:
        parameter.grad = None
    return used


@contextlib.contextmanager
def _keep_buffers(module: nn.Module) -> Iterator[None]:
    """After the block they are as they were."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    yield
    for buffer, before in kept:
        buffer.copy_(before)


def _find_device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


SIGNATURE = inspect.signature(functional.batch_norm)


@contextlib.contextmanager
def synchronise_batchnorms(ranks: Ranks, *, counts: bool = True) -> Iterator[None]:
    """In the block, what normalises by its batch takes the batch of all ranks.

    Any module that calls `batch_norm` in training mode does, whatever its class, and keeps its
    running statistics as one process would. `counts` is off where this rank's samples stand in
    for none: they are normalised and are no part of the statistics. A normalisation that calls no
    `batch_norm` stays with the samples of its rank.
    """
    with contextlib.nullcontext() if ranks.size == 1 else _BatchNormMode(ranks, counts=counts):
        yield


class _BatchNormMode(TorchFunctionMode):
    """Sees the calls of `batch_norm`."""

    watches_neurons = False
    """As `models.lif.native` asks: how neurons are computed is no matter."""

    def __init__(self, ranks: Ranks, *, counts: bool) -> None:
        super().__init__()
        self.ranks, self.counts = ranks, counts

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.batch_norm:
            call = SIGNATURE.bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments["training"]:
                return self._normalise(**call.arguments)
        return function(*args, **kwargs)

    def _normalise(
        self,
        *,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        momentum: float,
        eps: float,
        training: bool,  # noqa: ARG002  # true
    ) -> Tensor:
        count, mean, squares = _compute_moments(input.detach(), self.ranks, counts=self.counts)
        for running, new in ((running_mean, mean), (running_var, squares / (count - 1))):
            if running is not None:
                running.lerp_(new.to(running.dtype), momentum)
        variance = squares / count
        normalised: Tensor = _SyncNorm.apply(
            input, weight, bias, mean, variance, eps, count if self.counts else None
        )
        return normalised


def _compute_moments(x: Tensor, ranks: Ranks, *, counts: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Count (), mean and sum of squared distances to it (C,), float64, over x (N, C, ...) of all.

    Merged as by Chan, Golub and LeVeque 1979, the same on every rank.

    Raises:
        ValueError: one value per channel has no variance.
    """
    count = x.numel() // x.shape[1] if counts else 0
    axes = _list_other_dims(x)
    about = x.to(_widen_dtype(x)).mean(axes, keepdim=True)
    centred = x - about  # distances to about the mean lose nothing in float32
    off = centred.mean(axes).double()
    mean = about.flatten().double() + off
    squares = count * (centred.square_().mean(axes).double() - off.square())
    mine = torch.cat([mean, squares, mean.new_tensor([count])])
    everybody = [torch.empty_like(mine) for _ in range(ranks.size)]
    dist.all_gather(everybody, mine)
    table = torch.stack(everybody)  # (ranks, 2 C + 1)
    numbers, (means, squares) = table[:, -1:], table[:, :-1].unflatten(1, (2, -1)).unbind(1)
    total = numbers.sum()
    if count < 2 and total < 2:  # looked at in this case alone, as a GPU must be waited for
        raise ValueError("a batch of one value per channel has no variance")
    mean = (numbers * means).sum(0) / total
    return total, mean, (squares + numbers * (means - mean).square()).sum(0)


class _SyncNorm(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, where mean and var depend on x of all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        count: Tensor | None,
    ) -> Tensor:
        """`count` is the number of values per channel on all ranks; None where x is not counted."""
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.count = count
        wide = _widen_dtype(x)
        statistics = mean.to(wide), variance.to(wide)
        return functional.batch_norm(x, *statistics, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, weight and bias; those of the parameters are this rank's alone, for DDP to sum."""
        x, weight, mean, scale = ctx.saved_tensors
        wide = _widen_dtype(x)
        axes, channels = _list_other_dims(x), (1, -1, *[1] * (x.dim() - 2))
        d = gradient.to(wide)
        centred = x.to(wide) - mean.to(wide).view(channels)
        sum_d = d.sum(axes).double()
        sum_dx = (d * centred).sum(axes).double() * scale  # of the gradient times the normalised x
        sums = torch.stack([sum_d, sum_dx])
        dist.all_reduce(sums)
        gain = scale if weight is None else scale * weight.double()
        dx = d * gain.to(wide).view(channels)
        if ctx.count is not None:
            slope, shift = -gain * scale * sums[1] / ctx.count, -gain * sums[0] / ctx.count
            dx.addcmul_(centred, slope.to(wide).view(channels)).add_(shift.to(wide).view(channels))
        needed = ctx.needs_input_grad
        return (
            dx.to(x.dtype),
            sum_dx.to(weight.dtype) if weight is not None and needed[1] else None,
            sum_d.to(wide if weight is None else weight.dtype) if needed[2] else None,
            *[None] * 4,
        )


def _list_other_dims(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _widen_dtype(x: Tensor) -> torch.dtype:
    """The type to reckon in: autocast may have made x narrow."""
    return torch.promote_types(x.dtype, torch.float32)
