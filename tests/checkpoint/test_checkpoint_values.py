"""Values that no trained network has."""

import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from snnprune.checkpoint.checkpoint import find_prunable_weights, is_finite
from snnprune.checkpoint.containers import read_checkpoint
from snnprune.checkpoint.naming import find_saved_states, is_prunable
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError

NAN = float("nan")
INF = float("inf")


def written(path: Path, **tensors: Tensor) -> Path:
    write_safetensors(path, {name.replace("_", "."): t for name, t in tensors.items()}, {})
    return path


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2],
    ids=str,
)
def test_values_that_are_not_finite_are_counted_and_the_first_is_named(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    weight = torch.tensor([[1.0, 2.0, NAN], [INF, 5.0, -INF]]).to(dtype)
    path = written(tmp_path / "a", fc_weight=weight)
    with pytest.raises(
        InputError, match=r"fc\.weight: 3 values NaN or infinite, the first at flat index 2"
    ):
        read_checkpoint(path)


def test_an_8_bit_float_that_has_no_infinity_is_counted_too(tmp_path: Path) -> None:
    weight = torch.tensor([[1.0, NAN, 2.0], [3.0, 4.0, NAN]]).to(torch.float8_e4m3fn)
    with pytest.raises(InputError, match=r"2 values NaN or infinite, the first at flat index 1"):
        read_checkpoint(written(tmp_path / "a", fc_weight=weight))


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
        torch.float8_e8m0fnu,
    ],
    ids=str,
)
def test_each_8_bit_float_is_finite_where_python_says_so(dtype: torch.dtype) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(dtype)
    assert is_finite(every).tolist() == [math.isfinite(value) for value in every.tolist()]
    assert not is_finite(every).all()


def test_values_that_are_not_finite_can_be_allowed_and_are_noted(tmp_path: Path) -> None:
    path = written(tmp_path / "a", fc_weight=torch.tensor([1.0, NAN]))
    checkpoint = read_checkpoint(path, allow_nonfinite=True)
    assert checkpoint.tensors["fc.weight"].isnan().tolist() == [False, True]
    assert checkpoint.notes == ("fc.weight: 1 value NaN or infinite, the first at flat index 1",)


def test_a_variance_that_is_not_finite_is_never_allowed(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", {"bn.running_var": torch.tensor([1.0, INF])}, {})
    with pytest.raises(InputError, match=r"bn.running_var: 1 value NaN or infinite"):
        read_checkpoint(tmp_path / "a", allow_nonfinite=True)


def test_a_negative_variance_is_refused_and_a_negative_mean_is_not(tmp_path: Path) -> None:
    state = {"bn.running_mean": torch.tensor([-1.0]), "bn.running_var": torch.tensor([0.5])}
    write_safetensors(tmp_path / "good", state, {})
    assert read_checkpoint(tmp_path / "good").notes == ()
    write_safetensors(tmp_path / "bad", {**state, "bn.running_var": torch.tensor([2.0, -0.5])}, {})
    with pytest.raises(InputError, match=r"bn.running_var: a variance is negative \(-0.5\)"):
        read_checkpoint(tmp_path / "bad")


def test_a_variance_of_0_is_noted(tmp_path: Path) -> None:
    state = {"bn.running_mean": torch.zeros(3), "bn.running_var": torch.tensor([0.0, 1.0, 0.0])}
    write_safetensors(tmp_path / "a", state, {})
    [note] = read_checkpoint(tmp_path / "a").notes
    assert note == "variance 0, as of channels that never change: bn.running_var (2 of 3)"


def test_layers_of_zeros_are_noted_and_biases_and_counters_are_not(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a",
        one_weight=torch.zeros(2, 2),
        two_weight=torch.zeros(2, 2, dtype=torch.bfloat16),
        bias=torch.zeros(2),
        lif_v=torch.zeros(2, 2),
        table=torch.zeros(2, 2, dtype=torch.int64),
        none=torch.zeros(0, 2),
        some=torch.eye(2),
    )
    assert read_checkpoint(path).notes == ("2 tensors all zero: one.weight, two.weight",)


def test_many_layers_of_zeros_are_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a", **{f"{name}_weight": torch.zeros(1, 1) for name in "abcdefg"})
    assert read_checkpoint(path).notes == (
        "7 tensors all zero: a.weight, b.weight, c.weight, d.weight, e.weight and 2 more",
    )


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("fc.weight", torch.ones(2, 3), True),
        ("weight", torch.ones(2, 3), True),
        ("conv.weight", torch.ones(2, 3, 1, 1), True),
        ("conv3d.weight", torch.ones(2, 3, 1, 1, 1), True),
        ("half.weight", torch.ones(2, 3, dtype=torch.float16), True),
        ("bn.weight", torch.ones(2), False),
        ("six.weight", torch.ones(1, 1, 1, 1, 1, 1), False),
        ("fc.bias", torch.ones(2, 3), False),
        ("fc.weight_mask", torch.ones(2, 3), False),
        ("int8.weight", torch.ones(2, 3, dtype=torch.int8), False),
        ("bool.weight", torch.ones(2, 3, dtype=torch.bool), False),
    ],
)
def test_prunable_are_floating_weights_of_two_to_five_dims(
    name: str, tensor: Tensor, expected: bool
) -> None:
    assert is_prunable(name, tensor) is expected


