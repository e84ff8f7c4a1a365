"""How the processes that torchrun started find each other, and the devices that they work on."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from snnprune.data.batches import describe_batch
from snnprune.errors import InputError, PeerError, UsageError
from snnprune.runtime import ProcessRank, read_process_rank, require_device_name

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class BatchPart:
    """What one rank takes of a batch."""

    x: Any
    y: Tensor
    share: float
    """Of the samples of the batch, in [0, 1]; 0 where there were not enough and x, y stand in."""

    @property
    def counts(self) -> bool:
        """Whether its samples are part of the batch."""
        return self.share > 0


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One of `size` processes. Every method that talks to the others is called by all of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those on this machine."""

    @property
    def first(self) -> bool:
        """Whether it is the one that prints and writes."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums over all ranks in float64, the same on each; whole numbers below 2^53 exact."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def any(self, flag: bool) -> bool:
        """Whether it is set on one of them: what reaches one rank, as a signal, reaches all."""
        return self.total([float(flag)])[0] > 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order; tensors in them come on the CPU."""
        if self.size == 1:
            return [value]
        packed = [b""] * self.size
        dist.all_gather_object(packed, _pack_value(value))
        return [_unpack_value(one) for one in packed]

    def share(self, value: T) -> T:
        """The first rank's value; tensors in it come on the CPU."""
        if self.size == 1:
            return value
        held = [_pack_value(value) if self.first else b""]
        dist.broadcast_object_list(held, device=torch.device("cpu"))
        return cast(T, _unpack_value(held[0]))

    def by_first(self, work: Callable[[], T]) -> T:
        """What `work` gives where the first rank does it, as to write a file; the others wait."""
        return self.share(work() if self.first else cast(T, None))

    @contextlib.contextmanager
    def one_before_others(self, needed: bool = True) -> Iterator[None]:
        """One rank of each machine goes through the block before the others, as to download."""
        if needed and self.local_rank:
            self.any(False)
        yield
        if needed and not self.local_rank:
            self.any(False)

    def owns(self, number: int) -> bool:
        """Whether the batch of that number, from 0, is this rank's to do."""
        return number % self.size == self.rank

    def deal(self, batches: Iterable[T]) -> Iterator[T]:
        """Those of `batches` that are this rank's; every rank goes through all of them."""
        return (batch for number, batch in enumerate(batches) if self.owns(number))

    def part(self, x: Any, y: Tensor, *, along: int | None = None) -> BatchPart:
        """This rank's part of a batch that all of them have; the parts lie in their order.

        Where samples are fewer than ranks, some get the first sample and a share of 0. They lie
        along the dimension `along`, or without it along the one that is as long as `y`: events
        (T, N, ...) have time first.

        Raises:
            InputError: the batch is no single tensor, and there are several ranks.
        """
        if not isinstance(x, Tensor):
            return self._whole(x, y)
        if along is None:
            along = 0 if len(x) == len(y) else 1
        mine = torch.arange(len(y)).tensor_split(self.size)[self.rank]
        start, count = (int(mine[0]), len(mine)) if len(mine) else (0, 1)
        return BatchPart(
            x=x.narrow(along, start, count),
            y=y.narrow(0, start, count),
            share=len(mine) / len(y),
        )

    def _whole(self, batch: Any, y: Tensor) -> BatchPart:
        if self.size > 1:
            raise InputError(
                f"{describe_batch(batch)} cannot be shared out",
                field="data.name",
                hint="start one process",
            )
        return BatchPart(x=batch, y=y, share=1.0)


ALONE = Ranks()


def _pack_value(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _unpack_value(packed: bytes) -> Any:
    # not on the GPU of the rank that sent it; what comes from our own processes may be any object
    return torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False)


TIMEOUT = timedelta(minutes=30)  # the first rank may write or prune for long while others wait
TIMES = itertools.count()  # that this process has joined others
FAILURES = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)


@contextlib.contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """This process among those that torchrun started for `device`, as `--device` names it.

    Each takes a GPU of its own, which `cuda` means from here on; they talk by NCCL there and by
    gloo on CPUs. Without torchrun, or with one process, nothing is touched.

    Raises:
        UsageError: there are fewer GPUs than processes, or they cannot be shared out like this.
        PeerError: another process cannot be reached, ended, or gives no answer.
    """
    here = read_process_rank()
    if here.size == 1:
        yield ALONE
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    _require_one_for_each(device, here, on_gpu=on_gpu)
    if on_gpu:
        torch.cuda.set_device(here.local_rank)
    with _convert_peer_errors():
        with _silence_stdout():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                store=_make_fresh_store(),
                rank=here.rank,
                world_size=here.size,
                timeout=TIMEOUT,
            )
        ranks = Ranks(rank=here.rank, size=here.size, local_rank=here.local_rank)
        # a user's loader that shuffles must give all of them the same batches
        torch.manual_seed(ranks.share(torch.initial_seed()))
        yield ranks
        dist.destroy_process_group()  # not after a fault: the others may be waiting in it


@contextlib.contextmanager
def _silence_stdout() -> Iterator[None]:
    """Nothing reaches stdout, where gloo of torch 2.10 says whom it met: a result goes there."""
    sys.stdout.flush()
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)


def _make_fresh_store() -> Store:
    """Where they leave their addresses; those of an earlier time must not be found again."""
    return PrefixStore(f"snnprune-{next(TIMES)}", _connect_store())


@functools.cache
def _connect_store() -> Store:
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    return store


@contextlib.contextmanager
def _convert_peer_errors() -> Iterator[None]:
    """Errors of the communication become ours."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, FAILURES) and "gloo" not in str(error).lower():
            raise
        raise PeerError(
            "another process ended or gives no answer",
            hint="what it said is the reason; where it said nothing, -v shows what was waited for",
        ) from error


def _require_one_for_each(device: str, here: ProcessRank, *, on_gpu: bool) -> None:
    """Refuse a device that several processes cannot share."""
    cards = torch.cuda.device_count()
    if device.partition(":")[0] == "mps":
        raise UsageError("one process only", field="--device", hint="start it without torchrun")
    if ":" in device:
        raise UsageError(
            f"{device} for each of {here.size} processes",
            field="--device",
            hint="--device cuda gives each a GPU of its own",
        )
    if on_gpu and here.local_rank >= cards:
        raise UsageError(
            f"more processes than the {cards} GPUs of this machine",
            field="--device",
            hint=f"--nproc-per-node {cards}, or --device cpu",
        )


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first GPU, else the CPU.

    Raises:
        UsageError: there is no such device here, or it has no 64-bit floats to sum up in.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    require_device_name(name)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"no device {name!r} here", field="--device", hint=f"choose {_format_choices()}"
        ) from error
    return device


def _format_choices() -> str:
    """What can be asked for on this machine."""
    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ", ".join(["auto", *cards, "or cpu"]) if cards else "auto or cpu: there is no GPU"
