"""What is in a file, told without reading its values."""

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from pace import pace

from snnprune.checkpoint.containers import HEAD, TensorInfo, describe_checkpoint, read_checkpoint
from snnprune.checkpoint.safetensors import write_safetensors

STATE = {
    "conv.weight": torch.ones(4, 2, 3, 3),
    "steps": torch.tensor(3),
    "fc.weight": torch.ones(2, 4, dtype=torch.bfloat16),
}
EXPECTED = (
    TensorInfo(name="conv.weight", dtype="float32", shape=(4, 2, 3, 3)),
    TensorInfo(name="steps", dtype="int64", shape=()),
    TensorInfo(name="fc.weight", dtype="bfloat16", shape=(2, 4)),
)


def test_a_safetensors_file_is_described_with_its_text(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, STATE, {"snnprune.model": "conv-snn"})
    description = describe_checkpoint(path)
    assert description.tensors == EXPECTED
    assert description.container == "safetensors"
    assert description.metadata == {"snnprune.model": "conv-snn"}
    assert description.size_bytes == len(path.read_bytes())
    assert description.notes == ()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_torch_file_is_described_by_the_keys_it_will_be_read_under(
    tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "a.pth"
    state = {f"module.{name}": tensor for name, tensor in STATE.items()}
    torch.save({"net": state}, path, _use_new_zipfile_serialization=zipped)
    description = describe_checkpoint(path)
    assert description.tensors == EXPECTED
    assert description.container == "torch"
    assert description.metadata == {}
    assert description.notes == (
        "read the tensors under net",
        "stripped the prefix module. from 3 keys",
    )


def test_a_terabyte_is_described_from_its_header_alone(tmp_path: Path) -> None:
    size = 2**40
    entry = {"dtype": "F32", "shape": [2**20, 2**18], "data_offsets": [0, size]}
    header = json.dumps({"w": entry}).encode().ljust(HEAD)
    with (tmp_path / "huge").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)  # a hole: it takes no room on the disk
    description = describe_checkpoint(tmp_path / "huge")
    assert description.tensors[0].shape == (2**20, 2**18)
    assert description.size_bytes == 8 + len(header) + size


@pytest.mark.slow
def test_thirty_thousand_tensors_take_seconds(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    tensors = {f"block.{index}.weight": torch.full((2, 2), 1.0) for index in range(30_000)}
    began = time.process_time()
    write_safetensors(path, tensors, {"text": "x" * 4_000_000})
    assert len(describe_checkpoint(path).tensors) == 30_000
    assert list(read_checkpoint(path).tensors) == list(tensors)
    assert time.process_time() - began < 15 * pace()


def test_a_name_of_seventy_thousand_letters_works(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "long", {"w" * 70_000: torch.ones(2, 2)}, {})
    assert describe_checkpoint(tmp_path / "long").tensors[0].name == "w" * 70_000
