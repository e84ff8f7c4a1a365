"""A torch file written again with pruned weights: all else is what it was."""

import collections
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import prune

from snnprune.checkpoint.checkpoint import Checkpoint, fold_masks, strip_prefix
from snnprune.checkpoint.containers import (
    read_back,
    read_checkpoint,
    require_writable_as,
    write_like,
)
from snnprune.errors import InputError, OutputError, UsageError

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def saved(path: Path, value: Any, *, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def halved(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors, the first half of every matrix and kernel 0."""
    tensors = {key: tensor.clone() for key, tensor in checkpoint.tensors.items()}
    for tensor in tensors.values():
        if tensor.dim() > 1:
            tensor.flatten()[: tensor.numel() // 2] = 0
    return tensors


def pruned(path: Path, out: Path, **how: Any) -> tuple[Any, dict[str, Tensor], tuple[str, ...]]:
    """What torch.load finds in the file written, what was put in, and the notes."""
    source = read_checkpoint(path, **how)
    tensors = halved(source)
    notes = write_like(source, out, tensors, {"snnprune.version": "0"})
    back = read_back(source, out)
    assert list(back) == list(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)
    return torch.load(out, weights_only=True), source.in_file(tensors), notes


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


@FORMATS
def test_a_bare_state_dict_is_a_drop_in(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path / "a.pth", net().state_dict(), zipped=zipped)
    loaded, expected, notes = pruned(path, tmp_path / "b.pth")
    assert type(loaded) is collections.OrderedDict
    assert loaded._metadata == net().state_dict()._metadata  # type: ignore[attr-defined]
    assert equal(loaded, expected)
    fresh = net()
    fresh.load_state_dict(loaded)
    assert torch.count_nonzero(fresh.state_dict()["3.weight"]) == 24
    assert notes == ()
    assert (tmp_path / "b.pth").read_bytes()[:2] == path.read_bytes()[:2]  # zip or not


plain: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=5),
    st.floats(allow_nan=False),
)  # fmt: skip
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=60)
@given(beside=st.dictionaries(st.text(max_size=5), nested, max_size=4), zipped=st.booleans())
def test_anything_plain_beside_the_weights_comes_back(beside: dict[str, Any], zipped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        value = {**beside, "net": {"w.weight": torch.ones(2, 2)}}
        path = saved(Path(folder) / "a.pth", value, zipped=zipped)
        loaded, expected, _ = pruned(path, Path(folder) / "b.pth", entry="net")
    assert equal(loaded.pop("net"), expected)
    value.pop("net")
    assert loaded == value
    assert repr(loaded) == repr(value)  # types and order too


@FORMATS
def test_what_a_trainer_saved_beside_the_weights_stays(tmp_path: Path, zipped: bool) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    value = {
        "epoch": 7,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"last_epoch": 7, "_last_lr": [0.1]},
        "max_test_acc1": 93.25,
    }
    path = saved(tmp_path / "a.pth.tar", value, zipped=zipped)
    before = path.read_bytes()
    loaded, expected, notes = pruned(path, tmp_path / "b.tar")
    assert list(loaded) == list(value)
    assert equal(loaded["model"], expected)
    again = torch.load(path, weights_only=True)
    for key in ("epoch", "lr_scheduler", "max_test_acc1"):
        assert loaded[key] == again[key]
    moments = loaded["optimizer"]["state"][0]
    assert torch.equal(moments["exp_avg"], again["optimizer"]["state"][0]["exp_avg"])
    optimizer.load_state_dict(loaded["optimizer"])
    assert notes == ("the optimizer's state is as it was, also of weights that are pruned now",)
    assert path.read_bytes() == before


def test_only_the_chosen_state_dict_is_pruned(tmp_path: Path) -> None:
    model = net()
    # tensors that both dicts share, as trainers do who forget to copy
    value = {"model": model.state_dict(), "model_ema": model.state_dict(), "best": None}
    path = saved(tmp_path / "a.pth", value)
    loaded, expected, _ = pruned(path, tmp_path / "b.pth", entry="model_ema")
    assert equal(loaded["model_ema"], expected)
    assert equal(loaded["model"], model.state_dict())


def test_one_dict_under_two_names_is_pruned_under_the_chosen_one(tmp_path: Path) -> None:
    state = net().state_dict()
    path = saved(tmp_path / "a.pth", {"run": {"model": state}, "best": state})
    loaded, expected, _ = pruned(path, tmp_path / "b.pth", entry="run.model")
    assert equal(loaded["run"]["model"], expected)
    assert equal(loaded["best"], state)


@FORMATS
def test_tied_weights_are_tied_again_where_their_values_are_the_same(
    tmp_path: Path, zipped: bool
) -> None:
    weight = torch.rand(8, 8)
    state = {"a.weight": weight, "b.weight": weight, "turned.weight": weight.T}
    source = read_checkpoint(saved(tmp_path / "a.pth", state, zipped=zipped))
    new = weight * (weight > 0.5)
    tensors = {"a.weight": new, "b.weight": new.clone(), "turned.weight": new.T.clone()}
    write_like(source, tmp_path / "b.pth", tensors, {})
    loaded = torch.load(tmp_path / "b.pth", weights_only=True)
    assert loaded["a.weight"].data_ptr() == loaded["b.weight"].data_ptr()
    assert equal(loaded, tensors)
    write_like(source, tmp_path / "c.pth", {**tensors, "b.weight": weight}, {})
    loaded = torch.load(tmp_path / "c.pth", weights_only=True)
    assert torch.equal(loaded["a.weight"], new)
    assert torch.equal(loaded["b.weight"], weight)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("stride", [(0, 0), (7, 0), (0, 7)], ids=str)
def test_one_element_is_written_whatever_its_stride(
    tmp_path: Path, stride: tuple[int, int], suffix: str
) -> None:
    state = {"a.weight": torch.rand(3).as_strided((1, 1), stride, 2), "bias": torch.rand(2, 1).T}
    state |= {"b": torch.tensor(0.3).expand(1), "c": torch.rand(2, 2)}
    source = read_checkpoint(saved(tmp_path / "a.pth", state))
    tensors = {**source.tensors, "a.weight": torch.zeros(1, 1)}
    write_like(source, tmp_path / f"b{suffix}", tensors, {})
    assert equal(read_back(source, tmp_path / f"b{suffix}"), tensors)


def test_parameters_and_memory_formats_stay(tmp_path: Path) -> None:
    model = net().to(memory_format=torch.channels_last)
    model[3].bias.requires_grad_(False)
    value = dict(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).named_parameters())
    path = saved(tmp_path / "a.pth", value)
    loaded, expected, _ = pruned(path, tmp_path / "b.pth")
    assert type(loaded["weight"]) is nn.Parameter
    assert loaded["weight"].requires_grad
    assert loaded["weight"].is_contiguous(memory_format=torch.channels_last)
    assert equal(loaded, expected)


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_types_stay(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    path = saved(tmp_path / "a.pth", net().to(dtype).state_dict(), zipped=zipped)
    loaded, expected, _ = pruned(path, tmp_path / "b.pth")
    assert equal(loaded, expected)
    assert loaded["0.weight"].dtype == dtype


def test_prefixes_counters_and_other_entries_are_there_again(tmp_path: Path) -> None:
    state = torch.optim.swa_utils.AveragedModel(net()).state_dict()
    state["extra"] = "no tensor"
    path = saved(tmp_path / "a.pth", {"model_ema": state})
    loaded, expected, _ = pruned(path, tmp_path / "b.pth")
    assert list(loaded["model_ema"]) == list(state)
    assert loaded["model_ema"].pop("extra") == "no tensor"
    assert equal(loaded["model_ema"], expected)
    torch.optim.swa_utils.AveragedModel(net()).load_state_dict(loaded["model_ema"])


def test_a_lightning_file_keeps_its_keys_also_when_they_were_matched_to_a_model(
    tmp_path: Path,
) -> None:
    state = {f"net.{key}": value for key, value in net().state_dict().items()}
    state["loss.weight"] = torch.ones(3)
    value = {"state_dict": state, "epoch": 1, "pytorch-lightning_version": "2.5"}
    source = strip_prefix(read_checkpoint(saved(tmp_path / "a.ckpt", value)), "net.")
    tensors = halved(source)
    write_like(source, tmp_path / "b.ckpt", tensors, {})
    loaded = torch.load(tmp_path / "b.ckpt", weights_only=True)
    assert equal(loaded["state_dict"], source.in_file(tensors))
    assert list(loaded["state_dict"]) == list(state)
    assert equal(read_back(source, tmp_path / "b.ckpt"), tensors)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_folded_masks_are_written_as_one_weight_in_the_place_of_the_first(
    tmp_path: Path, suffix: str
) -> None:
    model = net()
    prune.l1_unstructured(model[3], "weight", amount=0.5)
    prune.random_unstructured(model[0], "bias", amount=2)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    source = fold_masks(read_checkpoint(saved(tmp_path / "a.pth", {"net": state, "epoch": 2})))
    out = tmp_path / f"b{suffix}"
    write_like(source, out, source.tensors, {})
    found = load_file(out) if suffix == ".safetensors" else torch.load(out)["net"]
    keys = list(net().state_dict())
    # prune moves what it splits to the end of its module
    assert [key.removeprefix("module.") for key in found] == [keys[0], keys[1], *keys[2:7],
                                                              keys[8], keys[7]]  # fmt: skip
    nn.DataParallel(net()).load_state_dict(found)
    for index, name in ((3, "weight"), (0, "bias")):
        assert torch.equal(found[f"module.{index}.{name}"], getattr(model[index], name))
    assert equal(read_back(source, out), source.tensors)


@FORMATS
def test_dropped_keys_are_left_out_and_a_state_may_change_its_shape(
    tmp_path: Path, zipped: bool
) -> None:
    state = {"lif.mem": torch.ones(4, 2), "fc.weight": torch.ones(2, 2), "if.v_mem": torch.ones(4)}
    read = read_checkpoint(saved(tmp_path / "a.pth", {"net": state}, zipped=zipped))
    tensors = {"fc.weight": torch.eye(2), "if.v_mem": torch.zeros(1)}
    source = replace(read, tensors=tensors, dropped=frozenset({"lif.mem"}))
    write_like(source, tmp_path / "b.pth", tensors, {})
    assert equal(torch.load(tmp_path / "b.pth")["net"], tensors)


# what cannot be


@pytest.mark.parametrize(
    ("name", "out", "words"),
    [
        ("a.pth", "b.nir", r"b\.nir: a\.pth is a torch file, which can be written as \.pt, "),
        ("a.safetensors", "b.pth", "a safetensors file, which can be written as .safetensors$"),
        ("a.pth", "b.onnx", r"b\.onnx does not end in \.safetensors, \.pt, .* or \.nir"),
        ("a.pth", "b", "b does not end in"),
    ],
)
def test_an_extension_that_does_not_fit_is_a_usage_error(
    tmp_path: Path, name: str, out: str, words: str
) -> None:
    from safetensors.torch import save_file

    path = tmp_path / name
    save_file(net().state_dict(), path) if "safe" in name else saved(path, net().state_dict())
    with pytest.raises(UsageError, match=words):
        require_writable_as(path, tmp_path / out)


@pytest.mark.parametrize("out", ["b.pt", "b.pth", "b.pth.tar", "b.ckpt", "b.BIN", "b.safetensors"])
def test_a_torch_file_can_be_written_as_these(tmp_path: Path, out: str) -> None:
    require_writable_as(saved(tmp_path / "whatever", net().state_dict()), tmp_path / out)


def test_a_source_that_changed_in_between_is_refused(tmp_path: Path) -> None:
    source = read_checkpoint(saved(tmp_path / "a.pth", net().state_dict()))
    saved(tmp_path / "a.pth", {"net": net().state_dict()})
    with pytest.raises(InputError, match=r"a\.pth: changed since it was read"):
        write_like(source, tmp_path / "b.pth", source.tensors, {})
    assert not (tmp_path / "b.pth").exists()


@FORMATS
@pytest.mark.parametrize("room", [0, 700, 30_000, 80_000])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, room: int, zipped: bool) -> None:
    state = {"a.weight": torch.rand(100, 100), "b.weight": torch.rand(100, 100)}
    source = read_checkpoint(saved(tmp_path / "a.pth", state, zipped=zipped))
    out = tmp_path / "b.pth"
    out.write_bytes(b"old")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))
    try:
        with pytest.raises(OutputError, match=r"b\.pth: cannot be written: .*File too large"):
            write_like(source, out, halved(source), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert out.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"a.pth", "b.pth"}
