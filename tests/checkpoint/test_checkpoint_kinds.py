"""Tensors of other kinds, as weights and beside them: kept as they are and named, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from snnprune.checkpoint.checkpoint import find_prunable_weights
from snnprune.checkpoint.containers import read_checkpoint
from snnprune.cli.commands import make_app
from snnprune.errors import InputError


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"conv.weight": torch.randn(8, 3, 3, 3), "fc.weight": torch.randn(10, 16)}


def quantised(x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x, 0.01, 0, torch.qint8)


def by_channel(x: Tensor) -> Tensor:
    zero = torch.zeros(len(x), dtype=torch.long)
    return torch.quantize_per_channel(x, torch.full((len(x),), 0.01), zero, 0, torch.qint8)


class Subclass(Tensor):
    """A class of somebody's own."""


KINDS: dict[str, Any] = {
    "quantised": quantised,
    "quantised by channel": by_channel,
    "sparse": lambda x: x.to_sparse(),
    "sparse rows": lambda x: x.flatten(1).to_sparse_csr(),
    "nested": lambda x: torch.nested.nested_tensor([x[0], x[1]]),
    "without values": lambda x: x.to("meta"),
    "4-bit floats": lambda x: x.to(torch.uint8).view(torch.float4_e2m1fn_x2),
    "subclass": lambda x: x.clone().as_subclass(Subclass),
}
PLAIN: dict[str, Any] = {
    "complex": lambda x: x.to(torch.complex64),
    "int8": lambda x: x.to(torch.int8),
    "bool": lambda x: x > 0,
    "unsigned": lambda x: x.abs().to(torch.uint16),
}


def run(*command: object, code: int = 0) -> str:
    result = CliRunner().invoke(make_app(), [str(part) for part in command])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def bits(path: Path, key: str) -> object:
    """What a file has under a key, as bytes."""
    held = torch.load(path, weights_only=False)[key]
    if isinstance(held, Tensor) and held.is_quantized:
        return held.int_repr().tolist()
    if isinstance(held, Tensor) and held.layout is not torch.strided:
        return held.to_dense().tolist()
    if held.is_nested:
        return [part.tolist() for part in held.unbind()]
    if held.is_meta:
        return held.shape
    return bytes(held.as_subclass(Tensor).contiguous().view(-1).view(torch.uint8).numpy())


@pytest.mark.many(2)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("key", ["fc.weight", "beside"])
@pytest.mark.parametrize("kind", [*KINDS, *PLAIN])
def test_a_tensor_of_another_kind_is_copied_through_a_torch_file(
    kind: str, key: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "b.pth"
    state = weights()
    torch.save({**state, key: {**KINDS, **PLAIN}[kind](state["fc.weight"])}, path)
    told = run("inspect", path)
    pruned = run("prune", path, "--sparsity", "0.5", "-o", out)
    run("diff", path, path)
    if kind in KINDS:
        assert "tensors of other kinds are left alone: " + key in told
    if kind in ("complex", "int8", "bool") and key == "fc.weight":
        assert "not taken for weights of layers: fc.weight (" in told
    conv = torch.load(out, weights_only=False)["conv.weight"]
    assert int((conv == 0).sum()) == (108 if key == "fc.weight" else pytest.approx(188, abs=188))
    assert bits(out, key) == bits(path, key)
    assert "this is a bug" not in pruned


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", [*KINDS])
def test_what_safetensors_cannot_hold_is_refused_before_a_file_is_there(
    kind: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "b.safetensors"
    torch.save({**weights(), "beside": KINDS[kind](weights()["fc.weight"])}, path)
    with pytest.raises(InputError, match=r"beside: a tensor that is .* has no place in a"):
        CliRunner().invoke(
            make_app(),
            ["prune", str(path), "--sparsity", "0.5", "-o", str(out)],
            catch_exceptions=False,
        )
    assert not out.exists()


def test_a_mask_of_infinities_is_a_warning_and_a_weight_of_them_is_not(tmp_path: Path) -> None:
    mask = torch.full((4, 4), float("-inf")).triu(1)
    torch.save({**weights(), "attn.mask": mask, "observer.min_val": torch.tensor(float("inf"))},
               tmp_path / "a.pth")  # fmt: skip
    notes = read_checkpoint(tmp_path / "a.pth").notes
    assert any(note.startswith("attn.mask: 6 values NaN or infinite") for note in notes)
    assert any(note.startswith("observer.min_val: 1 value NaN or infinite") for note in notes)
    for key in ("fc.weight", "fc.bias", "bn.running_mean", "bn.running_var"):
        torch.save({**weights(), key: torch.full((4, 4), float("nan"))}, tmp_path / "b.pth")
        with pytest.raises(InputError, match=f"{key}: 16 values NaN"):
            read_checkpoint(tmp_path / "b.pth")


def test_scales_of_a_layer_norm_and_embeddings_are_no_weights_of_layers(tmp_path: Path) -> None:
    modules = {
        "norm": nn.LayerNorm((4, 5)),
        "plain": nn.Linear(4, 5),
        "bare": nn.Conv2d(2, 3, 3, bias=False),
        "token_embed": nn.Embedding(7, 4),
        "embedding": nn.Embedding(3, 4),
        "member": nn.Linear(2, 2),
    }
    state = nn.ModuleDict(modules).state_dict()
    assert find_prunable_weights(state) == ("plain.weight", "bare.weight", "member.weight")
    torch.save(state, tmp_path / "a.pth")
    (note,) = [n for n in read_checkpoint(tmp_path / "a.pth").notes if "not taken" in n]
    assert "norm.weight (its bias has the same shape: a normalisation)" in note
    assert "token_embed.weight (an embedding by its name)" in note


def test_a_weight_without_its_mask_is_named(tmp_path: Path) -> None:
    torch.save({**weights(), "other.weight_orig": torch.ones(2, 2)}, tmp_path / "a.pth")
    notes = read_checkpoint(tmp_path / "a.pth").notes
    expected = "not taken for weights of layers: other.weight_orig (its mask is not there)"
    assert expected in notes
