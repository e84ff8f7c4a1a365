"""What a pass leaves behind in a network's modules, taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from snnprune.network.holding import Held, package_of
from snnprune.network.libraries import library_of
from snnprune.network.links import Network

# What every module has; none of it is a neuron's state.
OF_TORCH = frozenset({*vars(nn.Module()), "training", "_compiled_call_impl"})


@contextlib.contextmanager
def at_rest(network: Network) -> Iterator[Callable[[], None]]:
    """Gives the function that puts everything at rest, to be called before each batch.

    Neurons of known libraries are reset as these do it. A user's own neuron keeps its membrane in
    an attribute or a buffer, or in a list, dict or object there, and nobody can know which: all of
    them are put back as they were when the block began, also when it ends.
    """
    network.reset()  # before the look: a membrane of an earlier batch is no state of rest
    held = _held(network.module)
    statistics = [(buffer, buffer.clone()) for buffer in _retaken(network)]

    def reset() -> None:
        network.reset()
        held.restore()
        for buffer, before in statistics:
            buffer.data.copy_(before)  # a graph that is to be gone back does not read it

    try:
        yield reset
    finally:
        reset()


def own_attributes(module: nn.Module) -> Held:
    """What modules of the user's own have in attributes now, their buffers left out.

    Those may be statistics that training takes.
    """
    own = _own(module)
    with torch._C.DisableTorchFunction():  # unseen by who watches the network
        return Held([(vars(part), OF_TORCH) for part in own], own=set(map(package_of, own)))


def _retaken(network: Network) -> Iterator[Tensor]:
    """The statistics that are taken anew on each pass, though nobody reads them."""
    for name, part in network.module.named_modules():
        if isinstance(part, _NormBase) and name in network.restless:
            yield from part.buffers(recurse=False)


def _held(module: nn.Module) -> Held:
    own = _own(module)
    # a normalisation's buffers are statistics and no state
    buffered = [part for part in module.modules() if not isinstance(part, _NormBase)]
    attributes = [
        *((vars(part), OF_TORCH) for part in own),
        *((part._buffers, frozenset[str]()) for part in buffered if part._buffers),
    ]
    return Held(attributes, own=set(map(package_of, own)))


def _own(module: nn.Module) -> list[nn.Module]:
    parts = module.modules()
    return [part for part in parts if library_of(part) is None and not _is_torchs(part)]


def _is_torchs(part: nn.Module) -> bool:
    return type(part).__module__.startswith("torch.")
