"""What a loader gives at once: x, (x, y), or tensors in tuples, lists and dicts of any kind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.runtime import Progress

LABELS = ("y", "label", "labels", "target", "targets")
"""Keys under which a dict may have its labels."""


class Pair(NamedTuple):
    """What is fed to a network, and its labels."""

    x: Any
    """A tensor, or a whole batch of another kind."""
    y: Tensor | None


class SizedPair(Pair):
    """A batch of which is known how many samples are in it."""

    samples: int

    @classmethod
    def of(cls, pair: Pair, samples: int) -> Self:
        """The same pair with that number."""
        made = cls(*pair)
        made.samples = samples
        return made


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What a loader gives, as often as somebody goes through it."""

    begin: Callable[[], Iterable[Any]]
    """Gives the batches from the first one on."""
    count: int | None = None
    """How many there are; None where nobody knows before."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.begin())

    def track(self, progress: Progress, label: str) -> Iterator[Any]:
        """Go through them once, and tell `progress` how far that is."""
        return progress.track(self, label=label, total=self.count)


def read_pair(batch: Any) -> Pair | None:
    """x and y of a batch x, (x,) or (x, y); of another kind the whole of it, and the labels in it.

    These are whole numbers (N,), the second part of a tuple or list, or under one of `LABELS`.
    NumPy arrays and lists of numbers are taken for tensors. None where there is nothing in `batch`.
    """
    batch = _convert_to_tensors(batch)
    match batch:
        case Tensor():
            return Pair(batch, None)
        case [Tensor() as x]:
            return Pair(x, None)
        case [Tensor() as x, Tensor() | None as y]:
            return Pair(x, y)
    return Pair(batch, _find_labels(batch)) if _holds_data(batch) else None


def _convert_to_tensors(batch: Any) -> Any:
    """x, (x,) or (x, y) with tensors in place of NumPy arrays and lists of numbers.

    A batch of another kind is for a function of the user's, which gets it as it was given.
    """
    if _is_array(batch) or _is_numbers(batch):
        return _make_tensor(batch)
    pair = isinstance(batch, tuple | list) and 0 < len(batch) <= 2
    if pair and all(one is None or _can_be_tensor(one) for one in batch):
        return type(batch)(
            one if one is None or isinstance(one, Tensor) else _make_tensor(one) for one in batch
        )
    return batch


def _can_be_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or _is_array(value) or _is_numbers(value)


def _is_array(value: Any) -> bool:
    """Whether it is a NumPy array or number of a type that tensors have."""
    named = type(value).__module__ == "numpy" and hasattr(value, "dtype")
    return named and value.dtype.kind in "biufc"


def _is_numbers(value: Any) -> bool:
    """Whether it is a list of numbers, or of such lists, all alike at its beginning."""
    while isinstance(value, list) and value:
        value = value[0]
        if isinstance(value, int | float):
            return True
    return False


def _make_tensor(value: Any) -> Tensor:
    """Of NumPy's own numbers or Python's; float64, which both take by themselves, as float32."""
    if _is_array(value):
        native = value.astype(value.dtype.newbyteorder("="), copy=True)
        found = torch.as_tensor(native)
        return found.float() if found.dtype == torch.float64 else found
    try:
        return torch.tensor(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a list in a batch is no tensor: {error}", field="--data", hint="give tensors"
        ) from error


def copy_batch(batch: Any, device: torch.device | None = None) -> Any:
    """A copy, on `device` where one is given: a network may work in place on what it is fed.

    What has a method `to`, as a PackedSequence, is moved by it; other objects are not copied.
    """

    def twin(one: Any) -> Any:
        if isinstance(one, Tensor):
            return one.to(device or one.device, copy=True)
        same = copy.deepcopy(one)
        return same if device is None else same.to(device)

    return map_tensors(twin, batch)


def map_tensors(change: Callable[[Any], Any], batch: Any) -> Any:
    """`batch` with each tensor in it changed, and whatever else has a method `to`."""
    if _can_move(batch):
        return change(batch)
    match batch:
        case MutableMapping():
            changed = copy.copy(batch)  # of its own class
            changed.update({key: map_tensors(change, value) for key, value in batch.items()})
            return changed
        case tuple() if hasattr(batch, "_fields"):
            return type(batch)(*(map_tensors(change, value) for value in batch))
        case tuple() | list():
            return type(batch)(map_tensors(change, value) for value in batch)
    return batch


def iter_tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors in a batch, in its order."""
    if isinstance(batch, Tensor):
        yield batch
    for part in _list_parts(batch):
        yield from iter_tensors(part)


