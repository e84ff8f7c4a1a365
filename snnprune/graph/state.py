"""A network's mode, tensors and state: changed for a while, and put back as they were.

Eval mode is without wrappers and compiled parts. What a pass leaves in modules is taken back.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from snnprune.graph.libraries import library_of, use_plain_operations


def unwrap(module: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


@contextlib.contextmanager
def run_eagerly() -> Iterator[None]:
    """Run compiled functions as they were written: nothing can be seen in compiled ones."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        yield
        return
    if hasattr(torch.compiler, "set_stance"):
        with torch.compiler.set_stance("force_eager"):
            yield
        return
    torch._dynamo.reset()  # before torch 2.6 what is compiled already would run all the same
    with torch._dynamo.config.patch(disable=True):
        yield


@contextlib.contextmanager
def use_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for the block; afterwards each part is in its own mode again.

    A BatchNorm that somebody froze inside a training network stays frozen. Compiled parts and
    kernels of neuron libraries do not run: nothing can be seen in them, or they are not here.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        with run_eagerly(), use_plain_operations(module):
            yield
    finally:
        for child, training in modes:
            child.training = training


@contextlib.contextmanager
def replace_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """In the block `module` has `tensors`, by state-dict key, in place of its own.

    Parameters and buffers stay the objects that they are, where they are; nothing is copied that
    lies there already.
    """
    held = module.state_dict(keep_vars=True)
    own = {key: tensor for key, tensor in held.items() if key in tensors}
    before = {key: tensor.data for key, tensor in own.items()}
    try:
        for key, tensor in own.items():
            tensor.data = tensors[key].to(tensor.device)
        yield
    finally:
        for key, tensor in own.items():
            tensor.data = before[key]


def copy_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters and buffers of `module`, by state-dict key."""
    return {
        key: tensor.detach().clone()
        for key, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }


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
