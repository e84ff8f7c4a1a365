"""Checkpoints in several safetensors files with an index, and indexes that must be refused."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from snnprune.checkpoint.containers import (
    describe_checkpoint,
    files_of,
    read_back,
    read_checkpoint,
    require_writable_as,
    write_like,
)
from snnprune.errors import InputError, UsageError

ONE = {"b.weight": torch.arange(6.0).reshape(2, 3), "c": torch.ones(2)}
TWO = {"a.weight": torch.full((4, 2), 0.5, dtype=torch.float16)}
MAP = {"a.weight": "two.safetensors", "b.weight": "one.safetensors", "c": "one.safetensors"}


def sharded(folder: Path, where: Any = MAP, **more: Any) -> Path:
    """The index of a checkpoint of two shards."""
    folder.mkdir(exist_ok=True)
    save_file(ONE, folder / "one.safetensors", {"format": "pt"})
    save_file(TWO, folder / "two.safetensors", {"format": "pt", "who": "them"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": where, **more}))
    return index


def test_the_tensors_of_all_shards_come_in_the_order_of_the_index(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(sharded(tmp_path))
    assert checkpoint.container == "sharded-safetensors"
    assert list(checkpoint.tensors) == ["a.weight", "b.weight", "c"]
    for key, expected in (ONE | TWO).items():
        assert torch.equal(checkpoint.tensors[key], expected)
    assert checkpoint.metadata == {"format": "pt", "who": "them"}
    assert checkpoint.notes == ()


def test_it_is_described_without_its_values(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    description = describe_checkpoint(index)
    assert [info.shape for info in description.tensors] == [(4, 2), (2, 3), (2,)]
    assert description.size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_the_hash_is_that_of_the_lines_of_sha256sum(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    names = [index.name, "one.safetensors", "two.safetensors"]
    lines = subprocess.run(
        ["sha256sum", *names], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert read_checkpoint(index).sha256 == hashlib.sha256(lines).hexdigest()
    assert [file.name for file in files_of(index)] == names


def test_prefixes_are_stripped_over_all_shards(tmp_path: Path) -> None:
    for name, tensors in (("one", ONE), ("two", TWO)):
        state = {f"module.{key}": tensor for key, tensor in tensors.items()}
        save_file(state, tmp_path / f"{name}.safetensors")
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"weight_map": {f"module.{k}": v for k, v in MAP.items()}}))
    assert list(read_checkpoint(index).tensors) == list(MAP)


def test_it_is_written_as_one_file(tmp_path: Path) -> None:
    index, out = sharded(tmp_path), tmp_path / "out.safetensors"
    require_writable_as(index, out)
    source = read_checkpoint(index)
    tensors = source.tensors | {"b.weight": ONE["b.weight"] * 0}
    write_like(source, out, tensors, {"a": "b"})
    assert load_file(out).keys() == MAP.keys()
    assert torch.equal(load_file(out)["b.weight"], torch.zeros(2, 3))
    assert list(read_back(source, out)) == list(MAP)
    with pytest.raises(UsageError, match=r"which can be written as \.safetensors"):
        require_writable_as(index, tmp_path / "out.pth")


def test_shards_may_lie_in_a_folder_below_the_index_and_links_within_it_are_fine(
    tmp_path: Path,
) -> None:
    index = sharded(tmp_path, {**MAP, "a.weight": "below/two.safetensors"})
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "two.safetensors").symlink_to(tmp_path / "two.safetensors")
    assert len(read_checkpoint(index).tensors) == 3


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({**MAP, "a.weight": "gone.safetensors"}, "the shard gone.safetensors is not there"),
        ({**MAP, "a.weight": "../two.safetensors"}, "does not lie in the folder of the index"),
        ({**MAP, "a.weight": "x/../../two.safetensors"}, "does not lie in the folder"),
        ({**MAP, "a.weight": "link.safetensors"}, "does not lie in the folder of the index"),
        ({**MAP, "a.weight": "/etc/passwd"}, "the shard /etc/passwd is an absolute path"),
        ({**MAP, "a.weight": "C:\\two.safetensors"}, "is an absolute path"),
        ({**MAP, "a.weight": "https://example.org/two.safetensors"}, "is a URL, not a file"),
        ({**MAP, "a.weight": "file:///two.safetensors"}, "is a URL, not a file"),
        ({**MAP, "a.weight": "a\0b"}, "does not lie in the folder"),
        ({**MAP, "a.weight": "below"}, "the shard below is a folder"),
        ({**MAP, "a.weight": "."}, "the shard . is a folder"),
        ({**MAP, "a.weight": "empty"}, "empty: empty file"),
        ({**MAP, "a.weight": "text"}, "text: truncated"),
        ({**MAP, "c": "two.safetensors"}, r"c is in one\.safetensors, by the index in two"),
        ({**MAP, "d": "two.safetensors"}, "weight_map: two.safetensors does not hold d"),
        (
            {k: v for k, v in MAP.items() if k != "c"},
            r"c is in one\.safetensors, by the index nowhere",
        ),
        ([["a.weight", "two.safetensors"]], "weight_map: is not a table from tensor to file"),
        ({**MAP, "c": 1}, "weight_map: is not a table"),
        (None, "weight_map: is not a table"),
        ({}, "weight_map: names no tensors"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, where: Any, words: str) -> None:
    folder = tmp_path / "folder"
    index = sharded(folder, where)
    save_file(TWO, tmp_path / "two.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "two.safetensors")
    (folder / "x").mkdir()
    (folder / "below").mkdir()
    (folder / "empty").touch()
    (folder / "text").write_text("hello")
    for read in (read_checkpoint, describe_checkpoint):
        with pytest.raises(InputError, match=words) as caught:
            read(index)
        assert caught.value.exit_code == 3


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    extra: dict[str, Tensor] = {**TWO, "c": torch.zeros(2)}
    save_file(extra, tmp_path / "two.safetensors")
    with pytest.raises(InputError, match=r"c is in two\.safetensors, by the index in one"):
        read_checkpoint(index)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"weight_map": {"a": "x", "a": "y"}}', "the index has the name 'a' twice"),
        ('{"weight_map": {"a": "x"}', "the index is not JSON"),
        ('["weight_map"]', "weight_map: is not a table"),
        ('{"weight_map": ' + "[" * 100_000, "nested too deep"),
        ('{"metadata": {}}', "is JSON text"),
    ],
    ids=["twice", "cut", "list", "deep", "no map"],
)
def test_text_that_is_no_index_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_checkpoint(tmp_path / "index.json")


def test_a_pickle_is_no_shard(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    torch.save(TWO, tmp_path / "two.safetensors")
    with pytest.raises(InputError, match=r"two\.safetensors: "):
        read_checkpoint(index)
