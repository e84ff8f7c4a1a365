"""What trainers put around and beside a state_dict: wrappers, prefixes, counters, foreign types."""

import io
import sys
import time
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pace import pace
from torch import Tensor, nn

from snnprune.checkpoint.checkpoint import strip_prefix
from snnprune.checkpoint.containers import describe_checkpoint, read_checkpoint
from snnprune.errors import InputError

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}
EMA = {"fc.weight": torch.zeros(2, 3) + 0.5, "fc.bias": torch.zeros(2)}
BOTH = {"model": STATE, "model_ema": EMA, "epoch": 3}


def saved(path: Path, value: Any, *, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


# which of several


@pytest.mark.parametrize(
    ("value", "entry", "expected"),
    [
        (BOTH, None, "model"),
        (BOTH, "model_ema", "model_ema"),
        ({"a": {"b.c": STATE, "b": {"c": {"d": EMA}}}}, "a.b.c", "a.b.c"),
        ({"a": {"b.c": STATE, "b": {"c": {"d": EMA}}}}, "a.b.c.d", "a.b.c.d"),
        ({"model": {"state_dict": STATE}, "swa": EMA}, "model", "model.state_dict"),
        ({1: STATE, 2: EMA}, "2", "2"),
        ({**EMA, "model": STATE}, ".", "."),
        ({**EMA, "model": STATE}, None, "model"),
    ],
)
def test_the_entry_chooses_among_state_dicts(
    tmp_path: Path, value: Any, entry: str | None, expected: str
) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "a", value), entry=entry)
    assert checkpoint.entry == expected
    chosen = EMA if expected in ("model_ema", "a.b.c.d", "2", ".") else STATE
    assert all(torch.equal(checkpoint.tensors[key], chosen[key]) for key in STATE)
    assert len(describe_checkpoint(tmp_path / "a", entry=entry).tensors) == 2


def test_the_others_are_named_and_those_without_weights_are_not(tmp_path: Path) -> None:
    value = {**BOTH, "amp": {"scale": torch.tensor(2.0)}, "sched": {"lrs": torch.ones(3)}}
    checkpoint = read_checkpoint(saved(tmp_path / "a", value))
    assert checkpoint.notes == (
        "read the tensors under model, not those under model_ema (--state-dict chooses)",
    )


