"""What a pass leaves behind in a network's modules, taken back."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from snnprune.graph.libraries import library_of

DEPTH = 4
"""How far down from a module a state is looked for."""

ITEMS = 10_000
"""What holds more of them is put back, but not looked into: it is data and no state."""

ELEMENTS = 2**26
"""A larger tensor is data and no state either."""

Names = Collection[str]


class StateSnapshot:
    """Some dictionaries of attributes as they are now, and what lies in them.

    Lists, dicts, sets, deques, dense tensors and objects of somebody's own classes are put back in
    place, so that those who share one still do. Parameters and modules are not touched.
    """

    def __init__(self, attributes: Iterable[tuple[dict[str, Any], Names]], own: Names) -> None:
        """`attributes` come with names to pass over, `own` are packages whose classes count too."""
        self.own = own
        self.back: list[Callable[[], object]] = []
        self.seen: dict[int, object] = {}  # keeps them alive, since ids are used again
        level: list[object] = []
        for entries, skip in attributes:
            values = {name: value for name, value in entries.items() if name not in skip}
            self.back.append(_make_entries_restorer(entries, values, skip))
            level += values.values()
        for _ in range(DEPTH):
            level = [inner for value in level for inner in self._keep(value)]

    def restore(self) -> None:
        """Put everything back."""
        with torch._C.DisableTorchFunction():  # unseen by who watches the network
            for back in self.back:
                back()

    def _keep(self, value: object) -> list[object]:
        """Remember `value` unless that is done; what lies in it."""
        if id(value) in self.seen:
            return []
        self.seen[id(value)] = value
        match value:
            case Tensor():
                self.back += [_make_tensor_restorer(value)] if _is_plain(value) else []
            case tuple():
                return _limit_values(value)
            case list() | deque():
                self.back.append(_make_container_restorer(value, list(value), value.extend))
                return _limit_values(value)
            case dict():
                self.back.append(_make_container_restorer(value, dict(value), value.update))
                return _limit_values(value.values())
            case set():
                self.back.append(_make_container_restorer(value, set(value), value.update))
            case _ if self._is_own(value):
                return self._keep(vars(value))
        return []

    def _is_own(self, value: object) -> bool:
        """Whether its class is of the network's packages, or of a file that nobody installed."""
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict) or isinstance(value, nn.Module):
            return False
        package = package_of(value)
        return isinstance(value, SimpleNamespace) or (
            package != "torch" and (package in self.own or not _is_installed(package))
        )


def package_of(value: object) -> str:
    """The package, or the file, that its class is defined in."""
    return type(value).__module__.partition(".")[0]


def _is_installed(package: str) -> bool:
    """Whether it came with Python or lies beside what did not."""
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in sys.stdlib_module_names or "-packages" in file


def _limit_values(values: Collection[object]) -> list[object]:
    return list(values) if len(values) <= ITEMS else []


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is a dense tensor with values, not too large, and no parameter."""
    if isinstance(tensor, nn.Parameter) or is_lazy(tensor):
        return False
    dense = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
    return dense and tensor.numel() <= ELEMENTS


def _make_entries_restorer(
    entries: dict[str, Any], values: dict[str, Any], skip: Names
) -> Callable[[], None]:
    def back() -> None:
        for name in [name for name in entries if name not in skip and name not in values]:
            del entries[name]
        entries.update(values)

    return back


def _make_container_restorer(
    value: Any, before: Iterable[Any], fill: Callable[[Any], object]
) -> Callable[[], None]:
    def back() -> None:
        value.clear()
        fill(before)

    return back


def _make_tensor_restorer(tensor: Tensor) -> Callable[[], None]:
    before = tensor.detach().clone()

    def back() -> None:
        now = tensor.detach()
        if now.shape != before.shape:  # resized in place
            tensor.data = before.clone()
        elif not torch.equal(now, before):
            with torch.inference_mode(tensor.is_inference()):
                now.copy_(before)

    return back


# What every module has; none of it is a neuron's state.
OF_TORCH = frozenset({*vars(nn.Module()), "training", "_compiled_call_impl"})


def keep_state(module: nn.Module, restless: Collection[str]) -> Callable[[], None]:
    """The function that puts what its modules hold now back.

    That is what a user's own have in attributes, all buffers but BatchNorm's, and the statistics of
    `restless` modules, which each pass takes anew though nobody reads them.
    """
    held = _take_snapshot(module)
    statistics = [(buffer, buffer.clone()) for buffer in _iter_retaken(module, restless)]

    def restore() -> None:
        held.restore()
        for buffer, before in statistics:
            buffer.data.copy_(before)  # a graph that is to be gone back does not read it

    return restore


def snapshot_attributes(module: nn.Module) -> StateSnapshot:
    """What modules of the user's own have in attributes now, their buffers left out.

    Those may be statistics that training takes.
    """
    own = _list_own_modules(module)
    with torch._C.DisableTorchFunction():  # unseen by who watches the network
        return StateSnapshot(
            [(vars(part), OF_TORCH) for part in own], own=set(map(package_of, own))
        )


def _iter_retaken(module: nn.Module, restless: Collection[str]) -> Iterator[Tensor]:
    """The statistics of `restless` normalisations."""
    for name, part in module.named_modules():
        if isinstance(part, _NormBase) and name in restless:
            yield from part.buffers(recurse=False)


def _take_snapshot(module: nn.Module) -> StateSnapshot:
    own = _list_own_modules(module)
    # a normalisation's buffers are statistics and no state
    buffered = [part for part in module.modules() if not isinstance(part, _NormBase)]
    attributes = [
        *((vars(part), OF_TORCH) for part in own),
        *((part._buffers, frozenset[str]()) for part in buffered if part._buffers),
    ]
    return StateSnapshot(attributes, own=set(map(package_of, own)))


def _list_own_modules(module: nn.Module) -> list[nn.Module]:
    parts = module.modules()
    return [part for part in parts if library_of(part) is None and not _is_of_torch(part)]


def _is_of_torch(part: nn.Module) -> bool:
    return type(part).__module__.startswith("torch.")
