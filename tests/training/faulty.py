"""A network and batches of the user's own that fail in the middle of a run, as `FAULT` says.

`FAULT=KIND:N` is met at the N-th training pass of the network, or at the N-th pass over the images.
"""

import os
import signal
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info


def fault(kind: str, number: int) -> bool:
    return os.environ.get("FAULT") == f"{kind}:{number}"


class Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return gradient / (1 + u * u)


class Scale(nn.Module):
    """By a factor that is sometimes not finite."""

    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Own(nn.Module):
    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.hidden, self.norm, self.current = nn.Linear(36, 8), nn.BatchNorm1d(8), Scale()
        self.scale, self.out, self.passes = Scale(), nn.Linear(8, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
            self.fail()
        membrane, logits = torch.zeros(1, 8), []
        for _ in range(2):
            membrane = 0.5 * membrane + self.current(self.norm(self.hidden(x.flatten(1))))
            spikes = Heaviside.apply(membrane - 1)
            membrane = membrane * (1 - spikes)
            logits.append(self.gain * self.out(self.scale(spikes)))
        return torch.stack(logits)

    def fail(self) -> None:
        if fault("nan", self.passes):
            self.scale.factor = float("nan")
        if fault("hidden nan", self.passes):  # a membrane of NaN never spikes: no loss tells of it
            self.current.factor = float("nan")
        if fault("gpu", self.passes):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if fault("host", self.passes):
            torch.empty(2**50)  # a petabyte, which torch really asks for


class Images(Dataset[Any]):
    """12 images of two classes; a worker that makes the 7th may be killed as the system does it."""

    passes = 0

    def __init__(self) -> None:
        drawn = torch.Generator().manual_seed(0)
        self.y = torch.arange(12) % 2
        self.x = torch.rand(12, 1, 6, 6, generator=drawn) + self.y.view(-1, 1, 1, 1)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if get_worker_info() is not None and index == 7:
            if fault("worker", self.passes):
                os.kill(os.getpid(), signal.SIGKILL)
            if fault("exit", self.passes):
                os._exit(9)
        return self.x[index], self.y[index]


class Counting(DataLoader[Any]):
    """Its data set knows which pass it is, in the workers too."""

    def __iter__(self) -> Any:
        self.dataset.passes += 1  # type: ignore[attr-defined]  # it is ours
        return super().__iter__()


def model() -> nn.Module:
    return Own()


def loud() -> nn.Module:
    """Its gradients are so large that they soon overflow."""
    return Own(gain=2.0**10)


def batches() -> Any:
    return DataLoader(Images(), batch_size=4, shuffle=True)


def by_workers() -> Any:
    return Counting(Images(), batch_size=4, num_workers=2)


def ending_in_one() -> Any:
    images = Images()
    return DataLoader(TensorDataset(images.x[:9], images.y[:9]), batch_size=4)


def of_one_class() -> Any:
    images = Images()
    return DataLoader(TensorDataset(images.x.repeat(2, 1, 1, 1), torch.zeros(24).long()), 8)


def empty() -> Any:
    images = Images()
    return DataLoader(TensorDataset(images.x[:0], images.y[:0]), batch_size=4)


def one_batch() -> Any:
    return DataLoader(Images(), batch_size=12)
