"""One network with several tensors on the same batches, one run after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from snnprune.data.batches import copy_batch
from snnprune.errors import InputError
from snnprune.graph.forward import Batch
from snnprune.graph.making import replace_tensors
from snnprune.graph.mode import use_eval_mode
from snnprune.graph.network import Network

T = TypeVar("T")
Tensors = Mapping[str, Tensor]
"""By state-dict key; what is not in it stays as the module has it."""
Watched = AbstractContextManager[Callable[[], None]]
"""See `graph.hooks.observe`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedBatch:
    """A batch on which a network is run more than once."""

    network: Network
    x: Any
    y: Tensor | None

    def count_samples(self) -> int:
        """How many there are; see `Network.count_samples`."""
        return self.network.count_samples(self.x, self.y)

    def run(
        self,
        tensors: Tensors,
        watched: Watched,
        *,
        disturb: Callable[[Any], Any] = lambda x: x,
        read: Callable[[Any], T],
    ) -> T:
        """What is `read` of the output of the network with `tensors` in it, from rest.

        It is run on a copy of the batch, since a network may work in place on what it is given, and
        on what `disturb` makes of that.
        """
        with watched as start:
            start()
            with replace_tensors(self.network.module, tensors):
                return read(self.network.run(disturb(copy_batch(self.x))))


def run_side_by_side(
    network: Network,
    batches: Iterable[Batch],
    compare: Callable[[SharedBatch], None],
) -> None:
    """Let `compare` run the network on each batch as often as it likes, in eval mode.

    Raises:
        InputError: there is no sample.
    """
    samples = 0
    with use_eval_mode(network.module):
        for x, y in network.feed(batches):
            batch = SharedBatch(network=network, x=x, y=y)
            compare(batch)
            samples += batch.count_samples()
    if not samples:
        raise InputError("no samples to compare on", field="--data")
