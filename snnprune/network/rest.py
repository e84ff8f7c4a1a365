"""What a pass leaves behind in a network's modules, taken back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from snnprune.network.holding import Held, package_of
from snnprune.network.libraries import library_of

# What every module has; none of it is a neuron's state.
OF_TORCH = frozenset({*vars(nn.Module()), "training", "_compiled_call_impl"})


def keep_state(module: nn.Module, restless: Collection[str]) -> Callable[[], None]:
    """The function that puts what its modules hold now back.

    That is what a user's own have in attributes, all buffers but BatchNorm's, and the statistics of
    `restless` modules, which each pass takes anew though nobody reads them.
    """
    held = _held(module)
    statistics = [(buffer, buffer.clone()) for buffer in _retaken(module, restless)]

    def restore() -> None:
        held.restore()
        for buffer, before in statistics:
            buffer.data.copy_(before)  # a graph that is to be gone back does not read it

    return restore


def own_attributes(module: nn.Module) -> Held:
    """What modules of the user's own have in attributes now, their buffers left out.

    Those may be statistics that training takes.
    """
    own = _own(module)
    with torch._C.DisableTorchFunction():  # unseen by who watches the network
        return Held([(vars(part), OF_TORCH) for part in own], own=set(map(package_of, own)))


def _retaken(module: nn.Module, restless: Collection[str]) -> Iterator[Tensor]:
    """The statistics of `restless` normalisations."""
    for name, part in module.named_modules():
        if isinstance(part, _NormBase) and name in restless:
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
