"""What becomes of a pickle whose state_dict has other keys, or tensors with their own place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.safetensors import bytes_of
from snnprune.checkpoint.torch.machine import Made, Table
from snnprune.checkpoint.torch.parts import Opened, bytes_in, turned
from snnprune.checkpoint.torch.pickle_edit import (
    Edit,
    Editor,
    Node,
    OddPickleError,
    Pair,
    Structure,
    called,
    flag,
    named,
    number,
    several,
    stored,
    structure_of,
    text,
)
from snnprune.checkpoint.torch.state_dict import Found, entries_in
from snnprune.checkpoint.torch.stored_tensors import Described, Storage
from snnprune.checkpoint.torch.torch_file import plain_tensors, view_of
from snnprune.checkpoint.weights import ORIGINAL


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor of the state_dict, and what it becomes."""

    key: str
    name: str
    """Its key from now on."""
    tensor: Described
    new: Tensor | None
    """None where nothing changes."""

    @property
    def fits(self) -> bool:
        """Whether the new values have room where the old ones are."""
        new = self.new
        return new is not None and (new.shape, new.dtype) == (self.tensor.shape, self.tensor.dtype)


@dataclass(kw_only=True)
class Plan:
    """What is to be written."""

    patches: dict[Storage, Tensor] = field(default_factory=dict)
    """New bytes of storages, as they lie in the file."""
    apart: dict[str, Tensor] = field(default_factory=dict)
    """By key, values that get a storage of their own."""
    renamed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    shared: int = 0
    """How many of `apart` looked at values that others still have."""
    copied: int | None = None
    """After how many steps to the dict there is one that lies somewhere else too, where it stays
    as it is."""
    unfit: list[str] = field(default_factory=list)
    """Keys of a module that cannot be another shape, or left out, and stay as they are."""


def planned(
    file: BinaryIO,
    held: Opened,
    found: Found,
    source: Checkpoint,
    tensors: Mapping[str, Tensor],
) -> Plan:
    """How the state_dict gets `tensors`, by its keys.

    Raises:
        InputError: as reading it.
    """
    plan = Plan()
    entries = _entries(found, source, tensors, plan)
    holders = _on_the_way(held.root, found)
    outside = set() if found.is_module else _beside(holders, found)
    shared = (steps for steps, holder in enumerate(holders) if id(holder) in outside)
    plan.copied = next(shared, None)
    mine = {id(entry.tensor) for entry in entries} - outside
    on: dict[Storage, list[Entry]] = {}
    for entry in entries:
        if entry.tensor.storage is not None:
            on.setdefault(entry.tensor.storage, []).append(entry)
    others: dict[Storage, list[Described]] = {}
    for tensor in held.tensors.all:
        if tensor.storage in on and id(tensor) not in mine:
            others.setdefault(tensor.storage, []).append(tensor)
    for storage, group in on.items():
        _plan_storage(file, held, storage, group, others.get(storage, []), plan, source.path)
    return plan


def _entries(
    found: Found, source: Checkpoint, tensors: Mapping[str, Tensor], plan: Plan
) -> list[Entry]:
    """The tensors that stay in the state_dict; what does not is noted in the plan."""
    entries: list[Entry] = []
    placed: set[str] = set()
    plain = plain_tensors(found, source.path)
    for key in (key for key in found.entries if isinstance(key, str)):
        name = source.folded.get(key, key)
        if found.is_module and key in plain:
            entries.append(_in_module(key, name, plain[key], tensors, plan))
        elif found.is_module:  # of another kind, which stays
            continue
        elif name in placed or key in source.dropped:
            plan.left_out.append(key)
        else:
            placed.add(name)
            if name != key:
                plan.renamed[key] = name
            if key in plain:
                new = tensors.get(name)
                entries.append(Entry(key=key, name=name, tensor=plain[key], new=new))
    return entries


