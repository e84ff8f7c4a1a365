"""A torch file written again with other values in its state_dict, and every other byte as it was.

Where keys or shapes change, the pickle is edited: what the file names is never made, so nothing is
lost, whatever it is.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.naming import ORIGINAL
from snnprune.checkpoint.safetensors import bytes_of
from snnprune.checkpoint.torch import formats, open_torch_file, select_plain_tensors, view_of
from snnprune.checkpoint.torch.machine import MalformedPickleError, PickledCall, PickledDict
from snnprune.checkpoint.torch.pickle_edit import (
    DictItem,
    Edit,
    Editor,
    Node,
    OddPickleError,
    PickleTree,
    encode_call,
    encode_flag,
    encode_global,
    encode_number,
    encode_persistent,
    encode_text,
    encode_tuple,
    parse_pickle_tree,
)
from snnprune.checkpoint.torch.stand_ins import (
    STORAGES,
    PickledTensors,
    Storage,
    StoredTensor,
    TorchFile,
    make_machine,
    read_storage_bytes,
    swap_byte_order,
)
from snnprune.checkpoint.torch.state_dict import StoredStateDict, find_state_dict, list_entries
from snnprune.errors import InputError, Note, format_count, format_names
from snnprune.files.reading import open_for_reading
from snnprune.files.writing import replace_file


def write_state_dict(out: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` as a state_dict, as torch.save does; for what came from no file.

    Raises:
        OutputError: `out` cannot be written.
    """
    with replace_file(out) as temporary:
        torch.save(dict(tensors), temporary)


