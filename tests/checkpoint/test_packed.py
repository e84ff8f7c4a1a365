"""Packed files: bit for bit the tensors that went in, near the entropy, and hard to fool."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from snnprune.checkpoint import packing
from snnprune.checkpoint.containers import describe_checkpoint, read_checkpoint
from snnprune.checkpoint.header import PACKED
from snnprune.checkpoint.packed import pack
from snnprune.checkpoint.packing import count_entropy_bits, encode
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError

SHAPE = (64, 32, 3, 3)


def sparse(
    sparsity: float, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float32
) -> Tensor:
    drawn = torch.Generator().manual_seed(int(1000 * sparsity))
    weight = torch.randn(shape, generator=drawn)
    gone = torch.rand(shape, generator=drawn) < sparsity
    return weight.masked_fill(gone, 0).to(dtype)


def bits(tensor: Tensor) -> Tensor:
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(words[tensor.itemsize])


def through_a_file(tensors: dict[str, Tensor], path: Path, **how: Any) -> dict[str, Tensor]:
    pack(tensors, **how).write(path, {"snnprune.version": "1"})
    found = read_checkpoint(path, allow_nonfinite=True)
    assert found.container == "packed"
    assert found.metadata == {"snnprune.version": "1"}
    return found.tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.99])
def test_what_comes_back_is_bit_for_bit_what_went_in(
    sparsity: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    weight = sparse(sparsity, dtype=dtype)
    back = through_a_file({"a.weight": weight, "a.bias": torch.ones(3)}, tmp_path / "p.safetensors")
    assert list(back) == ["a.weight", "a.bias"]
    assert back["a.weight"].dtype == dtype
    assert torch.equal(bits(back["a.weight"]), bits(weight))
    assert torch.equal(back["a.bias"], torch.ones(3))


def test_every_bit_pattern_of_a_float_survives(tmp_path: Path) -> None:
    odd = [-0.0, math.nan, -math.inf, math.inf, 1e-45, -1e-45, 3.4e38]
    weight = torch.zeros(50, 40)
    weight[7, :7] = torch.tensor(odd)
    weight[0, 0] = weight[-1, -1] = -0.0
    back = through_a_file({"weight": weight}, tmp_path / "p.safetensors")["weight"]
    assert torch.equal(bits(back), bits(weight))


@pytest.mark.parametrize(
    "kept", [[], [0], [999], [0, 999], [*range(1000)], [500, 501], [3, 10, 400, 998]]
)
def test_positions_at_the_ends_and_all_or_none(kept: list[int], tmp_path: Path) -> None:
    weight = torch.zeros(1000)
    weight[kept] = torch.arange(1.0, len(kept) + 1)
    packing = pack({"weight": weight.view(10, 100), "other": torch.ones(2)})
    assert ("weight" in packing.table) == (len(kept) < 1000)
    back = through_a_file({"w": weight.view(10, 100), "o": torch.ones(2)}, tmp_path / "p")
    assert torch.equal(back["w"].flatten(), weight)


@pytest.mark.parametrize("precision", ["exact", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("sparsity", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98])
def test_a_packed_tensor_is_within_five_percent_of_its_entropy(
    sparsity: float, precision: str
) -> None:
    weight = sparse(sparsity, (128, 64, 3, 3))
    packing = pack({"weight": weight}, precision=precision, lossy=("weight",))
    share = float((weight != 0).float().mean())
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    width = {"exact": 32, "float16": 16, "bfloat16": 16, "int8": 8}[precision]
    scales = 4 * len(weight) if precision == "int8" else 0
    bound = weight.numel() * (entropy + share * width) / 8 + scales
    assert packing.bound == pytest.approx(bound, rel=1e-3)  # all choices, or each by itself
    assert bound < packing.count_bytes() < 1.05 * bound


def test_the_bound_is_of_what_stays_dense_too() -> None:
    small = sparse(0.5, (8, 8))
    packing = pack({"small": small, "dense": torch.ones(3, 5)})
    assert packing.table == {}
    kept = int((small != 0).sum())
    places = math.log2(math.comb(64, kept)) / 8
    assert packing.bound == pytest.approx(4 * kept + places + 4 * 15)
    assert packing.count_bytes() == 4 * (64 + 15)


@pytest.mark.parametrize("sparsity", [0.5, 0.65, 0.8, 0.95, 0.99, 0.999])
def test_positions_alone_are_within_five_percent_of_their_entropy(sparsity: float) -> None:
    kept = (sparse(sparsity, (400_000,)) != 0).numpy()
    least = count_entropy_bits(int(kept.sum()), len(kept)) / 8
    assert least <= encode(np.flatnonzero(kept)).nbytes < 1.05 * least


def test_the_entropy_is_the_logarithm_of_the_number_of_choices() -> None:
    for size, kept in [(10, 3), (60, 30), (5, 0), (5, 5)]:
        assert count_entropy_bits(kept, size) == pytest.approx(math.log2(math.comb(size, kept)))


def coded_bit_by_bit(places: list[int], low: int) -> tuple[bytes, bytes]:
    """Rice's code, as the documentation has it."""
    lowest, unary, before = list[int](), list[int](), -1
    for place in places:
        gap, before = place - before - 1, place
        lowest += [gap >> bit & 1 for bit in range(low)]
        unary += [0] * (gap >> low) + [1]

    def in_bytes(bits: list[int]) -> bytes:
        value = sum(bit << number for number, bit in enumerate(bits))
        return value.to_bytes(-(-len(bits) // 8), "little")

    return in_bytes(lowest), in_bytes(unary)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("chunk", [8, 40, 2**15])
def test_positions_are_coded_bit_by_bit_and_as_short_as_can_be(
    share: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "CHUNK", chunk)
    for seed in range(3):
        drawn = np.random.default_rng(seed)
        places = np.flatnonzero(drawn.random(2000 + seed) < share)
        found = encode(places)
        assert (found.lowest.tobytes(), found.unary.tobytes()) == coded_bit_by_bit(
            places.tolist(), found.low
        )
        bits = [
            len(places) * (1 + low) + sum(gap >> low for gap in np.diff(places, prepend=-1) - 1)
            for low in range(16)
        ]
        assert found.low == bits.index(min(bits))


def by_hand(raw: bytes, entry: dict[str, Any]) -> list[float]:
    """Unpacked as the documentation has it, one bit after the other."""
    size, kept, low = math.prod(entry["shape"]), entry["kept"], entry["low"]
    values = np.frombuffer(raw[: 4 * kept], dtype="<f4")
    first = 4 * kept
    second = first + -(-kept * low // 8)

    def bit(start: int, number: int) -> int:
        return raw[start + number // 8] >> (number % 8) & 1

    found, place, at = [0.0] * size, -1, 0
    for index in range(kept):
        quotient = 0
        while not bit(second, at):
            quotient, at = quotient + 1, at + 1
        at += 1
        lowest = sum(bit(first, index * low + one) << one for one in range(low))
        place += (quotient << low) + lowest + 1
        found[place] = float(values[index])
    return found


def test_the_format_is_as_documented(tmp_path: Path) -> None:
    weight, path = sparse(0.9, (12, 50)), tmp_path / "p.safetensors"
    pack({"weight": weight}).write(path, {})
    with safe_open(path, "np") as file:
        table = json.loads(file.metadata()[PACKED])
        raw = file.get_tensor("weight").tobytes()
    assert table["format"] == 1
    assert by_hand(raw, table["tensors"]["weight"]) == weight.flatten().tolist()


def test_int8_is_within_half_a_step_of_its_channel_and_other_tensors_are_exact(
    tmp_path: Path,
) -> None:
    weight, bias = sparse(0.8), sparse(0.5, (1000,))
    weight[3] = 0  # a channel without a value
    weight[4] *= 1000
    tensors = {"weight": weight, "bias": bias}
    back = through_a_file(tensors, tmp_path / "p", precision="int8", lossy=("weight",))
    step = weight.flatten(1).abs().amax(1) / 127
    error = (back["weight"] - weight).flatten(1).abs().amax(1)
    assert (error <= step / 2 * (1 + 1e-5)).all()
    assert ((back["weight"] != 0) <= (weight != 0)).all()
    assert torch.equal(back["bias"], bias)


@pytest.mark.parametrize(("precision", "dtype"), [("float16", torch.float16), ("bfloat16", None)])
def test_half_precision_rounds_as_torch_does(
    precision: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    weight = sparse(0.8)
    back = through_a_file({"w": weight}, tmp_path / "p", precision=precision, lossy=("w",))["w"]
    assert back.dtype == torch.float32
    assert torch.equal(back, weight.to(dtype or torch.bfloat16).float())


@pytest.mark.parametrize(("precision", "value"), [("float16", 1e5), ("int8", math.inf)])
def test_a_value_that_the_precision_cannot_hold_is_refused(precision: str, value: float) -> None:
    weight = sparse(0.8)
    weight[5, 5] = value
    with pytest.raises(InputError, match=f"{precision} cannot hold"):
        pack({"w": weight}, precision=precision, lossy=("w",))


def test_what_would_not_get_smaller_is_left_as_it_is() -> None:
    tensors = {
        "dense": torch.randn(50, 50),
        "small": torch.zeros(4, 4),
        "count": torch.zeros(1000, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
    }
    packing = pack(tensors)
    assert packing.table == {}
    assert packing.stored == tensors


def test_the_outline_tells_shapes_and_dtypes_without_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    pack({"w": sparse(0.9, dtype=torch.float16), "b": torch.ones(3)}).write(path, {})
    found = describe_checkpoint(path)
    assert found.container == "packed"
    assert [(t.name, t.dtype, t.shape) for t in found.tensors] == [
        ("w", "float16", SHAPE),
        ("b", "float32", (3,)),
    ]


def test_unpacked_and_written_again_the_file_is_the_one_that_was_packed(tmp_path: Path) -> None:
    metadata = {"snnprune.command": "prune", "who": "me"}
    tensors = {"z": torch.randn(7), "w": sparse(0.9), "a": torch.randn(5).half()}
    dense, packed, again = (tmp_path / name for name in ("dense", "packed", "again"))
    write_safetensors(dense, tensors, metadata)
    before = read_checkpoint(dense)
    pack(before.in_file(before.tensors)).write(packed, before.metadata)
    found = read_checkpoint(packed)
    write_safetensors(again, found.in_file(found.tensors), found.metadata)
    assert again.read_bytes() == dense.read_bytes()
    assert packed.stat().st_size < dense.stat().st_size / 4
    assert torch.equal(load_file(again)["w"], tensors["w"])


def entry_of(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()[PACKED])


Change = Callable[[dict[str, Tensor], dict[str, Any]], None]


def set_in_entry(key: str, value: object) -> Change:
    def change(_: dict[str, Tensor], table: dict[str, Any]) -> None:
        table["tensors"]["w"][key] = value

    return change


def shortened(by: int) -> Change:
    def change(tensors: dict[str, Tensor], _: dict[str, Any]) -> None:
        tensors["w"] = tensors["w"][:-by].clone()

    return change


def with_unary(byte: int) -> Change:
    def change(tensors: dict[str, Tensor], _: dict[str, Any]) -> None:
        tensors["w"][-40:] = byte

    return change


LIES: list[tuple[Change, str]] = [
    (set_in_entry("kept", 3), "positions of its values are"),
    (set_in_entry("kept", 10**9), "does not fit its entry"),
    (set_in_entry("kept", -1), "does not fit its entry"),
    (set_in_entry("kept", True), "does not fit its entry"),
    (set_in_entry("low", 41), "positions of its values|fewer bytes"),
    (set_in_entry("low", -1), "does not fit its entry"),
    (set_in_entry("low", 0), "positions of its values"),
    (set_in_entry("dtype", "I32"), "does not fit its entry"),
    (set_in_entry("dtype", "X"), "does not fit its entry"),
    (set_in_entry("values", "int4"), "does not fit its entry"),
    (set_in_entry("shape", [2**20, 2**20]), "claim to hold"),
    (set_in_entry("shape", [64, 32, 3]), "lie outside the tensor|does not fit"),
    (set_in_entry("shape", "x"), "does not fit its entry"),
    (set_in_entry("more", 1), "does not fit its entry"),
    (shortened(2000), "fewer bytes|positions of its values"),
    (shortened(30), "positions of its values are"),
    (with_unary(0), "positions of its values are"),
    (with_unary(255), "positions of its values"),
    (lambda _, table: table["tensors"].update(v=table["tensors"]["w"]), "does not fit"),
    (lambda _, table: table.update(format=2), "is of format 2, this snnprune reads 1"),
    (lambda _, table: table.update(tensors=[]), "is not a table"),
]


@pytest.mark.parametrize(("change", "words"), LIES, ids=[str(n) for n in range(len(LIES))])
def test_a_table_that_lies_is_refused(change: Change, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    pack({"w": sparse(0.95), "b": torch.ones(3)}).write(path, {})
    tensors, table = entry_of(path)
    change(tensors, table)
    save_file(tensors, path, {PACKED: json.dumps(table)})
    with pytest.raises(InputError, match=words):
        read_checkpoint(path)


def test_a_table_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"w": torch.ones(3)}, path, {PACKED: "{"})
    with pytest.raises(InputError, match="is not JSON"):
        read_checkpoint(path)
