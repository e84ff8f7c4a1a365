"""Safetensors files that are in order: writing them, and reading ours and other people's."""

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from torch import Tensor

from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError, OutputError

COMMON = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
RARE = [
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
]


def header_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and raw(left[name]) == raw(right[name])
        for name in left
    )


@pytest.mark.parametrize("dtype", [*COMMON, *RARE], ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4), (7,)], ids=str)
def test_what_is_written_is_read_back_by_us_and_by_the_safetensors_library(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensors = {"layer.weight": (torch.rand(shape) * 9).to(dtype)}
    write_safetensors(tmp_path / "a.safetensors", tensors, {})
    assert same(read_checkpoint(tmp_path / "a.safetensors").tensors, tensors)
    assert same(safetensors.torch.load_file(tmp_path / "a.safetensors"), tensors)


def test_a_file_of_the_safetensors_library_is_read_in_its_order_with_its_text(
    tmp_path: Path,
) -> None:
    tensors = {
        "b": torch.arange(3, dtype=torch.int16),
        "a": torch.rand(2, 2, dtype=torch.float64),
        "c": torch.rand(4),
    }
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(tensors, path, {"who": "them"})
    checkpoint = read_checkpoint(path)
    assert same(checkpoint.tensors, {name: tensors[name] for name in ("a", "c", "b")})
    assert list(checkpoint.tensors) == ["a", "c", "b"]
    assert checkpoint.metadata == {"who": "them"}
    assert checkpoint.container == "safetensors"
    assert checkpoint.notes == ()


def test_keys_keep_their_order_and_so_does_the_data_where_it_stays_aligned(tmp_path: Path) -> None:
    tensors = {"z": torch.rand(4), "a": torch.rand(2, dtype=torch.float64), "m": torch.rand(1)}
    write_safetensors(tmp_path / "a", tensors, {})
    header = header_of(tmp_path / "a")
    assert list(header) == ["z", "a", "m"]
    assert [header[name]["data_offsets"] for name in header] == [[0, 16], [16, 32], [32, 36]]


def test_wider_items_lie_first_where_the_given_order_would_misalign_them(tmp_path: Path) -> None:
    tensors = {
        "byte": torch.ones(1, dtype=torch.uint8),
        "single": torch.ones(1),
        "double": torch.ones(1, dtype=torch.float64),
        "other single": torch.full((1,), 2.0),
    }
    write_safetensors(tmp_path / "a.safetensors", tensors, {})
    header = header_of(tmp_path / "a.safetensors")
    assert {name: header[name]["data_offsets"][0] for name in header} == {
        "byte": 16,
        "single": 8,
        "double": 0,
        "other single": 12,
    }
    assert list(read_checkpoint(tmp_path / "a.safetensors").tensors) == list(tensors)
    assert same(safetensors.torch.load_file(tmp_path / "a.safetensors"), tensors)


@pytest.mark.parametrize("name", ["w", "we", "wei", "weig", "weigh", "weight", "Gewicht ß", "重み"])
def test_the_data_begins_at_a_multiple_of_eight_bytes(tmp_path: Path, name: str) -> None:
    write_safetensors(tmp_path / "a", {name: torch.ones(2)}, {"n": "é"})
    data = (tmp_path / "a").read_bytes()
    assert struct.unpack("<Q", data[:8])[0] % 8 == 0
    assert data[-8:] == struct.pack("<2f", 1, 1)
    assert same(read_checkpoint(tmp_path / "a").tensors, {name: torch.ones(2)})


def test_views_and_shared_tensors_are_written_out_once_per_name(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"turned": base.T, "tied": base, "tied too": base, "part": base[:, 1]}
    write_safetensors(tmp_path / "a", tensors, {})
    assert (tmp_path / "a").stat().st_size - 8 - struct.unpack(
        "<Q", (tmp_path / "a").read_bytes()[:8]
    )[0] == 4 * (12 + 12 + 12 + 3)
    assert same(read_checkpoint(tmp_path / "a").tensors, tensors)


def test_a_parameter_with_a_gradient_is_written_by_value(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", {"w": torch.nn.Parameter(torch.ones(2, 2))}, {})
    tensor = read_checkpoint(tmp_path / "a").tensors["w"]
    assert not tensor.requires_grad
    assert tensor.tolist() == [[1, 1], [1, 1]]


def test_text_travels_with_the_tensors(tmp_path: Path) -> None:
    text = {"snnprune.version": "0.1.0", "quote": '"\\\n', "zażółć": "🦆"}
    write_safetensors(tmp_path / "a", {"w": torch.ones(1)}, text)
    assert read_checkpoint(tmp_path / "a").metadata == text
    with safetensors.safe_open(tmp_path / "a", "pt") as file:
        assert file.metadata() == text


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"z": torch.ones(2, dtype=torch.complex128)}, "z: a safetensors file cannot hold"),
        ({"__metadata__": torch.ones(2)}, "__metadata__: is a reserved name"),
    ],
    ids=["dtype", "name"],
)
def test_what_the_format_cannot_hold_is_refused_and_nothing_is_written(
    tmp_path: Path, tensors: dict[str, Tensor], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        write_safetensors(tmp_path / "a", tensors, {})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_files_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_safetensors(tmp_path / "file" / "a", {"w": torch.ones(1)}, {})


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda name: name != "__metadata__" and not name.startswith(("module.", "_orig_mod."))
)
shapes = st.lists(st.integers(0, 4), max_size=4)


@st.composite
def some_tensor(draw: st.DrawFn) -> Tensor:
    shape = draw(shapes)
    return torch.randint(0, 100, shape).to(draw(st.sampled_from([*COMMON, *RARE])))


@settings(max_examples=150, deadline=None)
@given(
    tensors=st.dictionaries(names, some_tensor(), min_size=1, max_size=8),
    metadata=st.dictionaries(names, names, max_size=3),
)
def test_any_tensors_come_back_as_they_were_written(
    tensors: dict[str, Tensor], metadata: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.safetensors"
        write_safetensors(path, tensors, metadata)
        checkpoint = read_checkpoint(path)
        theirs = safetensors.torch.load_file(path)
        header = header_of(path)
    assert same(checkpoint.tensors, tensors)
    assert same(theirs, tensors)
    assert list(checkpoint.tensors) == list(tensors)
    assert checkpoint.metadata == metadata
    for name, tensor in tensors.items():
        assert header[name]["data_offsets"][0] % tensor.itemsize == 0
