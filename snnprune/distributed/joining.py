"""How the processes that torchrun started find each other."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.errors import PeerError, UsageError
from snnprune.launch import Place, place

TIMEOUT = timedelta(minutes=30)  # the first rank may write or prune for long while others wait
TIMES = itertools.count()  # that this process has joined others
FAILURES = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process among those that torchrun started for `device`, as `--device` names it.

    Each takes a GPU of its own, which `cuda` means from here on; they talk by NCCL there and by
    gloo on CPUs. Without torchrun, or with one process, nothing is touched.

    Raises:
        UsageError: there are fewer GPUs than processes, or they cannot be shared out like this.
        PeerError: another process cannot be reached, ended, or gives no answer.
    """
    here = place()
    if here.size == 1:
        yield ALONE
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    _require_one_for_each(device, here, on_gpu=on_gpu)
    if on_gpu:
        torch.cuda.set_device(here.local_rank)
    with _telling_of_peers():
        with _silent():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                store=_fresh_store(),
                rank=here.rank,
                world_size=here.size,
                timeout=TIMEOUT,
            )
        ranks = Ranks(rank=here.rank, size=here.size, local_rank=here.local_rank)
        # a user's loader that shuffles must give all of them the same batches
        torch.manual_seed(ranks.shared(torch.initial_seed()))
        yield ranks
        dist.destroy_process_group()  # not after a fault: the others may be waiting in it


@contextlib.contextmanager
def _silent() -> Iterator[None]:
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


def _fresh_store() -> Store:
    """Where they leave their addresses; those of an earlier time must not be found again."""
    return PrefixStore(f"snnprune-{next(TIMES)}", _store())


@functools.cache
def _store() -> Store:
    store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
    return store


@contextlib.contextmanager
def _telling_of_peers() -> Iterator[None]:
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


def _require_one_for_each(device: str, here: Place, *, on_gpu: bool) -> None:
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