def rewrite(source: Checkpoint, out: Path, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Write the file of `source` to `out` with `tensors`, by their keys in it, in its state_dict.

    Notes on what is as it was.

    Raises:
        InputError: the file is damaged, or of a form in which keys or shapes cannot change.
        OutputError: `out` cannot be written.
    """
    with open_for_reading(source.path) as file:
        held = open_torch_file(file, source.path)
        found = find_state_dict(held.root, source.path, source.entry)
        plan = plan_rewrite(file, held, found, source, tensors)
        if plan.apart or plan.renamed or plan.left_out:
            _write_edited(file, held, found, plan, source.path, out)
        else:
            _write_patched(file, held, plan, out)
    return _list_notes(held, plan)


def _write_patched(file: BinaryIO, held: TorchFile, plan: RewritePlan, out: Path) -> None:
    """The same bytes but for those of the changed storages, and their CRCs."""
    with replace_file(out) as temporary, temporary.open("w+b") as written:
        file.seek(0)
        shutil.copyfileobj(file, written, 2**20)
        for storage, data in plan.patches.items():
            written.seek(storage.begin)
            written.write(data.numpy().data)
            part = held.parts.get(storage.key)
            if part is not None:
                crc = _compute_crc(written, storage.begin, part.size).to_bytes(4, "little")
                for place in part.crcs:
                    written.seek(place)
                    written.write(crc)


def _compute_crc(file: BinaryIO, begin: int, size: int) -> int:
    file.seek(begin)
    crc = 0
    while size:
        data = file.read(min(size, 2**20))
        crc, size = zlib.crc32(data, crc), size - len(data)
    return crc


def _write_edited(
    file: BinaryIO,
    held: TorchFile,
    found: StoredStateDict,
    plan: RewritePlan,
    path: Path,
    out: Path,
) -> None:
    """The file with another pickle; storages that it does not lead to any more are left out."""
    added = _plan_separate_storages(held, found, plan)
    file.seek(held.begin)
    try:
        if held.format == "tar":
            raise OddPickleError
        pickled = edit_pickle(file.read(held.end - held.begin), held, found, plan, added)
        known = {**held.tensors.storages, **{a.storage.key: a.storage for a in added.values()}}
        left = [known[key] for key in _find_storage_keys(pickled)]
    except (OddPickleError, MalformedPickleError, KeyError):
        raise InputError(
            "is of a form in which keys, or tensors that share their values, cannot change",
            file=path,
            hint="write a .safetensors file instead",
        ) from None
    parts = {apart.storage: apart.data for apart in added.values()} | plan.patches
    write = formats.write_zip if held.format == "zip" else formats.write_legacy
    with replace_file(out) as temporary, temporary.open("w+b") as written:
        write(file, written, held, pickled, {storage: parts.get(storage) for storage in left})


def _find_storage_keys(pickled: bytes) -> list[object]:
    """The keys of the storages that a pickle leads to."""
    tensors = PickledTensors()
    make_machine(pickled, tensors, len(pickled)).run()
    return list(tensors.storages)


def _plan_separate_storages(
    held: TorchFile, found: StoredStateDict, plan: RewritePlan
) -> dict[str, SeparateStorage]:
    """A storage for each tensor that needs one; those that were one and are alike have one."""
    added: dict[str, SeparateStorage] = {}
    alike: dict[object, list[SeparateStorage]] = {}
    count = 0
    for key, values in plan.apart.items():
        tensor = found.select_tensors()[key]
        ties = alike.setdefault((tensor.storage, tensor.offset, tensor.shape, tensor.stride), [])
        same = (apart for apart in ties if _is_same(apart.values, values))
        apart = next(same, None)
        if apart is None:
            while (name := str(count)) in held.tensors.storages:
                count += 1
            count += 1
            apart = _make_separate_storage(tensor, values, name, swapped=held.swapped)
            ties.append(apart)
        added[key] = apart
    return added


def _make_separate_storage(
    tensor: StoredTensor, values: Tensor, key: str, *, swapped: bool
) -> SeparateStorage:
    old = tensor.storage
    assert old is not None
    count = values.nbytes if tensor.untyped else values.numel()
    kind = _choose_storage_class(values, old)
    storage = Storage(key, kind, old.location, count)
    flat = values.as_strided((values.numel(),), (1,))
    return SeparateStorage(
        storage=storage,
        data=swap_byte_order(bytes_of(flat).clone(), storage, swapped=swapped),
        values=values,
    )


def _choose_storage_class(values: Tensor, old: Storage) -> str:
    """The class of a storage for these values, which may be of another type than the old ones."""
    name = str(values.dtype).removeprefix("torch.")
    if STORAGES[old.kind] == name:
        return old.kind
    return next((kind for kind, dtype in STORAGES.items() if dtype == name), old.kind)


def _is_same(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have one shape and the same bits."""
    return left.shape == right.shape and torch.equal(bytes_of(left), bytes_of(right))


def _list_notes(held: TorchFile, plan: RewritePlan) -> tuple[str, ...]:
    notes = []
    entries = list_entries(held.root) or {}
    if any("optimizer" in str(key) for key in entries):
        notes.append("the optimizer's state is as it was, also of weights that are pruned now")
    if plan.shared:
        shared = format_count(plan.shared, "tensor")
        told = f"{shared} shared values with what stays as it was, and have their own now"
        notes.append(Note(told))
    if plan.unfit:
        notes.append(f"left as they were in the module: {format_names(plan.unfit)}")
    return tuple(notes)


@dataclass(frozen=True, kw_only=True)
class PlannedTensor:
    """A tensor of the state_dict, and what it becomes."""

    key: str
    name: str
    """Its key from now on."""
    tensor: StoredTensor
    new: Tensor | None
    """None where nothing changes."""

    @property
    def fits(self) -> bool:
        """Whether the new values have room where the old ones are."""
        new = self.new
        return new is not None and (new.shape, new.dtype) == (self.tensor.shape, self.tensor.dtype)


@dataclass(kw_only=True)
class RewritePlan:
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


def plan_rewrite(
    file: BinaryIO,
    held: TorchFile,
    found: StoredStateDict,
    source: Checkpoint,
    tensors: Mapping[str, Tensor],
) -> RewritePlan:
    """How the state_dict gets `tensors`, by its keys.

    Raises:
        InputError: as reading it.
    """
    plan = RewritePlan()
    entries = _plan_entries(found, source, tensors, plan)
    holders = _find_holders(held.root, found)
    outside = set() if found.is_module else _find_other_ids(holders, found)
    shared = (steps for steps, holder in enumerate(holders) if id(holder) in outside)
    plan.copied = next(shared, None)
    mine = {id(entry.tensor) for entry in entries} - outside
    on: dict[Storage, list[PlannedTensor]] = {}
    for entry in entries:
        if entry.tensor.storage is not None:
            on.setdefault(entry.tensor.storage, []).append(entry)
    others: dict[Storage, list[StoredTensor]] = {}
    for tensor in held.tensors.all:
        if tensor.storage in on and id(tensor) not in mine:
            others.setdefault(tensor.storage, []).append(tensor)
    for storage, group in on.items():
        _plan_storage(file, held, storage, group, others.get(storage, []), plan, source.path)
    return plan


def _plan_entries(
    found: StoredStateDict, source: Checkpoint, tensors: Mapping[str, Tensor], plan: RewritePlan
) -> list[PlannedTensor]:
    """The tensors that stay in the state_dict; what does not is noted in the plan."""
    entries: list[PlannedTensor] = []
    placed: set[str] = set()
    plain = select_plain_tensors(found, source.path)
    for key in (key for key in found.entries if isinstance(key, str)):
        name = source.folded.get(key, key)
        if found.is_module and key in plain:
            entries.append(_plan_module_entry(key, name, plain[key], tensors, plan))
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
                entries.append(PlannedTensor(key=key, name=name, tensor=plain[key], new=new))
    return entries


def _plan_module_entry(
    key: str, name: str, tensor: StoredTensor, tensors: Mapping[str, Tensor], plan: RewritePlan
) -> PlannedTensor:
    """A module keeps its names: of a weight and its mask, the weight takes the product."""
    whole = name == key or key.endswith(ORIGINAL)
    entry = PlannedTensor(
        key=key, name=key, tensor=tensor, new=tensors.get(name) if whole else None
    )
    if (entry.new is None and whole) or (entry.new is not None and not entry.fits):
        plan.unfit.append(key)
        return PlannedTensor(key=key, name=key, tensor=tensor, new=None)
    return entry


def _find_holders(root: object, found: StoredStateDict) -> list[object]:
    """The dicts that lead to the state_dict, from the top, and it itself."""
    holders = [root]
    for key in found.trail:
        holders.append((list_entries(holders[-1]) or {})[key])
    return holders


def _find_other_ids(holders: list[object], found: StoredStateDict) -> set[int]:
    """The ids of what plain containers lead to in another way than by the state_dict.

    What lies in objects, as the parameters of an optimizer that was pickled whole, is not looked
    for: there one tensor is meant to be one.
    """
    seen: set[int] = set()
    pending: list[object] = []
    for holder, step in zip(holders, found.trail, strict=False):
        pending += [item for key, item in (list_entries(holder) or {}).items() if key != step]
    if not found.trail:
        pending = [item for item in found.entries.values() if not isinstance(item, StoredTensor)]
    while pending:
        item = pending.pop()
        inner = item.items if isinstance(item, PickledCall) else item
        if id(item) in seen or not isinstance(inner, PickledDict | list | tuple | StoredTensor):
            continue
        seen.add(id(item))
        if isinstance(inner, PickledDict):
            pending += inner.values()
        elif isinstance(inner, list | tuple):
            pending += inner
    return seen


def _plan_storage(
    file: BinaryIO,
    held: TorchFile,
    storage: Storage,
    group: list[PlannedTensor],
    others: list[StoredTensor],
    plan: RewritePlan,
    path: Path,
) -> None:
    """In place where the result is what was asked for and others see what they saw."""
    if all(entry.new is None for entry in group):
        return
    raw = read_storage_bytes(file, storage, path)
    old = swap_byte_order(raw, storage, swapped=held.swapped)
    data = old.clone()
    for entry in group:
        if entry.fits and entry.new is not None:
            _copy_values(view_of(data, entry.tensor), entry.new)
    in_place = all(_is_as_asked(data, old, entry) for entry in group)
    if in_place and all(_is_unchanged(data, old, tensor) for tensor in others):
        if not torch.equal(data, old):
            plan.patches[storage] = swap_byte_order(data, storage, swapped=held.swapped)
        entries = [entry for entry in group if entry.new is not None and not entry.fits]
    else:
        entries = [entry for entry in group if not _is_as_asked(old, old, entry)]
        plan.shared += sum(entry.fits for entry in entries)
        entries += [entry for entry in group if entry.new is not None and not entry.fits]
    for entry in entries:
        assert entry.new is not None
        plan.apart[entry.key] = _copy_layout(view_of(old, entry.tensor), entry.new)


def _copy_values(view: Tensor, new: Tensor) -> None:
    """Copy values; of types that torch has no copy for, the bytes."""
    if view.is_contiguous():
        bytes_of(view).copy_(bytes_of(new))
    else:
        with torch.no_grad():
            view.copy_(new)


def _copy_layout(old: Tensor, new: Tensor) -> Tensor:
    """The values as they lay in memory, where the shape is the same."""
    if old.shape != new.shape or old.dtype != new.dtype or new.numel() != old.numel():
        return new.contiguous()
    made = torch.empty_like(old)
    made.copy_(new)
    return made


def _is_as_asked(data: Tensor, old: Tensor, entry: PlannedTensor) -> bool:
    """Whether the entry has its new values in `data`; without any, or none that fit, the old."""
    view = view_of(data, entry.tensor)
    wanted = entry.new if entry.fits and entry.new is not None else view_of(old, entry.tensor)
    return torch.equal(bytes_of(view), bytes_of(wanted))


def _is_unchanged(data: Tensor, old: Tensor, tensor: StoredTensor) -> bool:
    if tensor.kind is not None or tensor.doubt is not None:
        return torch.equal(data, old)
    return torch.equal(bytes_of(view_of(data, tensor)), bytes_of(view_of(old, tensor)))


@dataclass(frozen=True, kw_only=True)
class SeparateStorage:
    """A tensor that gets a storage of its own."""

    storage: Storage
    data: Tensor
    """Its bytes as they lie in the file."""
    values: Tensor


def edit_pickle(
    pickled: bytes,
    held: TorchFile,
    found: StoredStateDict,
    plan: RewritePlan,
    added: Mapping[str, SeparateStorage],
) -> bytes:
    """The pickle as `plan` wants it.

    Raises:
        OddPickleError: Python's pickler would not have written it so.
    """
    structure = parse_pickle_tree(pickled)
    editor = Editor(data=pickled, structure=structure)
    with_view = held.format == "old"
    if found.is_module:
        for key, apart in added.items():
            tensor = found.select_tensors()[key]
            node = _find_node(structure, tensor.place - held.first)
            data = _encode_tensor(tensor, apart, with_view=with_view)
            # up to the call: what keeps it for others stays
            editor.edits.append(Edit(begin=node.begin, end=node.made + 1, data=data))
        return editor.apply_edits()
    holder = _find_node(structure, found.holder.place - held.first)
    pairs = _index_pairs(structure, holder)
    for key in plan.left_out:
        editor.edits.append(Edit(begin=pairs[key].key.begin, end=pairs[key].end, data=b""))
    for key, name in plan.renamed.items():
        node = pairs[key].key
        editor.edits.append(Edit(begin=node.begin, end=node.end, data=encode_text(name)))
    for key, apart in added.items():
        node, tensor = pairs[key].value, found.select_tensors()[key]
        data = _encode_parameter(tensor, _encode_tensor(tensor, apart, with_view=with_view))
        editor.edits.append(Edit(begin=node.begin, end=node.end, data=data))
    if plan.copied is not None:
        editor.slot = _find_slot(structure, found.trail[: plan.copied])
        editor.copied = structure.resolve(editor.slot)
    return editor.apply_edits()


def _find_node(structure: PickleTree, place: int) -> Node:
    node = structure.by_place.get(place)
    if node is None:
        raise OddPickleError
    return node


def _index_pairs(structure: PickleTree, holder: Node) -> dict[object, DictItem]:
    """What is put into a dict under keys that are text."""
    pairs: dict[object, DictItem] = {}
    for pair in holder.pairs:
        key = structure.resolve(pair.key).text
        if key is not None and key in pairs:
            raise OddPickleError
        pairs[key] = pair
    return pairs


def _find_slot(structure: PickleTree, trail: tuple[object, ...]) -> Node:
    """Where these steps lead, as it stands in the dict before."""
    if not trail:  # the whole, which is within itself
        raise OddPickleError
    node = structure.root
    for key in trail:
        pair = _index_pairs(structure, structure.resolve(node)).get(key)
        if pair is None:
            raise OddPickleError
        node = pair.value
    return node


def _encode_tensor(tensor: StoredTensor, apart: SeparateStorage, *, with_view: bool) -> bytes:
    """A call of `_rebuild_tensor_v2`, or of `_v3` where the storage knows no type."""
    storage, values = apart.storage, apart.values
    kind = encode_global("torch.storage" if tensor.untyped else "torch", storage.kind)
    place = encode_persistent(
        encode_text("storage"), kind, encode_text(storage.key), encode_text(storage.location),
        encode_number(storage.count),
        *([encode_flag(None)] if with_view else []),
    )  # fmt: skip
    shape, stride = (
        encode_tuple(*map(encode_number, sizes)) for sizes in (values.shape, values.stride())
    )
    hooks = encode_call(encode_global("collections", "OrderedDict"))
    grad = encode_flag(tensor.grad and not tensor.is_parameter)
    dtype = (
        [encode_global("torch", str(tensor.dtype).removeprefix("torch."))] if tensor.untyped else []
    )
    function = encode_global("torch._utils", f"_rebuild_tensor_v{3 if tensor.untyped else 2}")
    return encode_call(function, place, encode_number(0), shape, stride, grad, hooks, *dtype)


def _encode_parameter(tensor: StoredTensor, data: bytes) -> bytes:
    if not tensor.is_parameter:
        return data
    hooks = encode_call(encode_global("collections", "OrderedDict"))
    return encode_call(
        encode_global("torch._utils", "_rebuild_parameter"), data, encode_flag(tensor.grad), hooks
    )
