"""Torch files whose pickle has to change: shared values, keys, shapes; and files of torch 0.1."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus.hostile_pickles import dictionary, named, program, several, tensor, text, zipped
from test_checkpoint_hostile import bent
from torch import Tensor, nn
from torch.nn.utils import prune

from snnprune.checkpoint.checkpoint import Checkpoint, fold_masks
from snnprune.checkpoint.containers import read_back, read_checkpoint, write_like
from snnprune.checkpoint.safetensors import bytes_of
from snnprune.errors import InputError

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def halved(checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = {key: one.clone() for key, one in checkpoint.tensors.items()}
    for one in tensors.values():
        if one.dim() > 1:
            one.flatten()[: one.numel() // 2] = 0
    return tensors


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def rewritten(
    path: Path, value: Any, protocol: int, *, zipped: bool, **how: Any
) -> tuple[Any, dict[str, Tensor]]:
    """What plain torch.load finds in the file with halved weights, and these."""
    torch.save(value, path, pickle, protocol, _use_new_zipfile_serialization=zipped)
    source = read_checkpoint(path, **how)
    tensors, out = halved(source), path.with_name("out.pth")
    write_like(source, out, tensors, {})
    assert equal(read_back(source, out), tensors)
    return torch.load(out, weights_only=False), tensors


@FORMATS
@PROTOCOLS
@pytest.mark.parametrize("entry", ["run.model", "best"])
def test_of_one_dict_under_two_names_the_chosen_one_is_pruned_and_the_other_stays(
    tmp_path: Path, protocol: int, zipped: bool, entry: str
) -> None:
    state = net().state_dict()
    value = {"run": {"model": state}, "log": [state["3.bias"], 0.5], "best": state}
    loaded, tensors = rewritten(tmp_path / "a.pth", value, protocol, zipped=zipped, entry=entry)
    chosen, other = loaded["run"]["model"], loaded["best"]
    if entry == "best":
        chosen, other = other, chosen
    assert equal(chosen, tensors)
    assert equal(other, state)
    assert chosen._metadata == other._metadata == state._metadata  # type: ignore[attr-defined]
    assert torch.equal(loaded["log"][0], state["3.bias"])


@FORMATS
@PROTOCOLS
@pytest.mark.parametrize("entry", ["last.model", "best.model"])
def test_of_one_dict_around_it_under_two_names_the_other_stays_too(
    tmp_path: Path, protocol: int, zipped: bool, entry: str
) -> None:
    run = {"epoch": 3, "model": net().state_dict(), "args": [1, 2]}
    value = {"last": run, "best": run}
    loaded, tensors = rewritten(tmp_path / "a.pth", value, protocol, zipped=zipped, entry=entry)
    chosen, other = loaded["last"], loaded["best"]
    if entry == "best.model":
        chosen, other = other, chosen
    assert equal(chosen["model"], tensors)
    assert equal(other["model"], net().state_dict())
    assert (chosen["epoch"], chosen["args"]) == (other["epoch"], other["args"]) == (3, [1, 2])


@pytest.mark.many(4)
@FORMATS
@PROTOCOLS
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_module_and_its_whole_optimizer_still_have_the_same_parameters(
    tmp_path: Path, protocol: int, zipped: bool
) -> None:
    module = net()
    dense = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    # the state_dict looks at the values of the module, and stays as it is
    value = {"net": module, "optimizer": optimizer, "state": module.state_dict()}
    loaded, tensors = rewritten(tmp_path / "a.pth", value, protocol, zipped=zipped)
    assert equal(dict(loaded["net"].state_dict()), tensors)
    assert equal(dict(loaded["state"]), dict(dense))
    kept = loaded["optimizer"].param_groups[0]["params"]
    pairs = zip(loaded["net"].parameters(), kept, strict=True)
    assert all(one is other for one, other in pairs)


@FORMATS
@PROTOCOLS
def test_what_is_first_named_in_a_part_that_goes_is_there_for_the_rest(
    tmp_path: Path, protocol: int, zipped: bool
) -> None:
    # the dropped tensor is the first, whose bytes name the functions that all others need
    state = {"lif.mem": torch.ones(4, 2), "fc.weight": torch.rand(4, 4), "b": torch.ones(2)}
    torch.save({"net": state}, tmp_path / "a.pth", pickle, protocol,
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    read = read_checkpoint(tmp_path / "a.pth")
    tensors = {"fc.weight": torch.eye(4), "b": torch.zeros(1)}
    source = replace(read, tensors=tensors, dropped=frozenset({"lif.mem"}))
    write_like(source, tmp_path / "b.pth", tensors, {})
    assert equal(torch.load(tmp_path / "b.pth", weights_only=protocol == 2)["net"], tensors)
    if zipped:
        with zipfile.ZipFile(tmp_path / "b.pth") as archive:
            assert archive.testzip() is None
            offsets = [part.header_offset for part in archive.infolist()]
            assert offsets == sorted(offsets)


@FORMATS
@PROTOCOLS
def test_a_weight_and_its_mask_become_one_entry(
    tmp_path: Path, protocol: int, zipped: bool
) -> None:
    state: dict[str, Any] = {"fc.weight_orig": torch.rand(2, 2), "fc.weight_mask": torch.eye(2)}
    torch.save(state, tmp_path / "a.pth", pickle, protocol, _use_new_zipfile_serialization=zipped)
    source = fold_masks(read_checkpoint(tmp_path / "a.pth"))
    write_like(source, tmp_path / "b.pth", source.tensors, {})
    found = torch.load(tmp_path / "b.pth", weights_only=protocol == 2)
    assert equal(found, {"fc.weight": state["fc.weight_orig"] * torch.eye(2)})


def test_of_a_module_with_masks_the_weight_takes_the_product_and_the_mask_stays(
    tmp_path: Path,
) -> None:
    module = net()
    prune.l1_unstructured(module[3], "weight", amount=0.25)
    torch.save(module, tmp_path / "a.pth")
    source = fold_masks(read_checkpoint(tmp_path / "a.pth"))
    tensors = halved(source)
    write_like(source, tmp_path / "b.pth", tensors, {})
    loaded = torch.load(tmp_path / "b.pth", weights_only=False)
    loaded(torch.ones(1, 1, 4, 4))  # masks are applied before a pass
    assert torch.equal(loaded[3].weight, tensors["3.weight"])
    assert equal(read_back(source, tmp_path / "b.pth"), tensors)


def test_a_tensor_of_another_kind_in_a_module_stays(tmp_path: Path) -> None:
    module = net()
    module.register_buffer("links", torch.eye(3).to_sparse())
    torch.save(module, tmp_path / "a.pth")
    source = read_checkpoint(tmp_path / "a.pth")
    assert source.odd == {"links": "sparse"}
    tensors = halved(source)
    write_like(source, tmp_path / "b.pth", tensors, {})
    loaded = torch.load(tmp_path / "b.pth", weights_only=False).state_dict()
    assert torch.equal(loaded.pop("links").to_dense(), torch.eye(3))
    assert equal(dict(loaded), tensors)


def test_a_file_of_python_2_is_read_and_its_names_may_have_any_letters(tmp_path: Path) -> None:
    key = "sch\xf6n.weight".encode()
    body = tensor().join([b"}U" + bytes([len(key)]) + key, b"s"])
    (tmp_path / "a.pth").write_bytes(zipped(body))
    found = read_checkpoint(tmp_path / "a.pth").tensors
    assert list(found) == list(torch.load(tmp_path / "a.pth")) == ["sch\xf6n.weight"]


def test_parameters_that_get_values_of_their_own_stay_parameters(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.rand(4, 4))
    frozen = nn.Parameter(torch.rand(4, 4), requires_grad=False)
    value = {"model": {"a": weight, "b": frozen}, "ema": {"a": weight.data, "b": frozen.data}}
    loaded, tensors = rewritten(tmp_path / "a.pth", value, 2, zipped=True)
    kinds = [(type(one), one.requires_grad) for one in loaded["model"].values()]
    assert kinds == [(nn.Parameter, True), (nn.Parameter, False)]
    assert equal(dict(loaded["model"]), tensors)
    assert torch.equal(loaded["ema"]["a"], weight.data)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64], ids=str)
def test_a_file_of_the_other_byte_order_is_read_and_written_in_it(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    state = {"fc.weight": torch.rand(4, 4).to(dtype), "n": torch.tensor(7)}
    torch.save(state, tmp_path / "a.pth")
    size = dtype.itemsize // (2 if dtype.is_complex else 1)
    turned = {"data/0": size, "data/1": 8}
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "big.pth", "w") as new,
    ):
        for name in old.namelist():
            data, own = old.read(name), name.partition("/")[2]
            if own in turned:
                width = turned[own]
                data = b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
            new.writestr(name, b"big" if own == "byteorder" else data)
    source = read_checkpoint(tmp_path / "big.pth")
    assert equal(source.tensors, state)
    tensors = {**source.tensors, "fc.weight": torch.zeros(4, 4, dtype=dtype), "n": torch.tensor(9)}
    write_like(source, tmp_path / "out.pth", tensors, {})
    assert equal(torch.load(tmp_path / "out.pth"), tensors)


@pytest.mark.slow
def test_bent_files_that_are_read_are_written_as_they_were_read(tmp_path: Path) -> None:
    state, drawn = net().state_dict(), random.Random(7)
    files = []
    for zip_format in (True, False):
        for value in ({"model": state, "best": state}, net()):
            torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=zip_format)
            files.append((tmp_path / "a.pth").read_bytes())
    for number in range(300):
        (tmp_path / "bent.pth").write_bytes(bent(files[number % 4], drawn))
        with contextlib.suppress(InputError):
            source = read_checkpoint(tmp_path / "bent.pth", allow_nonfinite=True)
            tensors = halved(source)
            write_like(source, tmp_path / "out.pth", tensors, {})
            back = read_back(source, tmp_path / "out.pth")
            assert all(torch.equal(bytes_of(back[key]), bytes_of(tensors[key])) for key in tensors)


def in_tar(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def of_torch_01() -> dict[str, bytes]:
    """Two tensors that share a storage of six, as torch 0.1 wrote them."""
    kind = named("torch.FloatStorage")
    values = struct.pack("<q6f", 6, *range(6))
    storages = pickle.dumps(1, 2) + program(several(b"K\x05", text("cpu"), kind)) + values
    tensors = pickle.dumps(2, 2)
    for key, shape, stride, offset in ((7, (2, 2), (2, 1), 0), (8, (2,), (1,), 4)):
        tensors += program(several(b"K%c" % key, b"K\x05", named("torch.FloatTensor")))
        tensors += struct.pack(f"<ii{len(shape)}q{len(shape)}qq", len(shape), 0, *shape, *stride,
                               offset)  # fmt: skip
    body = dictionary(**{"fc.weight": b"K\x07Q", "fc.bias": b"K\x08Q"})
    return {
        "sys_info": pickle.dumps({"little_endian": True}, 2),
        "storages": storages + pickle.dumps([], 2),
        "tensors": tensors,
        "pickle": program(body),
    }


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # torch unpacks it
def test_a_tar_file_of_torch_0_1_is_read_and_written_as_plain_torch_reads_it(
    tmp_path: Path,
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "b.pth"
    path.write_bytes(in_tar(**of_torch_01()))
    source = read_checkpoint(path)
    assert equal(source.tensors, dict(torch.load(path, weights_only=False)))
    tensors = {**source.tensors, "fc.weight": torch.eye(2)}
    write_like(source, out, tensors, {})
    assert equal(dict(torch.load(out, weights_only=False)), tensors)
    dropped = replace(source, dropped=frozenset({"fc.bias"}))
    with pytest.raises(InputError, match=r"cannot change. write a \.safetensors file instead"):
        write_like(dropped, tmp_path / "c.pth", {"fc.weight": torch.eye(2)}, {})
    assert not (tmp_path / "c.pth").exists()


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("storages", lambda data: data[:-20]),
        ("storages", lambda data: data.replace(struct.pack("<q", 6), struct.pack("<q", 2**60))),
        ("storages", lambda _: pickle.dumps(2**60, 2)),
        ("tensors", lambda data: data[:-9]),
        ("tensors", lambda data: data.replace(struct.pack("<i", 2), struct.pack("<i", 99))),
        ("tensors", lambda data: data.replace(b"K\x08K\x05", b"K\x07K\x05")),
        ("pickle", lambda data: data.replace(b"K\x07Q", b"K\x63Q")),
        ("pickle", lambda _: b""),
    ],
    ids=["cut", "too long", "too many", "no offset", "dimensions", "twice", "absent", "empty"],
)
def test_a_damaged_tar_file_is_refused(
    tmp_path: Path, member: str, change: Callable[[bytes], bytes]
) -> None:
    parts = of_torch_01()
    path = tmp_path / "a.pth"
    path.write_bytes(in_tar(**{**parts, member: change(parts[member])}))
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
