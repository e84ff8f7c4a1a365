"""Layers written in many ways, each beside a plain one that does the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hand_written import Heaviside
from torch import Tensor, nn
from torch.nn import functional

STEPS, SAMPLES, INPUTS, OUTPUTS = 3, 4, 8, 12


class Neuron(nn.Module):
    """Adds up over time and fires; its state is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.mem: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        mem = torch.zeros_like(x) if self.mem is None else self.mem
        mem = 0.5 * mem + x
        spike = Heaviside.apply(mem - 0.6)
        self.mem = mem * (1 - spike)
        return spike


class Free(nn.Module):
    """A parameter of any shape and what somebody's code does with it."""

    def __init__(self, held: Tensor, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w_rec, self.use = nn.Parameter(held.contiguous()), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.w_rec, x)


class Around(nn.Module):
    """An encoding layer, the layer in question behind spikes, a norm, and a readout."""

    def __init__(self, layer: nn.Module, space: int = 0, outputs: int = OUTPUTS) -> None:
        super().__init__()
        convolution: Any = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)[space]
        norm: Any = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[space]
        self.first = convolution(5, INPUTS, *[1] * bool(space))
        self.lif1, self.layer, self.norm, self.lif2 = Neuron(), layer, norm(outputs), Neuron()
        self.last = nn.Linear(outputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for _ in range(STEPS):
            spikes = self.lif1(self.first(x))
            spikes = self.lif2(self.norm(self.layer(spikes)))
            out.append(self.last(spikes.flatten(2).mean(2) if spikes.dim() > 2 else spikes))
        return torch.stack(out)


def surrounded(layer: nn.Module, space: int = 0, outputs: int = OUTPUTS) -> Around:
    """The same around whatever layer; its neurons fire now and then."""
    torch.manual_seed(3)
    module: Any = Around(layer, space, outputs)
    for child in (module.first, module.last):
        nn.init.uniform_(child.weight, -1, 1)
        nn.init.uniform_(child.bias, 0, 0.4)
    nn.init.uniform_(module.norm.weight, 0.5, 2.0)
    nn.init.uniform_(module.norm.bias, -0.2, 0.8)
    module.norm.running_var.uniform_(0.1, 0.5)
    return module.eval()


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to write a layer."""

    use: Callable[[Tensor, Tensor], Tensor]
    """What it does with the parameter and the input."""
    held: Callable[[Tensor], Tensor]
    """From the plain layer's weight to the parameter."""
    plain: Callable[[], nn.Module] = lambda: nn.Linear(INPUTS, OUTPUTS, bias=False)
    size: tuple[int, ...] = ()
    """Of space."""

    def plainly(self) -> Around:
        torch.manual_seed(0)
        return surrounded(self.plain(), len(self.size), OUTPUTS)

    def written(self) -> Around:
        twin = self.plainly()
        held = self.held(twin.layer.get_parameter("weight").detach())
        return surrounded(Free(held, self.use), len(self.size))

    def x(self) -> Tensor:
        drawn = torch.Generator().manual_seed(1)
        return torch.rand(SAMPLES, 5, *self.size, generator=drawn)


def t(w: Tensor) -> Tensor:
    return w.t()


def same(w: Tensor) -> Tensor:
    return w


class Grouped(nn.Conv1d):
    """A linear layer of groups, as a convolution over one place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(-1)).squeeze(-1)


LINEAR: dict[str, Way] = {
    "F.linear": Way(use=lambda w, x: functional.linear(x, w), held=same),
    "F.linear of w.t()": Way(use=lambda w, x: functional.linear(x, w.t()), held=t),
    "x @ w": Way(use=lambda w, x: x @ w, held=t),
    "x @ w.T": Way(use=lambda w, x: x @ w.T, held=same),
    "w @ x.t()": Way(use=lambda w, x: (w @ x.t()).t(), held=same),
    "matmul": Way(use=lambda w, x: torch.matmul(x, w), held=t),
    "matmul of 3 dims": Way(use=lambda w, x: (x.unsqueeze(1) @ w).squeeze(1), held=t),
    "w @ x of 3 dims": Way(use=lambda w, x: (w @ x.unsqueeze(-1)).squeeze(-1), held=same),
    "mm": Way(use=lambda w, x: torch.mm(x, w), held=t),
    "mm first": Way(use=lambda w, x: torch.mm(w, x.t()).t(), held=same),
    "addmm": Way(use=lambda w, x: torch.addmm(torch.zeros(OUTPUTS), x, w), held=t),
    "bmm": Way(use=lambda w, x: torch.bmm(x.unsqueeze(0), w.unsqueeze(0)).squeeze(0), held=t),
    "bmm expanded": Way(
        use=lambda w, x: torch.bmm(x.unsqueeze(1), w.expand(len(x), -1, -1)).squeeze(1), held=t
    ),
    "bmm weight first": Way(
        use=lambda w, x: torch.bmm(w.expand(len(x), -1, -1), x.unsqueeze(2)).squeeze(2), held=same
    ),
    "baddbmm": Way(
        use=lambda w, x: torch.baddbmm(
            torch.zeros(1, 1, 1), x.unsqueeze(0), w.unsqueeze(0)
        ).squeeze(0),
        held=t,
    ),
    "tensordot": Way(use=lambda w, x: torch.tensordot(x, w, dims=1), held=t),
    "tensordot dims": Way(use=lambda w, x: torch.tensordot(x, w, dims=([1], [1])), held=same),
    "einsum": Way(use=lambda w, x: torch.einsum("ni,io->no", x, w), held=t),
    "einsum spaced": Way(use=lambda w, x: torch.einsum("n i, i o -> n o", x, w), held=t),
    "einsum weight first": Way(use=lambda w, x: torch.einsum("oi,ni->no", w, x), held=same),
    "einsum implicit": Way(use=lambda w, x: torch.einsum("ai,ij", x, w), held=t),
    "einsum ellipsis": Way(use=lambda w, x: torch.einsum("...i,oi->...o", x, w), held=same),
    "einsum list": Way(use=lambda w, x: torch.einsum("ni,io->no", [x, w]), held=t),
    "einsum out turned": Way(use=lambda w, x: torch.einsum("ni,io->on", x, w).t(), held=t),
    "einsum sublists": Way(use=lambda w, x: torch.einsum(x, [0, 1], w, [1, 2], [0, 2]), held=t),
    "einsum heads in": Way(
        use=lambda w, x: torch.einsum("nhd,hdo->no", x.unflatten(1, (2, 4)), w),
        held=lambda w: w.t().unflatten(0, (2, 4)),
    ),
    "einsum heads out": Way(
        use=lambda w, x: torch.einsum("ni,ihd->nhd", x, w).flatten(1),
        held=lambda w: w.t().unflatten(1, (3, 4)),
    ),
    "einsum both, moved": Way(
        use=lambda w, x: torch.einsum("nab,bpaq->nqp", x.unflatten(1, (2, 4)), w).flatten(1),
        held=lambda w: w.view(4, 3, 2, 4).permute(3, 1, 2, 0),
    ),
    "einsum groups": Way(
        use=lambda w, x: (
            torch.einsum("hbd,hde->hbe", x.unflatten(1, (4, 2)).transpose(0, 1), w)
            .transpose(0, 1)
            .flatten(1)
        ),
        held=lambda w: w.view(4, 3, 2).transpose(1, 2),
        plain=lambda: Grouped(8, 12, 1, groups=4, bias=False),
    ),
    "bmm groups": Way(
        use=lambda w, x: (
            torch.bmm(x.unflatten(1, (4, 2)).transpose(0, 1), w).transpose(0, 1).flatten(1)
        ),
        held=lambda w: w.view(4, 3, 2).transpose(1, 2),
        plain=lambda: Grouped(8, 12, 1, groups=4, bias=False),
    ),
    "view": Way(use=lambda w, x: x @ w.view(INPUTS, OUTPUTS), held=lambda w: w.t().flatten()),
    "permuted": Way(use=lambda w, x: x @ w.permute(1, 0), held=same),
    "masked": Way(use=lambda w, x: x @ (w * torch.ones(INPUTS, OUTPUTS)), held=t),
    "mask first": Way(use=lambda w, x: x @ (torch.ones(INPUTS, OUTPUTS) * w), held=t),
    "conv as linear": Way(
        use=lambda w, x: functional.conv1d(x.unsqueeze(-1), w.unsqueeze(-1)).squeeze(-1), held=same
    ),
    "clone": Way(use=lambda w, x: x @ w.clone().t().contiguous(), held=same),
    "einops like": Way(
        use=lambda w, x: torch.einsum("ni,oi->no", x, w.reshape(OUTPUTS, INPUTS)),
        held=lambda w: w.view(3, 4, 8),
    ),
}


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CALLS = (functional.conv1d, functional.conv2d, functional.conv3d)
TRANSPOSED = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
SIZES = ((6,), (5, 4), (4, 3, 3))


def flipped(w: Tensor) -> Tensor:
    """As a transposed convolution of stride 1 has the kernel of a plain one."""
    return w.flip(list(range(2, w.dim())))


def spread(x: Tensor, stride: int, more: int) -> Tensor:
    """Zeros between all places of space, and at the end."""
    for dim in range(2, x.dim()):
        shape = [*x.shape]
        shape[dim] = (x.shape[dim] - 1) * stride + 1 + more
        x = x.new_zeros(shape).index_copy(dim, torch.arange(x.shape[dim]) * stride, x)
    return x


def convolutions(n: int) -> dict[str, Way]:
    """Convolutions over `n` dimensions of space."""
    conv, call, back = CONVOLUTIONS[n - 1], CALLS[n - 1], TRANSPOSED[n - 1]
    given: dict[str, Any] = {"size": SIZES[n - 1]}
    plain: Callable[[], nn.Module] = lambda: conv(8, 12, 3, padding=1, bias=False)  # noqa: E731
    return {
        f"conv{n}d of groups": Way(
            use=lambda w, x: call(x, w, padding=1, groups=4),
            held=same,
            plain=lambda: conv(8, 12, 3, padding=1, groups=4, bias=False),
            **given,
        ),
        f"conv{n}d of a turned parameter": Way(
            use=lambda w, x: call(x, w.transpose(0, 1), padding=1),
            held=lambda w: w.transpose(0, 1),
            plain=plain,
            **given,
        ),
        f"conv_transpose{n}d": Way(
            use=lambda w, x: back(x, w, padding=1),
            held=lambda w: flipped(w.transpose(0, 1)),
            plain=plain,
            **given,
        ),
        f"conv_transpose{n}d of groups and dilation": Way(
            use=lambda w, x: back(x, w, padding=2, dilation=2, groups=4),
            held=lambda w: flipped(w.unflatten(0, (4, 3)).transpose(1, 2).flatten(0, 1)),
            plain=lambda: conv(8, 12, 3, padding=2, dilation=2, groups=4, bias=False),
            **given,
        ),
    }


CONV = convolutions(1) | convolutions(2) | convolutions(3)
