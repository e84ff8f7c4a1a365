"""What a pass leaves behind in a network's modules, taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from snnprune.network.libraries import library_of
from snnprune.network.links import Network

# What every module has; none of it is a neuron's state.
OF_TORCH = frozenset({*vars(nn.Module()), "training", "_compiled_call_impl"})


@contextlib.contextmanager
def at_rest(network: Network) -> Iterator[Callable[[], None]]:
    """Gives the function that puts everything at rest, to be called before each batch.

    Neurons of known libraries are reset as these do it. A user's own neuron keeps its membrane in
    an attribute or a buffer, and nobody can know which: all attributes and buffers are put back as
    they were when the block began, also when it ends.
    """
    network.reset()  # before the look: a membrane of an earlier batch is no state of rest
    held = _held(network.module)

    def reset() -> None:
        network.reset()
        for one in held:
            one.restore()

    try:
        yield reset
    finally:
        reset()


def _held(module: nn.Module) -> list[_Held]:
    parts = list(module.modules())
    own = [part for part in parts if library_of(part) is None and not _is_torchs(part)]
    # a normalisation's buffers are statistics and no state
    buffered = [part for part in parts if not isinstance(part, _NormBase)]
    return [
        *(_Held(vars(part), skip=OF_TORCH) for part in own),
        *(_Held(part._buffers) for part in buffered if part._buffers),
    ]


def _is_torchs(part: nn.Module) -> bool:
    return type(part).__module__.startswith("torch.")


class _Held:
    """Some entries of a dictionary, to be put back as they are now."""

    def __init__(self, entries: dict[str, Any], *, skip: frozenset[str] = frozenset()) -> None:
        self.entries, self.skip = entries, skip
        self.values = {name: _copied(value) for name, value in self._now()}
        self.tensors = [
            (value, value.detach().clone(), value._version)
            for _, value in self._now()
            if isinstance(value, Tensor)
        ]

    def restore(self) -> None:
        for tensor, before, version in self.tensors:
            if tensor._version != version:  # changed in place
                tensor.detach().copy_(before)
        for name, _ in self._now():
            if name not in self.values:
                del self.entries[name]
        self.entries.update((name, _copied(value)) for name, value in self.values.items())

    def _now(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self.entries.items() if name not in self.skip]


def _copied(value: Any) -> Any:
    """A copy of what a pass may append to."""
    return value.copy() if type(value) in (list, dict, set) else value
