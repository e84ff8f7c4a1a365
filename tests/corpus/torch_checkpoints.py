# lambdas that hold what a loop is at
# mypy: disable-error-code="misc"
"""Cases of torch files: every format that torch had, wrappers of trainers, and attackers' files."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from corpus.bench import MODEL, Bench
from corpus.case import READ, REFUSED, Files, add, bad, good
from corpus.hostile_files import everything
from corpus.spoilt import spoils
from corpus.taken_apart import contents

FILE = "model.pth"


def saved(value: Any, *, zipped: bool = True) -> bytes:
    made = io.BytesIO()
    torch.save(value, made, _use_new_zipfile_serialization=zipped)
    return made.getvalue()


def weights(bench: Bench) -> dict[str, Tensor]:
    return contents(bench.bytes_of(MODEL))[0]


@good("torch")
def a_state_dict(bench: Bench) -> Files:
    return {FILE: saved(weights(bench))}


@good("torch")
def of_before_torch_1_6(bench: Bench) -> Files:
    return {FILE: saved(OrderedDict(weights(bench)), zipped=False)}


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "of a trainer": lambda held: {"model": held, "epoch": 3, "args": Namespace(lr=0.1)},
    "of Lightning": lambda held: {
        "state_dict": {f"net.{key}": tensor for key, tensor in held.items()},
        "pytorch-lightning_version": "2.0",
        "hyper_parameters": {"lr": 0.1},
    },
    "of several GPUs": lambda held: {f"module.{key}": tensor for key, tensor in held.items()},
    "of torch.compile": lambda held: {f"_orig_mod.{key}": tensor for key, tensor in held.items()},
    "two state dicts": lambda held: {"model": held, "model_ema": held},
    "tied tensors": lambda held: {**held, "again.weight": held["classifier.weight"]},
    "with its optimizer": lambda held: {"model": held, "optimizer": _optimizer().state_dict()},
}


def _optimizer() -> torch.optim.Optimizer:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.rand(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


for _name, _wrap in WRAPPERS.items():
    for _zipped in (True, False):
        add(
            "torch",
            f"{_name}, {'zipped' if _zipped else 'old'}",
            lambda bench, wrap=_wrap, zipped=_zipped: {
                FILE: saved(wrap(weights(bench)), zipped=zipped)
            },
            codes=(READ,),
        )


@good("torch")
def a_whole_module(bench: Bench) -> Files:
    return {FILE: saved(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))}


@bad("torch")
def torch_script(bench: Bench) -> Files:
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of newer torch, against its own format
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.rand(1, 2)), made)
    return {FILE: made.getvalue()}


def rezipped(data: bytes, bend: Callable[[str, bytes], bytes | None], **more: bytes) -> bytes:
    """An archive whose parts are what `bend` makes of them, with sums that fit."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            if (part := bend(name, old.read(name))) is not None:
                new.writestr(name, part)
        for name, part in more.items():
            new.writestr(name.replace("_", "/"), part)
    return made.getvalue()


def _bends(bend: Callable[[str, bytes], bytes | None], **more: bytes) -> Callable[[Bench], Files]:
    return lambda bench: {FILE: rezipped(saved(weights(bench)), bend, **more)}


def _compressed(bench: Bench) -> Files:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("archive/data.pkl", pickle.dumps({"w": [0] * 100}, 2))
        new.writestr("archive/data/0", bytes(50_000_000))
    return {FILE: made.getvalue()}


for _name, _make in {
    "a storage too short": _bends(lambda n, d: d[:-1] if n.endswith("data/0") else d),
    "a storage that is missing": _bends(lambda n, d: None if n.endswith("data/0") else d),
    "no pickle": _bends(lambda n, d: None if n.endswith("data.pkl") else d),
    "a pickle that is cut": _bends(lambda n, d: d[:-20] if n.endswith("data.pkl") else d),
    "a pickle of nothing": _bends(lambda n, d: b"\x80\x02N." if n.endswith("data.pkl") else d),
    "another byte order": _bends(lambda n, d: b"middle" if n.endswith("byteorder") else d),
    "a bomb": _compressed,
    "no tensors": lambda bench: {FILE: saved({"epoch": 3})},
    "nested too deep": lambda bench: {FILE: saved({"a": {"b": {"c": {"d": weights(bench)}}}})},
    "a tensor alone": lambda bench: {FILE: saved(torch.rand(3, 4))},
    "a list of tensors": lambda bench: {FILE: saved([torch.rand(3, 4)])},
    "weights of NaN": lambda bench: {FILE: saved({"w.weight": torch.full((3, 4), torch.nan)})},
    "a negative variance": lambda bench: {
        FILE: saved({"w.weight": torch.rand(3, 4), "n.running_var": -torch.ones(4)})
    },
    "sparse weights alone": lambda bench: {FILE: saved({"w.weight": torch.eye(3).to_sparse()})},
    "weights of whole numbers": lambda bench: {FILE: saved({"w.weight": torch.ones(3, 4).int()})},
    "names that are no text": lambda bench: {FILE: saved({1: torch.rand(3, 4)})},
}.items():
    add("torch", _name, _make)


class Runs:
    """What Python's own reader would run a command for."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch hostile",)


@bad("torch")
def code_beside_the_weights(bench: Bench) -> Files:
    return {FILE: saved({"model": weights(bench), "x": Runs()})}


@bad("torch")
def code_beside_the_weights_of_the_old_format(bench: Bench) -> Files:
    return {FILE: saved({"model": weights(bench), "x": Runs()}, zipped=False)}


spoils("torch", FILE, a_state_dict)

for _name, _data, _wanted in everything():
    # what is read past may hold nothing to prune, which is said
    _read = (READ,) if b"weight" in _data else (READ, REFUSED)
    add(
        "torch of attackers",
        _name,
        lambda bench, data=_data: {FILE: data},
        codes=_read if _wanted == "read" else (REFUSED,),
    )
