"""`export`: what is written loads where it is meant to, and faults are told."""

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
import zstandard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from snnprune import export
from snnprune.checkpoint.packed import pack
from snnprune.checkpoint.safetensors import list_bytes, write_safetensors
from snnprune.export import measure_sizes

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
METADATA = {"snnprune.command": "prune", "who": "me"}


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    conv, fc = (torch.randn(shape, generator=drawn) for shape in ((32, 16, 3, 3), (10, 512)))
    return {
        "conv.weight": conv.masked_fill(torch.rand(conv.shape, generator=drawn) < 0.9, 0),
        "conv.bias": torch.randn(32, generator=drawn),
        "fc.weight": fc.masked_fill(torch.rand(fc.shape, generator=drawn) < 0.95, 0),
        "steps": torch.tensor(4),
    }


@pytest.fixture
def pruned(tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "pruned.safetensors"
    write_safetensors(path, tensors, METADATA)
    return path


def same(found: dict[str, Tensor], tensors: dict[str, Tensor]) -> bool:
    return list(found) == list(tensors) and all(torch.equal(found[k], tensors[k]) for k in tensors)


def test_packed_and_back_is_the_same_file(pruned: Path, run: Run, tmp_path: Path) -> None:
    packed, dense = tmp_path / "packed.safetensors", tmp_path / "dense.safetensors"
    done = run("export", pruned, "--to", "packed", "-o", packed)
    assert done.returncode == 0, done.stderr
    assert "entropy bound" in done.stdout
    assert packed.stat().st_size < pruned.stat().st_size / 5
    assert run("export", packed, "--to", "dense", "-o", dense).returncode == 0
    assert dense.read_bytes() == pruned.read_bytes()


def test_a_file_of_the_format_s_own_library_comes_back_too(
    tensors: dict[str, Tensor], run: Run, tmp_path: Path
) -> None:
    source, packed, dense = (tmp_path / f"{name}.safetensors" for name in ("s", "p", "d"))
    save_file(tensors, source, {"one": "1"})
    assert run("export", source, "--to", "packed", "-o", packed).returncode == 0
    assert run("export", packed, "--to", "dense", "-o", dense).returncode == 0
    assert dense.read_bytes() == source.read_bytes()


def test_a_packed_file_is_a_checkpoint_like_any_other(
    pruned: Path, run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    packed, again = tmp_path / "packed.safetensors", tmp_path / "again.safetensors"
    run("export", pruned, "--to", "packed", "-o", packed)
    found = as_json(run("inspect", packed, "--json"))
    assert found["container"] == "packed"
    assert found["totals"] == as_json(run("inspect", pruned, "--json"))["totals"]
    done = run("prune", packed, "--sparsity", 0.99, "-o", again)
    assert done.returncode == 0, done.stderr
    kept = load_file(again)["conv.weight"]
    assert 0 < int((kept != 0).sum()) < int((load_file(pruned)["conv.weight"] != 0).sum())


def test_pth_is_a_state_dict(
    pruned: Path, tensors: dict[str, Tensor], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "model.pth"
    assert run("export", pruned, "--to", "pth", "-o", out).returncode == 0
    assert same(torch.load(out, weights_only=True), tensors)


def test_a_torch_file_with_several_dicts_is_packed_by_the_one_that_is_named(
    tensors: dict[str, Tensor], run: Run, tmp_path: Path
) -> None:
    source, out = tmp_path / "all.pth", tmp_path / "packed.safetensors"
    other = {key: torch.zeros_like(tensor) for key, tensor in tensors.items()}
    torch.save({"model": other, "model_ema": tensors}, source)
    first = run("export", source, "--to", "packed", "-o", out)
    assert "(--state-dict chooses)" in first.stderr
    flags = ("--state-dict", "model_ema", "--to", "packed", "--force")
    assert run("export", source, *flags, "-o", out).returncode == 0
    dense = tmp_path / "dense.safetensors"
    run("export", out, "--to", "dense", "-o", dense)
    assert same(load_file(dense), tensors)


def test_csr_is_what_scipy_takes(
    pruned: Path, tensors: dict[str, Tensor], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "rows.npz"
    assert run("export", pruned, "--to", "csr", "-o", out).returncode == 0
    with np.load(out) as found:
        for key in ("conv.weight", "fc.weight"):
            shape = found[f"{key}.shape"]
            parts = tuple(found[f"{key}.{part}"] for part in ("data", "indices", "indptr"))
            rows = scipy.sparse.csr_array(parts, shape=(shape[0], int(np.prod(shape[1:]))))
            assert rows.nnz == int((tensors[key] != 0).sum())
            assert np.array_equal(rows.toarray().reshape(shape), tensors[key].numpy())
        assert np.array_equal(found["conv.bias"], tensors["conv.bias"].numpy())
        assert found["steps"] == 4


def test_sizes_are_told_and_a_lower_precision_weighs_less(
    pruned: Path, run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    found = {}
    for values in ("exact", "bfloat16", "int8"):
        out = tmp_path / f"{values}.safetensors"
        flags = ("--to", "packed", "--values", values, "-o", out, "--json")
        found[values] = as_json(run("export", pruned, *flags))
        assert found[values]["written_bytes"] == out.stat().st_size
    exact, half, whole = (found[values]["sizes"] for values in found)
    assert exact["dense"] == sum(tensor.nbytes for tensor in load_file(pruned).values())
    for sizes in (exact, half, whole):
        assert sizes["bound"] <= sizes["packed"] <= 1.05 * sizes["bound"]
    assert exact["packed"] < exact["zstd"] < exact["gzip"] < exact["dense"] / 4
    assert whole["packed"] < half["packed"] < exact["packed"]


def test_zeros_of_a_product_with_a_mask_are_told_and_need_no_room_in_float32(
    run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    source = tmp_path / "s.safetensors"
    save_file({"fc.weight": -torch.ones(100, 100) * (torch.arange(100) == 3)}, source)
    flags = ("export", source, "--to", "packed", "--json", "-o")
    exact = as_json(run(*flags, tmp_path / "e.safetensors"))
    assert "9,900 weights are -0.0" in exact["notes"][0]
    plain = as_json(run(*flags, tmp_path / "p.safetensors", "--values", "float32"))
    assert plain["notes"] == plain["warnings"] == []
    assert plain["sizes"]["packed"] < exact["sizes"]["packed"] / 20
    found = as_json(run("inspect", tmp_path / "p.safetensors", "--json"))
    assert found["totals"]["kept"] == 100


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--to", "pakced"), 2, ("--to", "did you mean packed?")),
        (("--to", "packed", "--values", "int9"), 2, ("--values", "did you mean int8?")),
        (("--to", "dense", "--values", "int8"), 2, ("--values", "choose --to packed")),
        (("--to", "csr"), 2, ("-o", "ends in .npz")),
    ],
)
def test_what_does_not_go_together_is_refused(
    flags: tuple[str, ...], code: int, words: tuple[str, ...], pruned: Path, run: Run
) -> None:
    out = pruned.with_name("out.safetensors")
    assert_one_line(run("export", pruned, *flags, "-o", out), code, *words)
    assert not out.exists()


def test_outputs_are_kept_without_force_and_are_never_the_input(pruned: Path, run: Run) -> None:
    before, other = pruned.read_bytes(), pruned.with_name("other.safetensors")
    other.write_text("mine")
    assert_one_line(run("export", pruned, "--to", "dense", "-o", other), 5, "--force")
    assert_one_line(run("export", pruned, "--to", "dense", "-o", pruned, "--force"), 5, "input")
    assert (other.read_text(), pruned.read_bytes()) == ("mine", before)
    assert run("export", pruned, "--to", "dense", "-o", other, "--force").returncode == 0


def test_what_a_format_cannot_hold_is_told_with_its_name(run: Run, tmp_path: Path) -> None:
    source, out = tmp_path / "s.safetensors", tmp_path / "o.npz"
    save_file({"fc.weight": torch.zeros(40, 40, dtype=torch.bfloat16)}, source)
    assert_one_line(
        run("export", source, "--to", "csr", "-o", out), 3, str(source), "fc.weight", "bfloat16"
    )
    large = tmp_path / "large.safetensors"
    weight = torch.zeros(64, 64)
    weight[0, 0] = 1e6
    save_file({"fc.weight": weight}, large)
    flags = ("--to", "packed", "--values", "float16", "-o", tmp_path / "p.safetensors")
    assert_one_line(run("export", large, *flags), 3, "fc.weight", "float16 cannot hold")
    assert not (tmp_path / "p.safetensors").exists()


def test_a_damaged_packed_file_is_one_line(pruned: Path, run: Run, tmp_path: Path) -> None:
    packed = tmp_path / "packed.safetensors"
    run("export", pruned, "--to", "packed", "-o", packed)
    with safe_open(packed, "pt") as file:
        table = json.loads(file.metadata()["snnprune.packed"])
    table["tensors"]["fc.weight"]["kept"] += 1
    found = load_file(packed)
    save_file(found, packed, {"snnprune.packed": json.dumps(table)})
    assert_one_line(run("inspect", packed), 3, "fc.weight")


def test_of_a_small_file_gzip_and_zstd_are_measured_on_all_of_it(
    tensors: dict[str, Tensor], pruned: Path, run: Run, tmp_path: Path, as_json: Callable[..., Any]
) -> None:
    done = run("export", pruned, "--to", "packed", "-o", tmp_path / "p.safetensors", "--json")
    sizes = as_json(done)["sizes"]
    raw = b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    assert sizes["tried"] == sizes["dense"] == len(raw)
    assert abs(sizes["gzip"] - len(gzip.compress(raw, 6))) < 64
    assert abs(sizes["zstd"] - len(zstandard.compress(raw, 19))) < 64


def test_of_a_large_file_they_are_estimated_from_all_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "PIECES", 12)  # zstd at its level 19 is slow
    drawn = torch.Generator().manual_seed(0)
    weights = {
        f"{place}.weight": torch.randn(size, generator=drawn)
        * (torch.rand(size, generator=drawn) > sparsity)
        for place, (size, sparsity) in enumerate([(150_000, 0.99), (7, 0.0), (30_001, 0.5)])
    }
    packing = pack(weights)
    sizes, exact = (
        measure_sizes(list_bytes(weights.values()), packing, whole=whole)
        for whole in (2**18, 2**30)
    )
    assert sizes.estimated
    assert not exact.estimated
    assert sizes.dense == exact.dense == 4 * 180_008
    assert sizes.tried == 12 * 2**15
    assert sizes.gzip == pytest.approx(exact.gzip, rel=0.1)
    assert sizes.zstd == pytest.approx(exact.zstd, rel=0.1)
    assert (sizes.packed, sizes.bound) == (exact.packed, exact.bound)


def test_exact_sizes_are_those_of_all_of_a_large_file(
    tensors: dict[str, Tensor],
    pruned: Path,
    run: Run,
    tmp_path: Path,
    as_json: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("snnprune.jobs.export.WHOLE", 20_000)
    monkeypatch.setattr(export, "PIECE", 64)
    monkeypatch.setattr(export, "STEP", 1000)
    flags = ("export", pruned, "--to", "packed", "--force", "-o", tmp_path / "p.safetensors")
    sampled = as_json(run(*flags, "--json"))["sizes"]
    assert sampled["tried"] == 64 * export.PIECES < sampled["dense"]
    assert "zstd, estimated" in run(*flags).stdout
    sizes = as_json(run(*flags, "--exact-sizes", "--json"))["sizes"]
    raw = b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    assert sizes["tried"] == sizes["dense"] == len(raw)
    assert abs(sizes["gzip"] - len(gzip.compress(raw, 6))) < 64
    assert abs(sizes["zstd"] - len(zstandard.compress(raw, 19))) < 64
    assert (sizes["packed"], sizes["bound"]) == (sampled["packed"], sampled["bound"])
    assert "estimated" not in run(*flags, "--exact-sizes").stdout


def test_a_table_says_what_is_estimated(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "large.safetensors"
    write_safetensors(path, {"fc.weight": torch.eye(2100)}, METADATA)
    done = run("export", path, "--to", "packed", "-o", tmp_path / "p.safetensors")
    assert done.returncode == 0, done.stderr
    assert "gzip, estimated" in done.stdout
    assert "zstd, estimated" in done.stdout
