"""NIR graphs: files that nir wrote, the same written again, and HDF5 that must be refused."""

import builtins
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import snntorch
import torch
from snntorch.export_nir import export_to_nir
from torch import Tensor, nn

from snnprune.checkpoint.checkpoint import find_prunable_weights
from snnprune.checkpoint.containers import (
    describe_checkpoint,
    read_back,
    read_checkpoint,
    require_writable_as,
    write_like,
)
from snnprune.errors import InputError, OutputError, UsageError


def values(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def lif(size: int) -> Any:
    full = np.ones(size)
    return nir.LIF(tau=full, r=full, v_leak=full * 0, v_threshold=full)


def chain(size: int, **nodes: Any) -> Any:
    """The nodes one after another, between an input and an output."""
    last = list(nodes)[-1]
    out = nodes[last].output_type["output"]
    ends = {
        "input": nir.Input(input_type={"input": np.array([size])}),
        "output": nir.Output(output_type={"output": out}),
    }
    names = ["input", *nodes, "output"]
    return nir.NIRGraph(nodes={**ends, **nodes}, edges=list(itertools.pairwise(names)))


def graph() -> Any:
    block = chain(8, fc=nir.Linear(weight=values(6, 8)), lif=lif(6))
    return chain(
        10,
        fc1=nir.Affine(weight=values(8, 10), bias=values(8)),
        block=block,
        fc2=nir.Linear(weight=values(3, 6).astype(np.float64)),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    nir.write(tmp_path / "net.nir", graph())
    return tmp_path / "net.nir"


def test_tensors_go_by_the_names_of_the_nodes(file: Path) -> None:
    checkpoint = read_checkpoint(file)
    assert checkpoint.container == "nir"
    assert find_prunable_weights(checkpoint.tensors) == (
        "block.fc.weight",
        "fc1.weight",
        "fc2.weight",
    )
    assert np.array_equal(checkpoint.tensors["block.fc.weight"], values(6, 8))
    assert checkpoint.tensors["fc2.weight"].dtype == torch.float64
    assert checkpoint.tensors["block.lif.v_threshold"].tolist() == [1] * 6
    assert checkpoint.tensors["input.shape"].tolist() == [10]
    assert checkpoint.metadata == {}
    assert checkpoint.notes == ()
    with h5py.File(file) as opened:
        for key, tensor in checkpoint.tensors.items():
            assert np.array_equal(opened[checkpoint.names[key]][()], tensor)


def test_it_is_described_without_its_values(file: Path) -> None:
    tensors = read_checkpoint(file).tensors
    assert {info.name: (info.dtype, info.shape) for info in describe_checkpoint(file).tensors} == {
        key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for key, tensor in tensors.items()
    }


def test_convolutions_are_prunable_and_pools_are_not(tmp_path: Path) -> None:
    one, two = np.array([1]), np.array([1, 1])
    nodes = {
        "conv1": nir.Conv1d(8, values(4, 2, 3), 1, 0, 1, 1, values(4)),
        "conv2": nir.Conv2d((8, 8), values(4, 2, 3, 3), two, two, two, 1, values(4)),
        "pool": nir.SumPool2d(two * 2, two * 2, two * 0),
        "scale": nir.Scale(scale=values(4, 4)),
        "flatten": nir.Flatten({"input": np.array([4, 4])}, 0, 1),
        "delay": nir.Delay(one),
    }
    loose = nir.NIRGraph(nodes=nodes, edges=[], type_check=False)
    nir.write(tmp_path / "a.nir", loose)
    tensors = read_checkpoint(tmp_path / "a.nir").tensors
    assert find_prunable_weights(tensors) == ("conv1.weight", "conv2.weight")


def test_a_node_that_is_no_graph_is_read_too(tmp_path: Path) -> None:
    nir.write(tmp_path / "a.nir", nir.Linear(weight=values(2, 3)))
    assert list(read_checkpoint(tmp_path / "a.nir").tensors) == ["weight"]


def test_nodes_with_dots_in_their_names_are_told_apart(tmp_path: Path) -> None:
    inner = chain(3, fc=nir.Linear(weight=values(3, 3)))
    outer = chain(3, **{"a.fc": nir.Linear(weight=values(3, 3) * 2), "a": inner})
    nir.write(tmp_path / "a.nir", outer)
    checkpoint = read_checkpoint(tmp_path / "a.nir")
    assert len(find_prunable_weights(checkpoint.tensors)) == 2
    assert set(checkpoint.names.values()) >= {
        "/node/nodes/a.fc/weight", "/node/nodes/a/nodes/fc/weight",
    }  # fmt: skip


def by_hand(path: Path) -> None:
    """The layout of nir 0.1 and 0.2: nothing compressed, no v_reset."""
    with h5py.File(path, "w") as opened:
        opened.create_dataset("version", data="0.2")
        root = opened.create_group("node")
        root.create_dataset("type", data="NIRGraph", dtype=h5py.string_dtype())
        root.create_dataset("edges", data=[("fc", "if")], dtype=h5py.string_dtype())
        fc = root.create_group("nodes/fc")
        fc.create_dataset("type", data="Linear", dtype=h5py.string_dtype())
        fc.create_dataset("weight", data=values(2, 3))
        neuron = root.create_group("nodes/if")
        neuron.create_dataset("type", data="IF", dtype=h5py.string_dtype())
        neuron.create_dataset("r", data=np.ones(2))
        neuron.create_dataset("v_threshold", data=np.ones(2))


def test_files_of_older_versions_are_read_and_written(tmp_path: Path) -> None:
    by_hand(tmp_path / "old.nir")
    source = read_checkpoint(tmp_path / "old.nir")
    tensors = source.tensors | {"fc.weight": source.tensors["fc.weight"] * 0}
    write_like(source, tmp_path / "new.nir", tensors, {})
    assert not nir.read(tmp_path / "new.nir", type_check=False).nodes["fc"].weight.any()


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2", ">i2", "u4", "?"])
def test_any_plain_type_and_byte_order_is_read_and_written(tmp_path: Path, dtype: str) -> None:
    by_hand(tmp_path / "a.nir")
    stored = (values(2, 3) * 10).astype(dtype)
    with h5py.File(tmp_path / "a.nir", "r+") as opened:
        del opened["node/nodes/fc/weight"]
        opened["node/nodes/fc/weight"] = stored
    source = read_checkpoint(tmp_path / "a.nir")
    assert np.array_equal(source.tensors["fc.weight"], stored)
    new = source.tensors["fc.weight"].clone()
    new[0] = 0
    write_like(source, tmp_path / "b.nir", source.tensors | {"fc.weight": new}, {})
    with h5py.File(tmp_path / "b.nir") as opened:
        written = opened["node/nodes/fc/weight"]
        assert written.dtype == np.dtype(dtype)
        assert np.array_equal(written[()], new)


# writing


def pruned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The smaller half of every weight 0."""
    changed = dict(tensors)
    for key in find_prunable_weights(tensors):
        weight = tensors[key]
        changed[key] = torch.where(weight.abs() > weight.abs().median(), weight, 0)
    return changed


def test_nir_reads_the_pruned_graph_with_all_else_as_it_was(file: Path, tmp_path: Path) -> None:
    before, out = file.read_bytes(), tmp_path / "out.nir"
    source = read_checkpoint(file)
    tensors = pruned(source.tensors)
    assert write_like(source, out, tensors, {"snnprune.version": "0"}) == ()
    found, original = nir.read(out), nir.read(file)
    assert file.read_bytes() == before
    assert found.edges == original.edges
    assert list(found.nodes) == list(original.nodes)
    weights = {
        "fc1.weight": found.nodes["fc1"].weight,
        "fc2.weight": found.nodes["fc2"].weight,
        "block.fc.weight": found.nodes["block"].nodes["fc"].weight,
    }
    for key, weight in weights.items():
        assert weight.dtype == source.tensors[key].numpy().dtype
        assert np.array_equal(weight, tensors[key])
        assert (weight == 0).sum() >= weight.size // 2
    assert np.array_equal(found.nodes["fc1"].bias, original.nodes["fc1"].bias)
    back = read_back(source, out)
    assert list(back) == list(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


@pytest.mark.filterwarnings("ignore:nirtorch.extract_nir_graph:DeprecationWarning")
def test_what_snntorch_exports_is_pruned_and_read_by_nir(tmp_path: Path) -> None:
    torch.manual_seed(0)

    def leaky(*shape: int) -> Any:
        full = torch.full(shape, 0.9)
        return snntorch.Leaky(beta=full, threshold=full, init_hidden=True)

    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), leaky(4, 6, 6), nn.Flatten(), nn.Linear(144, 10), leaky(10)
    )
    nir.write(tmp_path / "a.nir", export_to_nir(net, torch.rand(1, 1, 8, 8), ignore_dims=[0]))
    source = read_checkpoint(tmp_path / "a.nir")
    assert find_prunable_weights(source.tensors) == ("0.weight", "3.weight")
    assert torch.equal(source.tensors["3.weight"], net.state_dict()["3.weight"])
    write_like(source, tmp_path / "b.nir", pruned(source.tensors), {})
    found = nir.read(tmp_path / "b.nir")
    for name in ("0", "3"):
        zero = found.nodes[name].weight == 0
        assert zero.sum() == zero.size // 2


def test_a_graph_is_written_as_a_graph_only(file: Path, tmp_path: Path) -> None:
    require_writable_as(file, tmp_path / "out.nir")
    for name in ("out.safetensors", "out.pth"):
        with pytest.raises(UsageError, match=r"is a nir file, which can be written as \.nir$"):
            require_writable_as(file, tmp_path / name)


def test_an_existing_output_stays_where_the_disk_is_full(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.nir"
    out.write_bytes(b"old")
    source = read_checkpoint(file)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_like(source, out, source.tensors, {})
    assert out.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"net.nir", "out.nir"}


def test_a_weight_under_two_names_is_one_weight(file: Path, tmp_path: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["node/nodes/fc2/again"] = opened["node/nodes/fc2/weight"]
    source = read_checkpoint(file)
    assert source.notes == ("other names of tensors that are there already: fc2.weight",)
    write_like(source, tmp_path / "out.nir", pruned(source.tensors), {})


# HDF5 that is no graph, or none to be trusted


def test_without_h5py_it_says_how_to_get_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError) as caught:
        read_checkpoint(file)
    assert str(caught.value) == (f"{file}: reading .nir needs h5py. pip install 'snnprune[nir]'")


def keras(opened: Any) -> None:
    del opened["node"]
    opened["model_weights/dense/kernel:0"] = values(3, 3)


def external_link(opened: Any) -> None:
    opened["node/nodes/fc1/more"] = h5py.ExternalLink("other.h5", "/secret")


def external_root(opened: Any) -> None:
    del opened["node"]
    opened["node"] = h5py.ExternalLink("other.h5", "/node")


def soft_link(opened: Any) -> None:
    opened["node/nodes/other"] = h5py.SoftLink("/node/nodes/fc1")


def external_data(opened: Any) -> None:
    opened["node/nodes/fc1"].create_dataset(
        "secret", (8,), np.uint8, external=[("secret.txt", 0, 8)]
    )


def virtual(opened: Any) -> None:
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "secret", (4,))
    opened["node/nodes/fc1"].create_virtual_dataset("more", layout)


def huge(opened: Any) -> None:
    opened["node/nodes/fc1"].create_dataset("more", (2**40,), np.float32, chunks=(2**10,))


def huge_chunk(opened: Any) -> None:
    opened["node/nodes/fc1"].create_dataset(
        "more", (1,), np.float32, maxshape=(None,), chunks=(2**29,)
    )


def many_huge(opened: Any) -> None:
    for index in range(3):
        opened["node/nodes/fc1"].create_dataset(
            f"more{index}", (2**27,), np.float32, chunks=(2**10,)
        )


def circle(opened: Any) -> None:
    opened["node/nodes/block/nodes/block"] = opened["node/nodes/block"]


def empty(opened: Any) -> None:
    del opened["node/nodes"]


def no_type(opened: Any) -> None:
    del opened["node/type"]


def name_is_no_text(opened: Any) -> None:
    opened["node/nodes/fc1"][b"\xff\xfe"] = 1.0


BAD: dict[str, tuple[Callable[[Any], None], str]] = {
    "keras": (keras, "is an HDF5 file, but no NIR graph"),
    "no type": (no_type, "is an HDF5 file, but no NIR graph"),
    "external link": (external_link, "/node/nodes/fc1/more: is a link, which snnprune does not"),
    "external root": (external_root, "/node: is a link, which snnprune does not follow"),
    "soft link": (soft_link, "/node/nodes/other: is a link"),
    "external data": (external_data, "/node/nodes/fc1/secret: has its data in another file"),
    "virtual": (virtual, "/node/nodes/fc1/more: has its data in another file"),
    "huge": (huge, "more: would unpack to more than 4,398,046,5.* bytes, from a file of"),
    "huge chunk": (huge_chunk, "more: would unpack to more than 2,147,4.* bytes"),
    "many huge": (many_huge, "more1: would unpack to more than 1,073,7.* bytes"),
    "circle": (circle, "is there under two names"),
    "empty": (empty, "holds no numbers"),
    "name": (name_is_no_text, "its name is not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_hdf5_that_points_elsewhere_or_lies_is_refused(file: Path, name: str) -> None:
    change, words = BAD[name]
    (file.parent / "secret.txt").write_bytes(b"password")
    with h5py.File(file.parent / "other.h5", "w") as other:
        other["secret"] = np.ones(4, np.float32)
        other["node/type"] = "NIRGraph"
    with h5py.File(file, "r+") as opened:
        change(opened)
    for read in (read_checkpoint, describe_checkpoint):
        with pytest.raises(InputError, match=words):
            read(file)


def test_text_objects_and_metadata_in_nodes_are_passed_over(file: Path) -> None:
    expected = list(read_checkpoint(file).tensors)
    with h5py.File(file, "r+") as opened:
        node = opened["node/nodes/fc1"]
        node["text"] = "hello"
        node.create_dataset("texts", data=["a", "b"], dtype=h5py.string_dtype())
        node.create_dataset("ragged", (2,), dtype=h5py.vlen_dtype(np.int32))
        node["complex"] = np.ones(2, np.complex64)
        node["pair"] = np.zeros(2, [("a", "f4"), ("b", "i4")])
        node["nothing"] = h5py.Empty("f4")
        node["type of its own"] = np.dtype("f4")
        node.create_dataset("reference", data=node.ref, dtype=h5py.ref_dtype)
        node["metadata/note"] = np.ones(3)
        opened["elsewhere"] = np.ones(3)
    assert list(read_checkpoint(file).tensors) == expected


def test_a_graph_cut_anywhere_is_refused(file: Path) -> None:
    data = file.read_bytes()
    for size in range(20, len(data), len(data) // 60):
        file.write_bytes(data[:size])
        with pytest.raises(InputError):
            read_checkpoint(file)


def test_no_text_is_read_since_a_broken_heap_of_texts_can_hang_hdf5(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    real = h5py.Dataset.__getitem__

    def recorded(self: Any, key: Any, **how: Any) -> Any:
        read.append(self.dtype.kind)
        return real(self, key, **how)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", recorded)
    read_checkpoint(file)
    assert set(read) == {"f", "i"}


@pytest.mark.slow
def test_flipped_bytes_end_in_an_answer(file: Path) -> None:
    data = file.read_bytes()
    answers = set()
    for position in range(8, len(data), len(data) // 300):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        file.write_bytes(changed)
        try:
            read_checkpoint(file, allow_nonfinite=True)
        except InputError:
            answers.add("refused")
        else:
            answers.add("read")
    assert answers == {"refused", "read"}


def test_reading_a_graph_takes_a_name_that_is_odd(file: Path) -> None:
    odd = file.with_name("a b\n\udce9.pth")
    file.replace(odd)
    assert read_checkpoint(odd).container == "nir"
