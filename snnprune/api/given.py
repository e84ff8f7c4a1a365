"""A network and batches as somebody's own code has them: judged, described, and never changed.

Work is done on copies, so that whatever goes wrong leaves the network as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset, IterableDataset

from snnprune.checkpoint.naming import STATES
from snnprune.data import SPLITS
from snnprune.errors import InputError, UsageError, did_you_mean, format_names
from snnprune.graph.forward import device_of
from snnprune.graph.libraries import library_of, reset_states
from snnprune.graph.state import unwrap
from snnprune.jobs.targets.binding import find_states, load_tensors
from snnprune.jobs.targets.options import GivenNetwork
from snnprune.pruning.structure import Shapes
from snnprune.pruning.structure.compact import resize_module

EXPECTED = "give batches x or (x, y): a DataLoader, a list, a function that gives them, or a name"
DEPTH = 4
"""How far down from a module a tensor of an earlier pass is looked for."""


@dataclass(frozen=True, kw_only=True)
class GivenData:
    """The batches of a call, under the name that reports have."""

    name: str
    batches: Callable[..., Any] | None
    """Gives them; None where the name is that of a data set."""


def take_model(model: Any, data: GivenData, **functions: Callable[..., Any] | None) -> GivenNetwork:
    """The network as jobs take it, with its batches; the model itself is not touched.

    Raises:
        UsageError: it is none, or not initialised.
        InputError: it cannot be copied.
    """
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        hint = "call it: Net()" if isinstance(model, type) else "load its state_dict into a module"
        raise UsageError(f"{what} is no torch.nn.Module", field="model", hint=hint)
    network = unwrap(model)
    for key, one in network.named_parameters():
        if is_lazy(one):
            raise UsageError(
                f"{key} has no values yet", field="model", hint="run the network on a batch first"
            )
    return GivenNetwork(
        name=describe_object(type(network)),
        build=lambda: copy_network(network),
        device=device_of(network),
        batches=data.batches,
        notes=_note_left_states(network),
        **functions,
    )


def _note_left_states(network: nn.Module) -> tuple[str, ...]:
    """A note where somebody's own neurons seem to keep what an earlier batch left in them.

    Libraries say how their neurons are reset; what else has to be, nobody can know.
    """
    left = [
        f"{name}.{attribute}" if name else attribute
        for name, part in network.named_modules()
        if library_of(part) is None and not type(part).__module__.startswith("torch.")
        for attribute, value in vars(part).items()
        if isinstance(value, Tensor) and (value.grad_fn is not None or attribute in STATES)
    ]
    if not left:
        return ()
    return (
        f"left by an earlier batch, and taken for the state of rest: {format_names(left)}; "
        "reset the network before, if that is a membrane",
    )


def take_batches(batches: Any) -> GivenData:
    """The batches, or the name of a data set.

    Raises:
        UsageError: they are of a kind that cannot be gone through twice, or no batches at all.
    """
    if isinstance(batches, str):
        return GivenData(name=batches, batches=None)
    if isinstance(batches, Mapping):
        _require_splits(batches)
        for name, part in batches.items():
            if part is not None:
                _require_batches(part, f"batches[{name!r}]")
        return GivenData(
            name="dict", batches=lambda: {name: _begin(part) for name, part in batches.items()}
        )
    _require_batches(batches, "batches")
    made = batches if _makes_batches(batches) else lambda: batches
    return GivenData(name=describe_object(batches), batches=made)


def _begin(part: Any) -> Any:
    return part() if _makes_batches(part) else part


def _makes_batches(given: Any) -> bool:
    """Whether it is a function, and no loader that can be called too."""
    return callable(given) and not hasattr(given, "__iter__")


def _require_splits(batches: Mapping[Any, Any]) -> None:
    for name in batches:
        if name not in SPLITS:
            raise UsageError(
                f"{name!r} is no split", field="batches", hint=did_you_mean(str(name), SPLITS)
            )
    if batches.get("train") is None:
        raise UsageError("has no train", field="batches", hint="it is what is learnt from")


def _require_batches(batches: Any, field: str) -> None:
    if _makes_batches(batches):
        return
    kind = type(batches).__name__
    if isinstance(batches, Iterator):
        raise UsageError(
            f"a {kind} can be gone through only once",
            field=field,
            hint="give the function that makes it, or a list",
        )
    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        raise UsageError(
            f"{kind} gives single samples", field=field, hint="give a DataLoader of it"
        )
    pair = isinstance(batches, tuple) and any(isinstance(one, Tensor) for one in batches)
    if isinstance(batches, Tensor) or pair:
        raise UsageError(
            "is one batch", field=field, hint="give several: DataLoader(TensorDataset(x, y), 64)"
        )
    if not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise UsageError(f"{kind} is no batches", field=field, hint=EXPECTED)


def describe_object(given: Any) -> str:
    """What reports call it: a class or function as `module:name`, anything else by its class."""
    name = getattr(given, "__qualname__", None)
    return f"{given.__module__}:{name}" if isinstance(name, str) else type(given).__name__


def copy_network(network: nn.Module) -> nn.Module:
    """A copy at rest, in the same modes; what autograd remembers of an earlier pass stays behind.

    Raises:
        InputError: something in it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for part in network.modules():
        for tensor in _iter_remembered(vars(part), DEPTH):
            memo[id(tensor)] = tensor.detach().clone()  # only leaves can be copied
    try:
        copied = copy.deepcopy(network, memo)
    except Exception as error:
        raise InputError(
            f"{type(network).__name__} cannot be copied: {type(error).__name__}: {error}",
            field="model",
            hint="give a new module of your class, or prune a file of it: snnprune prune",
        ) from error
    reset_states(copied)
    for key in find_states(copied):
        owner, _, name = key.rpartition(".")
        buffers = copied.get_submodule(owner)._buffers
        if (state := buffers[name]) is not None and state.dim() > 1:
            buffers[name] = state.new_zeros(0)  # as before the first batch, whose shape it has
    return copied


def _iter_remembered(value: Any, depth: int) -> Iterator[Tensor]:
    """Tensors in attributes of modules that a graph of autograd hangs on, as membranes."""
    if isinstance(value, Tensor):
        if value.grad_fn is not None:
            yield value
    elif depth:
        parts = value.values() if isinstance(value, Mapping) else value
        for part in parts if isinstance(value, dict | list | tuple) else ():
            yield from _iter_remembered(part, depth - 1)


def install_tensors(
    network: nn.Module, tensors: Mapping[str, Tensor], shapes: Shapes | None
) -> None:
    """Let `network` hold `tensors`, of smaller `shapes` where there are some; it is at rest then.

    Parameters stay the objects that they are.

    Raises:
        InputError: a shape does not fit; the network is as it was then.
    """
    if shapes:
        resize_module(network, shapes)
    reset_states(network)
    states = find_states(network)  # of the shape of a batch that is gone
    load_tensors(network, {key: one for key, one in tensors.items() if key not in states})
