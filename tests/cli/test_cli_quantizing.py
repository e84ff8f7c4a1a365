"""`prune --bits`: weights on a grid of integers, the integers beside them, and what is refused."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from snnprune.checkpoint.mask_file import read_masks
from snnprune.errors import InputError
from snnprune.files.reading import hash_file
from snnprune.jobs.prune.pruned_model import require_exact
from snnprune.pruning.repair.quantize import IntegerWeight

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
FEW = ("--samples", 64, "--eval-samples", 64)
QUICK = (*FEW, "--no-tune", "--criterion", "magnitude", "--repair", "lsq")


@pytest.fixture
def prune(model_file: Path, run: Run, tmp_path: Path) -> Run:
    """`prune("--bits", 4)`: writes p.safetensors in the test's folder, or `out`."""

    def pruned(*flags: object, out: str = "p.safetensors") -> subprocess.CompletedProcess[str]:
        return run("prune", model_file, "-o", tmp_path / out, *flags)

    return pruned


def report(tmp_path: Path, name: str = "p") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / f"{name}.report.json").read_text())
    return found


def integers_of(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Integers and scale by weight."""
    held = load_file(path)
    keys = [key for key in held if not key.endswith(".scale")]
    assert {*held} == {*keys, *(f"{key}.scale" for key in keys)}
    return {key: (held[key], held[f"{key}.scale"]) for key in keys}


def assert_the_same(tmp_path: Path, bits: int, name: str = "p") -> dict[str, Tensor]:
    """The integers times their scales are the weights, bit for bit; what is written."""
    tensors = load_file(tmp_path / f"{name}.safetensors")
    found = integers_of(tmp_path / f"{name}.integers.safetensors")
    masks = read_masks(tmp_path / f"{name}.mask.safetensors")
    assert found.keys() == masks.keys()
    for key, (integers, scale) in found.items():
        assert integers.dtype == (torch.int8 if bits <= 8 else torch.int16)
        assert integers.abs().max() <= 2 ** (bits - 1) - 1
        assert (scale.dtype, scale.numel()) == (torch.float32, len(tensors[key]))
        assert torch.equal(integers * scale, tensors[key])
        assert torch.equal((tensors[key] / scale).round(), integers.float())
        assert not integers[~masks[key]].any()
    return tensors


@pytest.mark.many(1)
@pytest.mark.many(1)
@pytest.mark.parametrize("bits", [4, 8, 12])
def test_the_integers_beside_the_file_are_its_weights(
    prune: Run, tmp_path: Path, bits: int
) -> None:
    done = prune("--sparsity", 0.8, "--bits", bits, *QUICK)
    assert done.returncode == 0, done.stderr
    assert_the_same(tmp_path, bits)
    found = report(tmp_path)
    assert found["quantization"]["bits"] == bits
    assert found["quantization"]["per"] == "channel"
    layers = found["quantization"]["layers"]
    assert list(layers) == [row["weight"] for row in found["layers"]]
    assert all(one["lost"] <= one["lost_by_rounding"] for one in layers.values())
    assert [one["kept"] for one in layers.values()] == [row["kept"] for row in found["layers"]]
    assert f"kept weights in {bits} bits by output channel: no layer's" in done.stdout
    assert "p.mask.safetensors, p.integers.safetensors and p.report.json" in done.stdout
    names = [Path(one["path"]).name for one in found["outputs"]]
    assert names == ["p.safetensors", "p.mask.safetensors", "p.integers.safetensors"]
    for one in found["outputs"]:
        assert one["sha256"] == hash_file(tmp_path / Path(one["path"]).name)
    with safe_open(tmp_path / "p.integers.safetensors", "pt") as file:
        assert file.metadata()["snnprune.bits"] == str(bits)
        assert file.metadata()["snnprune.pruned_sha256"] == hash_file(tmp_path / "p.safetensors")


def test_without_bits_there_is_no_such_file(prune: Run, tmp_path: Path) -> None:
    done = prune("--sparsity", 0.8, *QUICK, "--no-eval")
    assert done.returncode == 0, done.stderr
    assert report(tmp_path)["quantization"] is None
    assert not (tmp_path / "p.integers.safetensors").exists()
    assert "snnprune.bits" not in (safe_open(tmp_path / "p.safetensors", "pt").metadata())


def test_what_is_measured_is_what_the_file_holds(
    prune: Run, run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    assert prune("--sparsity", 0.8, "--bits", 3, *QUICK).returncode == 0
    again = as_json(run("eval", tmp_path / "p.safetensors", "--samples", 64, "--json"))
    assert again["evaluation"]["correct"] == report(tmp_path)["after"]["correct"]
    assert again["evaluation"]["loss_sum"] == report(tmp_path)["after"]["loss_sum"]


@pytest.mark.slow
def test_tuned_weights_are_quantized_too_and_the_same_twice(prune: Run, tmp_path: Path) -> None:
    short = ("--tune-steps", 12, "--tune-images", 96, "--no-eval", "--samples", 64)
    for out in ("p.safetensors", "q.safetensors"):
        done = prune("--sparsity", 0.9, "--bits", 4, *short, out=out)
        assert done.returncode == 0, done.stderr
    tensors = assert_the_same(tmp_path, 4)
    assert report(tmp_path)["tuning"]["steps"] == 12
    other = load_file(tmp_path / "q.safetensors")
    assert all(torch.equal(tensors[key], other[key]) for key in tensors)


@pytest.mark.slow
def test_a_pattern_holds(prune: Run, tmp_path: Path) -> None:
    done = prune("--structure", "2:4", "--bits", 4, *QUICK, "--no-eval")
    assert done.returncode == 0, done.stderr
    tensors = assert_the_same(tmp_path, 4)
    groups = tensors["blocks.0.conv.weight"].movedim(1, -1).unflatten(-1, (-1, 4))
    assert ((groups != 0).sum(-1) <= 2).all()


@pytest.mark.slow
def test_channels_that_are_gone_are_gone_from_the_integers(
    prune: Run, run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    done = prune("--structure", "channels", "--sparsity", 0.5, "--bits", 8, *QUICK)
    assert done.returncode == 0, done.stderr
    tensors = assert_the_same(tmp_path, 8)
    assert len(tensors["blocks.0.conv.weight"]) < 8
    again = as_json(run("eval", tmp_path / "p.safetensors", "--samples", 64, "--json"))
    assert again["evaluation"]["correct"] == report(tmp_path)["after"]["correct"]


@pytest.mark.slow
def test_several_sparsities_have_their_integers_each(prune: Run, tmp_path: Path) -> None:
    done = prune("--sparsity", "0.5,0.8", "--bits", 4, *QUICK, "--no-eval")
    assert done.returncode == 0, done.stderr
    for name in ("p-0.5", "p-0.8"):
        assert_the_same(tmp_path, 4, name)
    assert "p-0.8.safetensors: kept weights in 4 bits" in done.stdout
    assert "each with its masks, integers and report" in done.stdout


@pytest.mark.slow
def test_a_recipe_asks_for_bits(prune: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("prune: {sparsity: 0.8, bits: 4, criterion: magnitude, repair: bn}\n")
    done = prune("--recipe", recipe, *FEW, "--no-eval")
    assert done.returncode == 0, done.stderr
    assert_the_same(tmp_path, 4)
    done = prune("--recipe", recipe, "--bits", 6, *FEW, "--no-eval", out="q.safetensors")
    assert report(tmp_path, "q")["quantization"]["bits"] == 6
    recipe.write_text("prune: {sparsity: 0.8, bits: 17}\n")
    assert_one_line(prune("--recipe", recipe, out="s.safetensors"), 3, "prune.bits")


def test_the_file_alone_is_rounded_with_a_warning(
    run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    torch.manual_seed(0)
    weights = {"a.weight": torch.randn(8, 4, 3, 3), "b.weight": torch.randn(5, 8)}
    save_file(weights, tmp_path / "bare.safetensors")
    flags = ("--sparsity", 0.5, "--bits", 8, "-o", tmp_path / "p.safetensors")
    done = run("prune", tmp_path / "bare.safetensors", *flags)
    assert done.returncode == 0, done.stderr
    tensors = assert_the_same(tmp_path, 8)
    assert "rounded to 8 bits each by itself" in done.stderr
    assert "8 bits by output channel: each rounded by itself" in done.stdout
    layers = report(tmp_path)["quantization"]["layers"]
    assert {one["reason"] for one in layers.values()} == {"there is no network"}
    for key, weight in tensors.items():
        step = weights[key].flatten(1).abs().amax(1).max() / 127
        kept = weight != 0
        assert (weight - weights[key])[kept].abs().max() <= step / 2 + 1e-6


def test_a_torch_file_in_half_precision_has_its_integers(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"a.weight": torch.randn(8, 4, 3, 3).half()}, tmp_path / "bare.pth")
    flags = ("--sparsity", 0.5, "-o", tmp_path / "p.pth")
    done = run("prune", tmp_path / "bare.pth", *flags, "--bits", 8)
    assert done.returncode == 0, done.stderr
    ((key, (integers, scale)),) = integers_of(tmp_path / "p.pth.integers.safetensors").items()
    held = torch.load(tmp_path / "p.pth", weights_only=True)[key]
    assert torch.equal((integers * scale).half(), held)


def test_a_weight_of_two_names_has_its_integers_under_both(run: Run, tmp_path: Path) -> None:
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    torch.save({"a.weight": weight, "b.weight": weight}, tmp_path / "bare.pth")
    flags = ("--sparsity", 0.5, "--bits", 4, "-o", tmp_path / "p.pth")
    done = run("prune", tmp_path / "bare.pth", *flags)
    assert done.returncode == 0, done.stderr
    found = integers_of(tmp_path / "p.pth.integers.safetensors")
    written = torch.load(tmp_path / "p.pth", weights_only=True)
    assert found.keys() == written.keys()
    for key, (integers, scale) in found.items():
        assert torch.equal(integers * scale, written[key])


def test_a_type_that_is_too_coarse_for_the_grid_is_refused() -> None:
    held = IntegerWeight(integers=torch.tensor([[30001]]).short(), scale=torch.ones(1, 1))
    require_exact({"a": held}, {"a": held.multiply()}, file=Path("x"))
    with pytest.raises(InputError, match="does not fit into float16") as caught:
        require_exact({"a": held}, {"a": held.multiply().half()}, file=Path("x"))
    assert caught.value.field == "a"


@pytest.mark.parametrize(
    ("bits", "words"), [(1, "outside 2 to 16"), (17, "outside 2 to 16"), ("8,4", "--bits")]
)
def test_a_grid_that_is_none_is_refused(
    prune: Run, tmp_path: Path, bits: object, words: str
) -> None:
    assert_one_line(prune("--sparsity", 0.5, "--bits", bits), 2, "--bits", words)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_integers_that_are_there_are_not_replaced_unasked(prune: Run, tmp_path: Path) -> None:
    beside = tmp_path / "p.integers.safetensors"
    beside.write_text("mine")
    flags = ("--sparsity", 0.8, "--bits", 4, *QUICK, "--no-eval")
    assert_one_line(prune(*flags), 5, "p.integers.safetensors", "--force")
    assert beside.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["p.integers.safetensors"]
    assert prune(*flags, "--force").returncode == 0
    assert_the_same(tmp_path, 4)


def test_the_integers_are_never_the_input(model_file: Path, run: Run, tmp_path: Path) -> None:
    given = tmp_path / "p.integers.safetensors"
    shutil.copy(model_file, given)
    done = run("prune", given, "-o", tmp_path / "p.safetensors", "--bits", 4, "--force", *QUICK)
    assert_one_line(done, 2, "--sparsity")
    flags = ("--sparsity", 0.8, "--bits", 4, "--force", *QUICK)
    done = run("prune", given, "-o", tmp_path / "p.safetensors", *flags)
    assert done.returncode in (2, 5)
    assert "p.integers.safetensors" in done.stderr


@pytest.mark.slow
def test_other_commands_take_the_file_as_any(prune: Run, run: Run, tmp_path: Path) -> None:
    assert prune("--sparsity", 0.8, "--bits", 4, *QUICK, "--no-eval").returncode == 0
    out, beside = tmp_path / "p.safetensors", tmp_path / "p.integers.safetensors"
    for command in (
        ("check", out, "--min-sparsity", 0.8),
        ("inspect", out),
        ("diff", out, out),
        ("export", out, "--to", "packed", "-o", tmp_path / "packed.safetensors"),
        ("export", out, "--to", "packed", "--values", "int8", "-o", tmp_path / "i.safetensors"),
    ):
        done = run(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert_one_line(run("inspect", beside), 3, "p.integers.safetensors")
    again = run("prune", beside, "-o", out, "--sparsity", 0.5, "--force")
    assert_one_line(again, 3, "p.integers.safetensors")
