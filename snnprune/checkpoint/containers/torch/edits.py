"""What becomes of a pickle whose state_dict has other keys, or tensors with their own place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from snnprune.checkpoint.containers.torch.editing import (
    Edit,
    Editor,
    called,
    flag,
    named,
    number,
    several,
    stored,
    text,
)
from snnprune.checkpoint.containers.torch.formats.opened import Opened
from snnprune.checkpoint.containers.torch.planning import Plan
from snnprune.checkpoint.containers.torch.state_dict import Found
from snnprune.checkpoint.containers.torch.structure import (
    Node,
    OddPickleError,
    Pair,
    Structure,
    structure_of,
)
from snnprune.checkpoint.containers.torch.tensors import Described, Storage


@dataclass(frozen=True, kw_only=True)
class Apart:
    """A tensor that gets a storage of its own."""

    storage: Storage
    data: Tensor
    """Its bytes as they lie in the file."""
    values: Tensor


def edited(
    pickled: bytes, held: Opened, found: Found, plan: Plan, added: Mapping[str, Apart]
) -> bytes:
    """The pickle as `plan` wants it.

    Raises:
        OddPickleError: Python's pickler would not have written it so.
    """
    structure = structure_of(pickled)
    editor = Editor(data=pickled, structure=structure)
    with_view = held.format == "old"
    if found.is_module:
        for key, apart in added.items():
            tensor = found.select_tensors()[key]
            node = _at(structure, tensor.place - held.first)
            data = _tensor(tensor, apart, with_view=with_view)
            # up to the call: what keeps it for others stays
            editor.edits.append(Edit(begin=node.begin, end=node.made + 1, data=data))
        return editor.edited()
    holder = _at(structure, found.holder.place - held.first)
    pairs = _pairs(structure, holder)
    for key in plan.left_out:
        editor.edits.append(Edit(begin=pairs[key].key.begin, end=pairs[key].end, data=b""))
    for key, name in plan.renamed.items():
        node = pairs[key].key
        editor.edits.append(Edit(begin=node.begin, end=node.end, data=text(name)))
    for key, apart in added.items():
        node, tensor = pairs[key].value, found.select_tensors()[key]
        data = _parameter(tensor, _tensor(tensor, apart, with_view=with_view))
        editor.edits.append(Edit(begin=node.begin, end=node.end, data=data))
    if plan.copied is not None:
        editor.slot = _slot(structure, found.trail[: plan.copied])
        editor.copied = structure.resolved(editor.slot)
    return editor.edited()


def _at(structure: Structure, place: int) -> Node:
    node = structure.by_place.get(place)
    if node is None:
        raise OddPickleError
    return node


def _pairs(structure: Structure, holder: Node) -> dict[object, Pair]:
    """What is put into a dict under keys that are text."""
    pairs: dict[object, Pair] = {}
    for pair in holder.pairs:
        key = structure.resolved(pair.key).text
        if key is not None and key in pairs:
            raise OddPickleError
        pairs[key] = pair
    return pairs


def _slot(structure: Structure, trail: tuple[object, ...]) -> Node:
    """Where these steps lead, as it stands in the dict before."""
    if not trail:  # the whole, which is within itself
        raise OddPickleError
    node = structure.root
    for key in trail:
        pair = _pairs(structure, structure.resolved(node)).get(key)
        if pair is None:
            raise OddPickleError
        node = pair.value
    return node


def _tensor(tensor: Described, apart: Apart, *, with_view: bool) -> bytes:
    """A call of `_rebuild_tensor_v2`, or of `_v3` where the storage knows no type."""
    storage, values = apart.storage, apart.values
    kind = named("torch.storage" if tensor.untyped else "torch", storage.kind)
    place = stored(
        text("storage"), kind, text(storage.key), text(storage.location), number(storage.count),
        *([flag(None)] if with_view else []),
    )  # fmt: skip
    shape, stride = (several(*map(number, sizes)) for sizes in (values.shape, values.stride()))
    hooks = called(named("collections", "OrderedDict"))
    grad = flag(tensor.grad and not tensor.is_parameter)
    dtype = [named("torch", str(tensor.dtype).removeprefix("torch."))] if tensor.untyped else []
    function = named("torch._utils", f"_rebuild_tensor_v{3 if tensor.untyped else 2}")
    return called(function, place, number(0), shape, stride, grad, hooks, *dtype)


def _parameter(tensor: Described, data: bytes) -> bytes:
    if not tensor.is_parameter:
        return data
    hooks = called(named("collections", "OrderedDict"))
    return called(named("torch._utils", "_rebuild_parameter"), data, flag(tensor.grad), hooks)