def _in_module(
    key: str, name: str, tensor: Described, tensors: Mapping[str, Tensor], plan: Plan
) -> Entry:
    """A module keeps its names: of a weight and its mask, the weight takes the product."""
    whole = name == key or key.endswith(ORIGINAL)
    entry = Entry(key=key, name=key, tensor=tensor, new=tensors.get(name) if whole else None)
    if (entry.new is None and whole) or (entry.new is not None and not entry.fits):
        plan.unfit.append(key)
        return Entry(key=key, name=key, tensor=tensor, new=None)
    return entry


def _on_the_way(root: object, found: Found) -> list[object]:
    """The dicts that lead to the state_dict, from the top, and it itself."""
    holders = [root]
    for key in found.trail:
        holders.append((entries_in(holders[-1]) or {})[key])
    return holders


def _beside(holders: list[object], found: Found) -> set[int]:
    """The ids of what plain containers lead to in another way than by the state_dict.

    What lies in objects, as the parameters of an optimizer that was pickled whole, is not looked
    for: there one tensor is meant to be one.
    """
    seen: set[int] = set()
    pending: list[object] = []
    for holder, step in zip(holders, found.trail, strict=False):
        pending += [item for key, item in (entries_in(holder) or {}).items() if key != step]
    if not found.trail:
        pending = [item for item in found.entries.values() if not isinstance(item, Described)]
    while pending:
        item = pending.pop()
        inner = item.items if isinstance(item, Made) else item
        if id(item) in seen or not isinstance(inner, Table | list | tuple | Described):
            continue
        seen.add(id(item))
        if isinstance(inner, Table):
            pending += inner.values()
        elif isinstance(inner, list | tuple):
            pending += inner
    return seen


def _plan_storage(
    file: BinaryIO,
    held: Opened,
    storage: Storage,
    group: list[Entry],
    others: list[Described],
    plan: Plan,
    path: Path,
) -> None:
    """In place where the result is what was asked for and others see what they saw."""
    if all(entry.new is None for entry in group):
        return
    raw = bytes_in(file, storage, path)
    old = turned(raw, storage, swapped=held.swapped)
    data = old.clone()
    for entry in group:
        if entry.fits and entry.new is not None:
            _put(view_of(data, entry.tensor), entry.new)
    in_place = all(_is_as_asked(data, old, entry) for entry in group)
    if in_place and all(_is_unchanged(data, old, tensor) for tensor in others):
        if not torch.equal(data, old):
            plan.patches[storage] = turned(data, storage, swapped=held.swapped)
        entries = [entry for entry in group if entry.new is not None and not entry.fits]
    else:
        entries = [entry for entry in group if not _is_as_asked(old, old, entry)]
        plan.shared += sum(entry.fits for entry in entries)
        entries += [entry for entry in group if entry.new is not None and not entry.fits]
    for entry in entries:
        assert entry.new is not None
        plan.apart[entry.key] = _like(view_of(old, entry.tensor), entry.new)


def _put(view: Tensor, new: Tensor) -> None:
    """Copy values; of types that torch has no copy for, the bytes."""
    if view.is_contiguous():
        bytes_of(view).copy_(bytes_of(new))
    else:
        with torch.no_grad():
            view.copy_(new)


def _like(old: Tensor, new: Tensor) -> Tensor:
    """The values as they lay in memory, where the shape is the same."""
    if old.shape != new.shape or old.dtype != new.dtype or new.numel() != old.numel():
        return new.contiguous()
    made = torch.empty_like(old)
    made.copy_(new)
    return made


def _is_as_asked(data: Tensor, old: Tensor, entry: Entry) -> bool:
    """Whether the entry has its new values in `data`; without any, or none that fit, the old."""
    view = view_of(data, entry.tensor)
    wanted = entry.new if entry.fits and entry.new is not None else view_of(old, entry.tensor)
    return torch.equal(bytes_of(view), bytes_of(wanted))


def _is_unchanged(data: Tensor, old: Tensor, tensor: Described) -> bool:
    if tensor.kind is not None or tensor.doubt is not None:
        return torch.equal(data, old)
    return torch.equal(bytes_of(view_of(data, tensor)), bytes_of(view_of(old, tensor)))


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
