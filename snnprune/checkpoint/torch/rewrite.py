"""A torch file written again with other values in its state_dict, and every other byte as it was.

Where keys or shapes change, the pickle is edited: what the file names is never made, so nothing is
lost, whatever it is.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.safetensors import bytes_of
from snnprune.checkpoint.torch import old_formats, zip_format
from snnprune.checkpoint.torch.machine import MalformedPickleError
from snnprune.checkpoint.torch.parts import TorchFile, make_machine, swap_byte_order
from snnprune.checkpoint.torch.pickle_edit import OddPickleError
from snnprune.checkpoint.torch.stand_ins import PickledTensors
from snnprune.checkpoint.torch.state_dict import StoredStateDict, find_state_dict, list_entries
from snnprune.checkpoint.torch.storage_plan import (
    RewritePlan,
    SeparateStorage,
    edit_pickle,
    plan_rewrite,
)
from snnprune.checkpoint.torch.stored_tensors import STORAGES, Storage, StoredTensor
from snnprune.checkpoint.torch.torch_file import open_torch_file
from snnprune.errors import InputError
from snnprune.errors.text import format_count, format_names
from snnprune.files.readable import open_for_reading
from snnprune.files.together import replace_file


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
    write = zip_format.write_zip if held.format == "zip" else old_formats.write_legacy
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
        notes.append(
            f"{format_count(plan.shared, 'tensor')} shared values with what stays as it was, and "
            "have their own now"
        )
    if plan.unfit:
        notes.append(f"left as they were in the module: {format_names(plan.unfit)}")
    return tuple(notes)