@pytest.mark.parametrize(
    ("value", "entry", "words"),
    [
        (BOTH, "ema", "--state-dict: no state_dict under ema; there is model, model_ema"),
        (BOTH, "model.fc", "no state_dict under model.fc; there is model, model_ema"),
        (BOTH, "", "no state_dict under ; there is model"),
        (STATE, "model", r"no state_dict under model; there is \."),
        ({"g": STATE, "d": EMA}, None, "more than one state_dict: g, d. choose with --state-dict"),
        ({"epoch": 1}, "model", "no state_dict under model; there is none"),
    ],
)
def test_an_entry_that_is_not_there_names_those_that_are(
    tmp_path: Path, value: Any, entry: str | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_checkpoint(saved(tmp_path / "a", value), entry=entry)


def test_an_entry_of_a_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(STATE, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="--state-dict: only torch files hold several"):
        read_checkpoint(tmp_path / "a.safetensors", entry="model")


def test_dicts_that_hold_each_other_are_searched_once_around(tmp_path: Path) -> None:
    value: dict[str, Any] = {"epoch": 1}
    value["again"] = value
    with pytest.raises(InputError, match="no state_dict found; the keys are epoch, again"):
        read_checkpoint(saved(tmp_path / "a", value))


def test_a_file_that_refers_to_one_dict_many_times_is_searched_at_once(tmp_path: Path) -> None:
    value: dict[int, Any] = {}
    for _ in range(3):
        value = dict.fromkeys(range(20_000), value)
    path = saved(tmp_path / "a", value)
    began = time.process_time()
    with pytest.raises(InputError, match="no state_dict found"):
        read_checkpoint(path)
    assert time.process_time() - began < 2 * pace()


# prefixes


def test_an_averaged_model_is_read_without_its_prefix_beside_its_counter(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(net())
    checkpoint = read_checkpoint(saved(tmp_path / "a", averaged.state_dict()))
    assert list(checkpoint.tensors) == ["n_averaged", *net().state_dict()]
    assert checkpoint.notes[0] == "stripped the prefix module. from 7 keys"
    assert checkpoint.names["0.weight"] == "module.0.weight"
    assert checkpoint.names["n_averaged"] == "n_averaged"


def test_wrappers_within_wrappers_are_all_taken_off(tmp_path: Path) -> None:
    compiled = torch.compile(net(), backend="eager")
    assert isinstance(compiled, nn.Module)
    inner = nn.DataParallel(compiled)
    averaged = torch.optim.swa_utils.AveragedModel(inner, use_buffers=True)
    state = averaged.state_dict()
    assert "module.module._orig_mod.0.weight" in state
    checkpoint = read_checkpoint(saved(tmp_path / "a", {"model_ema": state}))
    assert list(checkpoint.tensors) == ["n_averaged", *net().state_dict()]
    assert checkpoint.in_file({"0.weight": 1}) == {"module.module._orig_mod.0.weight": 1}


@pytest.mark.parametrize(
    "beside",
    [
        {"head.weight": torch.ones(2, 2)},  # a layer outside
        {"lif.beta": torch.tensor(0.5)},  # a number, but of a module of the network
        {"scales": torch.ones(3)},
        {"fc.weight": torch.tensor(1), "n": torch.tensor(1)},
    ],
)
def test_a_prefix_stays_where_the_network_itself_may_have_it(
    tmp_path: Path, beside: dict[str, Tensor]
) -> None:
    state = {**{f"module.{key}": value for key, value in STATE.items()}, **beside}
    checkpoint = read_checkpoint(saved(tmp_path / "a", state))
    assert list(checkpoint.tensors) == list(state)
    assert checkpoint.notes == ()


def test_a_prefix_that_was_matched_to_a_model_is_taken_off_and_found_again(tmp_path: Path) -> None:
    state = {f"net.{key}": value for key, value in STATE.items()} | {"loss.scale": torch.ones(2)}
    checkpoint = read_checkpoint(saved(tmp_path / "a.ckpt", {"state_dict": state}))
    plain = strip_prefix(checkpoint, "net.")
    assert list(plain.tensors) == ["fc.weight", "fc.bias", "loss.scale"]
    assert list(plain.in_file(plain.tensors)) == list(state)
    assert plain.notes[-1] == "stripped the prefix net. from 2 keys"


def test_a_prefix_over_another_prefix_leads_back_to_the_file(tmp_path: Path) -> None:
    state = {f"module.model.{key}": value for key, value in STATE.items()}
    plain = strip_prefix(read_checkpoint(saved(tmp_path / "a", state)), "model.")
    assert plain.in_file(plain.tensors).keys() == state.keys()


def test_a_prefix_that_would_give_two_tensors_one_key_is_refused(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "a", {**STATE, "net.fc.bias": torch.ones(2)}))
    with pytest.raises(InputError, match=r"net\.fc\.bias: is fc\.bias without the prefix net\."):
        strip_prefix(checkpoint, "net.")


# foreign types


FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@FORMATS
@pytest.mark.parametrize(
    "number",
    [
        np.float64(0.9), np.float32(0.1), np.float16(0.3), np.int64(-3), np.int32(7), np.int8(-1),
        np.uint8(255), np.uint64(2**64 - 1), np.bool_(True), np.float64("nan"),
        np.array(1.5, ">f8")[()],
    ],
    ids=lambda number: f"{number.dtype} {number}",
)  # fmt: skip
def test_a_numpy_number_beside_the_weights_does_no_harm(
    tmp_path: Path, number: Any, zipped: bool
) -> None:
    checkpoint = read_checkpoint(
        saved(tmp_path / "a", {"net": STATE, "best": number}, zipped=zipped)
    )
    assert all(torch.equal(checkpoint.tensors[key], STATE[key]) for key in STATE)
    assert checkpoint.notes == ("read the tensors under net",)


@pytest.mark.parametrize(
    "value", [np.str_("best"), np.complex128(1j), np.datetime64("2020-01-01"), np.longdouble(1)]
)
def test_another_numpy_value_does_no_harm(tmp_path: Path, value: Any) -> None:
    path = saved(tmp_path / "a", {"net": STATE, "best": value})
    assert list(read_checkpoint(path).tensors) == list(STATE)


def attribute_dict(monkeypatch: pytest.MonkeyPatch, module: str) -> type:
    """Lightning's class as it is, in a module of its name."""

    class AttributeDict(dict[str, Any]):
        def __getattr__(self, key: str) -> Any:
            return self[key]

    AttributeDict.__module__, AttributeDict.__qualname__ = module, "AttributeDict"
    home = types.ModuleType(module)
    home.AttributeDict = AttributeDict  # type: ignore[attr-defined]
    parts = module.split(".")
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module, home)
    return AttributeDict


@FORMATS
@pytest.mark.parametrize(
    "module",
    [
        "lightning.fabric.utilities.data",
        "lightning_fabric.utilities.data",
        "pytorch_lightning.utilities.parsing",
    ],
)
def test_the_settings_in_a_lightning_file_are_read_without_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, zipped: bool
) -> None:
    with monkeypatch.context() as patch:
        settings = attribute_dict(patch, module)(lr=0.1, layers=[1, 2])
        value = {
            "epoch": 3,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": {f"model.{key}": value for key, value in STATE.items()},
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.9)}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
            "hyper_parameters": settings,
        }
        path = saved(tmp_path / "a.ckpt", value, zipped=zipped)
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.tensors) == ["model.fc.weight", "model.fc.bias"]
    assert checkpoint.notes == ("read the tensors under state_dict",)


def test_a_dict_of_another_library_is_left_as_it_is_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        settings = attribute_dict(patch, "somewhere.else_")(lr=0.1)
        path = saved(tmp_path / "a.ckpt", {"state_dict": STATE, "hyper_parameters": settings})
    checkpoint = read_checkpoint(path)
    assert all(torch.equal(checkpoint.tensors[key], STATE[key]) for key in STATE)
    assert checkpoint.notes[-1] == (
        "objects of other code are left as they are, and none was made: "
        "somewhere.else_.AttributeDict"
    )


@FORMATS
def test_tensors_saved_on_a_gpu_are_read_on_the_cpu(tmp_path: Path, zipped: bool) -> None:
    tag, gpu = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    path = saved(tmp_path / "a.pth", {"net": STATE}, zipped=zipped)
    data = path.read_bytes()
    if zipped:
        forged = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(forged, "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name).replace(tag, gpu))
        data = forged.getvalue()
    else:
        data = data.replace(tag, gpu)
    assert data != path.read_bytes()
    path.write_bytes(data)
    tensors = read_checkpoint(path).tensors
    assert tensors["fc.weight"].device.type == "cpu"
    assert torch.equal(tensors["fc.weight"], STATE["fc.weight"])