def count_samples(x: Any, y: Tensor | None) -> int:
    """The number of samples, by the labels where there are some: events have time first.

    Raises:
        InputError: there are none, and the tensors do not agree on it, or a tensor x cannot be of
            as many samples, not even if it has time and samples in one dimension.
    """
    if y is not None and isinstance(x, Tensor) and not _may_fit(x, len(y)):
        raise _unlabelled_error(x, y, "--data")
    found = len(y) if y is not None else guess_length(x)
    if found is None:
        raise InputError(
            f"how many samples are in {describe_batch(x)} cannot be told",
            field="--data",
            hint=f"put labels beside them: second, or under one of {', '.join(LABELS)}",
        )
    return found


def require_labels(x: Any, y: Tensor, *, field: str = "--data") -> None:
    """Refuse labels that are not as many as the samples of x, where it is a tensor.

    Raises:
        InputError: they are not.
    """
    if isinstance(x, Tensor) and len(y) not in x.shape[:2]:
        raise _unlabelled_error(x, y, field)


def _may_fit(x: Tensor, labels: int) -> bool:
    return any(long % labels == 0 if labels else long == 0 for long in x.shape[:2])


def _unlabelled_error(x: Tensor, y: Tensor, field: str) -> InputError:
    return InputError(
        f"{describe_batch(x)} with {len(y)} label{'s' * (len(y) != 1)}",
        field=field,
        hint="give a label for each sample",
    )


def guess_length(x: Any) -> int | None:
    """The length of a tensor; of a batch that of its tensors (N,), else the first of all shapes."""
    held = [tensor for tensor in iter_tensors(x) if tensor.dim()]
    flat = {len(tensor) for tensor in held if tensor.dim() == 1}
    found = flat if len(flat) == 1 else {len(tensor) for tensor in held}
    return found.pop() if len(found) == 1 else None


def describe_batch(batch: Any) -> str:
    """A batch in a few words."""
    if isinstance(batch, Tensor):
        return f"a batch of shape {tuple(batch.shape)}"
    return f"a {type(batch).__name__} of {_format_outline(batch)}"


def has_several_labels(x: Any) -> bool:
    """Whether more than one part of a tuple or list looks like its labels."""
    parts = x[1:] if isinstance(x, tuple | list) else ()
    return sum(map(_are_labels, parts)) > 1


def _find_labels(batch: Any) -> Tensor | None:
    if isinstance(batch, Mapping):
        found = [batch[key] for key in LABELS if key in batch]
    else:
        found = list(batch[1:2]) if isinstance(batch, tuple | list) else []
    found = [_make_tensor(one) if _is_array(one) else one for one in found]
    return next(filter(_are_labels, found), None)


def _are_labels(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.dim() != 1:
        return False
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def _can_move(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "to")


def _holds_data(batch: Any) -> bool:
    return _can_move(batch) or any(map(_holds_data, _list_parts(batch)))


def _list_parts(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.values())
    return list(batch) if isinstance(batch, tuple | list) else []


def _format_outline(batch: Any) -> str:
    """Shapes of tensors, and the names of the types of other parts."""
    if isinstance(batch, Tensor):
        return str(tuple(batch.shape))
    if isinstance(batch, Mapping):
        return ", ".join(
            f"{key} {_format_outline(value)}" for key, value in list(batch.items())[:5]
        )
    if isinstance(batch, tuple | list):
        return ", ".join(map(_format_outline, batch[:5]))
    return type(batch).__name__
