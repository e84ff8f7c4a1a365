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
from snnprune.checkpoint.torch.parts import Opened, machine, turned
from snnprune.checkpoint.torch.pickle_edit import OddPickleError
from snnprune.checkpoint.torch.stand_ins import Tensors
from snnprune.checkpoint.torch.state_dict import Found, entries_in, state_dict_in
from snnprune.checkpoint.torch.storage_plan import Apart, Plan, edited, planned
from snnprune.checkpoint.torch.stored_tensors import STORAGES, Described, Storage
from snnprune.checkpoint.torch.torch_file import opened
from snnprune.errors import InputError
from snnprune.files.readable import reading
from snnprune.files.together import replacing
from snnprune.text import counted, first_few


def rewrite(source: Checkpoint, out: Path, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Write the file of `source` to `out` with `tensors`, by their keys in it, in its state_dict.

    Notes on what is as it was.

    Raises:
        InputError: the file is damaged, or of a form in which keys or shapes cannot change.
        OutputError: `out` cannot be written.
    """
    with reading(source.path) as file:
        held = opened(file, source.path)
        found = state_dict_in(held.root, source.path, source.entry)
        plan = planned(file, held, found, source, tensors)
        if plan.apart or plan.renamed or plan.left_out:
            _write_edited(file, held, found, plan, source.path, out)
        else:
            _write_patched(file, held, plan, out)
    return _notes(held, plan)


def _write_patched(file: BinaryIO, held: Opened, plan: Plan, out: Path) -> None:
    """The same bytes but for those of the changed storages, and their CRCs."""
    with replacing(out) as temporary, temporary.open("w+b") as written:
        file.seek(0)
        shutil.copyfileobj(file, written, 2**20)
        for storage, data in plan.patches.items():
            written.seek(storage.begin)
            written.write(data.numpy().data)
            part = held.parts.get(storage.key)
            if part is not None:
                crc = _crc(written, storage.begin, part.size).to_bytes(4, "little")
                for place in part.crcs:
                    written.seek(place)
                    written.write(crc)


def _crc(file: BinaryIO, begin: int, size: int) -> int:
    file.seek(begin)
    crc = 0
    while size:
        data = file.read(min(size, 2**20))
        crc, size = zlib.crc32(data, crc), size - len(data)
    return crc


def _write_edited(
    file: BinaryIO, held: Opened, found: Found, plan: Plan, path: Path, out: Path
) -> None:
    """The file with another pickle; storages that it does not lead to any more are left out."""
    added = _storages_apart(held, found, plan)
    file.seek(held.begin)
    try:
        if held.format == "tar":
            raise OddPickleError
        pickled = edited(file.read(held.end - held.begin), held, found, plan, added)
        known = {**held.tensors.storages, **{a.storage.key: a.storage for a in added.values()}}
        left = [known[key] for key in _keys_in(pickled)]
    except (OddPickleError, MalformedPickleError, KeyError):
        raise InputError(
            "is of a form in which keys, or tensors that share their values, cannot change",
            file=path,
            hint="write a .safetensors file instead",
        ) from None
    parts = {apart.storage: apart.data for apart in added.values()} | plan.patches
    write = zip_format.write if held.format == "zip" else old_formats.write
    with replacing(out) as temporary, temporary.open("w+b") as written:
        write(file, written, held, pickled, {storage: parts.get(storage) for storage in left})


def _keys_in(pickled: bytes) -> list[object]:
    """The keys of the storages that a pickle leads to."""
    tensors = Tensors()
    machine(pickled, tensors, len(pickled)).run()
    return list(tensors.storages)


def _storages_apart(held: Opened, found: Found, plan: Plan) -> dict[str, Apart]:
    """A storage for each tensor that needs one; those that were one and are alike have one."""
    added: dict[str, Apart] = {}
    alike: dict[object, list[Apart]] = {}
    count = 0
    for key, values in plan.apart.items():
        tensor = found.select_tensors()[key]
        ties = alike.setdefault((tensor.storage, tensor.offset, tensor.shape, tensor.stride), [])
        same = (apart for apart in ties if _same(apart.values, values))
        apart = next(same, None)
        if apart is None:
            while (name := str(count)) in held.tensors.storages:
                count += 1
            count += 1
            apart = _apart(tensor, values, name, swapped=held.swapped)
            ties.append(apart)
        added[key] = apart
    return added


def _apart(tensor: Described, values: Tensor, key: str, *, swapped: bool) -> Apart:
    old = tensor.storage
    assert old is not None
    count = values.nbytes if tensor.untyped else values.numel()
    kind = _kind_of(values, old)
    storage = Storage(key, kind, old.location, count)
    flat = values.as_strided((values.numel(),), (1,))
    return Apart(
        storage=storage,
        data=turned(bytes_of(flat).clone(), storage, swapped=swapped),
        values=values,
    )


def _kind_of(values: Tensor, old: Storage) -> str:
    """The class of a storage for these values, which may be of another type than the old ones."""
    name = str(values.dtype).removeprefix("torch.")
    if STORAGES[old.kind] == name:
        return old.kind
    return next((kind for kind, dtype in STORAGES.items() if dtype == name), old.kind)


def _same(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have one shape and the same bits."""
    return left.shape == right.shape and torch.equal(bytes_of(left), bytes_of(right))


def _notes(held: Opened, plan: Plan) -> tuple[str, ...]:
    notes = []
    entries = entries_in(held.root) or {}
    if any("optimizer" in str(key) for key in entries):
        notes.append("the optimizer's state is as it was, also of weights that are pruned now")
    if plan.shared:
        notes.append(
            f"{counted(plan.shared, 'tensor')} shared values with what stays as it was, and "
            "have their own now"
        )
    if plan.unfit:
        notes.append(f"left as they were in the module: {first_few(plan.unfit)}")
    return tuple(notes)