def test_prunable_weights_come_in_the_order_of_the_file() -> None:
    tensors = {"z.weight": torch.ones(2, 2), "b": torch.ones(2), "a.weight": torch.ones(2, 2)}
    assert find_prunable_weights(tensors) == ("z.weight", "a.weight")


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("lif1.mem", torch.zeros(128, 20), True),  # snnTorch 0.8, batch of 128
        ("lif1.syn", torch.ones(128, 20), True),
        ("1.v_mem", torch.zeros(4, 8, 3, 3), True),  # sinabs after a batch of 4
        ("1.i_syn", torch.ones(4, 8), True),
        ("mem", torch.ones(3), True),
        ("1.v_mem", torch.zeros(1), False),  # sinabs as built
        ("lif1.mem", torch.tensor(0.0), False),
        ("lif1.mem", torch.zeros(0), False),
        ("mem.weight", torch.ones(3, 3), False),
        ("lif1.min_v_mem", torch.ones(3, 3), False),
        ("lif1.mem", torch.ones(3, 3, dtype=torch.int64), False),
    ],
)
def test_a_saved_state_is_a_membrane_or_current_with_the_shape_of_a_batch(
    tmp_path: Path, name: str, tensor: Tensor, expected: bool
) -> None:
    assert find_saved_states({name: tensor}) == ((name,) if expected else ())
    path = tmp_path / "a"
    write_safetensors(path, {name: tensor, "b": torch.ones(1)}, {})
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.tensors) == [name, "b"]
    note = f"1 neuron state of a batch saved with the weights: {name}"
    assert checkpoint.notes == ((note,) if expected else ())


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
        torch.float8_e8m0fnu,
    ],
    ids=str,
)
def test_weights_of_8_bit_floats_are_left_alone_and_named(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, dtype: torch.dtype
) -> None:
    tiny = torch.rand(8, 8).add(0.1).to(dtype)
    save_file({"a.weight": torch.randn(8, 8), "b.weight": tiny}, tmp_path / "x.safetensors")
    out = tmp_path / "p.safetensors"
    done = run("prune", tmp_path / "x.safetensors", "--sparsity", 0.5, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "1 weight of 8-bit floats left alone: b.weight" in done.stderr
    found = read_checkpoint(out).tensors
    assert torch.equal(found["b.weight"].view(torch.uint8), tiny.view(torch.uint8))
    assert int((found["a.weight"] == 0).sum()) == 32
    packed = tmp_path / "k.safetensors"
    assert run("export", out, "--to", "packed", "-o", packed).returncode == 0
