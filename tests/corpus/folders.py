# lambdas that hold what a loop is at
# mypy: disable-error-code="misc"
"""Cases of run folders that a stranger made: their states, metrics, recipes, locks and reports."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from corpus.bench import LOOPS, MODEL, Bench, state_files
from corpus.case import READ, REFUSED, Files, Make, add, bad, good
from corpus.spoilt import SPOILT
from corpus.taken_apart import contents, like, position_of, state_with, with_value

ELSE = ...
"""In place of a value: it is taken away."""

HOSTILE = "\x1b[31m::error file=x::boom\u202e"
NUMBERS: dict[str, Any] = {
    "below 0": -1,
    "2 ** 40": 2**40,
    "2 ** 70": 2**70,
    "a fraction": 1.5,
    "text": HOSTILE,
    "nothing": None,
    "a list": [0],
    "missing": ELSE,
}
COUNTS = ("loop.at.epoch", "loop.at.step", "rows", "loop.trainer.step", "loop.trainer.batches")
SUMS = ("loop.at.loss_sum", "loop.at.correct", "loop.at.seen", "loop.trainer.skipped")


def _state(loop: str, bend: Callable[[bytes], bytes]) -> Make:
    """The folder of a run that was stopped, its state bent."""

    def made(bench: Bench) -> Files:
        files = bench.stopped(loop)
        (name,) = state_files(files)
        return {**files, name: bend(files[name])}

    return made


def _at(loop: str, path: str, value: Any) -> Make:
    """A state with another value in its position, and a hash that fits."""
    return _state(loop, lambda data: state_with(data, with_value(position_of(data), path, value)))


def _text(loop: str, text: str) -> Make:
    """A state with any text for its position."""
    return _state(loop, lambda data: state_with(data, text))


def _tensors(loop: str, bend: Callable[[str, Tensor], Tensor | None], *groups: str) -> Make:
    """A state with the tensors of these groups bent."""

    def bent(data: bytes) -> bytes:
        held, _ = contents(data)
        chosen = {k: bend(k, t) for k, t in held.items() if k.split("/")[0] in groups}
        assert chosen, sorted(held)
        return state_with(data, None, chosen)

    return _state(loop, bent)


def _adds(loop: str, tensors: Mapping[str, Tensor]) -> Make:
    """A state with more tensors."""
    return _state(loop, lambda data: state_with(data, None, tensors))


def _add_all(loop: str, cases: Mapping[str, Make], codes: Iterable[int] = (REFUSED,)) -> None:
    for name, make in cases.items():
        add(f"state of {loop}", name, make, codes=codes)


BENDS: dict[str, Callable[[str, Tensor], Tensor | None]] = {
    "missing": lambda _, t: None,
    "of another shape": lambda _, t: torch.zeros(7, 7),
    "of no dimensions": lambda _, t: torch.tensor(1.0),
}
for _loop in LOOPS:
    add(
        f"state of {_loop}", "stopped", lambda bench, loop=_loop: bench.stopped(loop), codes=(READ,)
    )
    add(
        f"state of {_loop}",
        "a whole run whose end is not marked",
        lambda bench, loop=_loop: {
            name: data for name, data in bench.finished(loop).items() if name != "run/DONE"
        },
        codes=(READ,),
    )
    _counts = (*COUNTS, *SUMS, *(("loop.cell",) if _loop in ("imp", "search") else ()))
    for _path in _counts:
        for _name, _value in NUMBERS.items():
            if _path == "loop.at.loss_sum" and isinstance(_value, int | float):
                continue  # a loss may be any number
            _add_all(_loop, {f"{_path} {_name}": _at(_loop, _path, _value)})
    _add_all(_loop, {f"weights {name}": _tensors(_loop, b, "model") for name, b in BENDS.items()})
    _add_all(
        _loop,
        {
            f"what the optimizer remembers {name}": _tensors(_loop, bend, "optimizer")
            for name, bend in BENDS.items()
            if name == "of another shape"
        },
    )
    _add_all(
        _loop,
        {
            "an average that is missing": _tensors(_loop, BENDS["missing"], "average"),
            "an average of another shape": _tensors(_loop, BENDS["of another shape"], "average"),
            "an average of NaN": _tensors(_loop, lambda _, t: like(t, math.nan), "average"),
            "weights of NaN": _tensors(
                _loop, lambda _, t: like(t, math.nan) if t.is_floating_point() else t, "model"
            ),
            "variances below 0": _tensors(
                _loop, lambda k, t: like(t, -1.0) if k.endswith("running_var") else t, "model"
            ),
            "weights of whole numbers": _tensors(
                _loop, lambda _, t: t.int() if t.is_floating_point() else t, "model"
            ),
            "momenta of no parameter": _adds(_loop, {f"optimizer/x/{HOSTILE}": torch.ones(1)}),
            "a mask of no weight": _adds(_loop, {f"held/{HOSTILE}": torch.ones(1).bool()}),
            "a mask of another shape": _adds(
                _loop, {"held/classifier.weight": torch.ones(7).bool()}
            ),
            "a mask of the bias": _adds(_loop, {"held/classifier.bias": torch.zeros(2).bool()}),
            "a mask of a statistic": _adds(
                _loop, {"held/encoder.norm.running_var": torch.zeros(2).bool()}
            ),
            "a mask that passes of another shape": _adds(
                _loop, {"passing/classifier.weight": torch.ones(7).bool()}
            ),
            "a position that is a list": _text(_loop, "[]"),
            "a position that is a number": _text(_loop, "3"),
            "a position that is empty": _text(_loop, ""),
            "a position that is deep": _text(_loop, "[" * 100_000),
            "a position of 6000 digits": _text(_loop, '{"rows": ' + "9" * 6000 + "}"),
            "a position of NaN": _at(_loop, "loop.at.loss_sum", math.nan),
            "a position without end": _at(_loop, "loop.at.loss_sum", math.inf),
            "more samples right than seen": _at(_loop, "loop.at.correct", 10**6),
            "a field too many": _at(_loop, "loop.at.more", 1),
            "made with nothing": _at(_loop, "made_with", None),
            "made with a list": _at(_loop, "made_with", ["torch"]),
            "momenta of no dimensions": _tensors(_loop, BENDS["of no dimensions"], "optimizer"),
            "made with numbers": _at(_loop, "made_with", {"torch": 2}),
            "made with hostile text": _at(_loop, "made_with.torch", HOSTILE),
            "made with another torch": _at(_loop, "made_with.torch", "99.0"),
            "warnings that are a number": _at(_loop, "warnings", 7),
            "warnings that are numbers": _at(_loop, "warnings", [7]),
            "warnings that are tables": _at(_loop, "warnings", [{"a": 1}]),
            "warnings that are text": _at(_loop, "warnings", HOSTILE),
            "a scaler that is a list": _at(_loop, "loop.trainer.scaler", [1]),
            "a scaler of a cpu run": _at(_loop, "loop.trainer.scaler", {"scale": HOSTILE}),
            **{f"a state that is {name}": _state(_loop, spoil) for name, spoil in SPOILT.items()},
        },
    )
    add(
        f"state of {_loop}",
        "momenta of NaN",
        _tensors(_loop, lambda _, t: like(t, math.nan), "optimizer"),
        # the weights are NaN after a step, and are not kept; at the end of a round nothing is left
        codes=(6,) if _loop in ("train", "finetune") else (0, 6),
    )
    add(
        f"state of {_loop}",
        "warnings that are hostile to whoever shows them",
        _at(_loop, "warnings", [HOSTILE]),
        codes=(READ,),
    )

for _loop in ("train", "finetune"):
    for _name, _value in NUMBERS.items():
        if _name not in ("nothing",):
            _add_all(_loop, {f"best epoch {_name}": _at(_loop, "loop.best.epoch", _value)})
    _add_all(
        _loop,
        {
            f"best accuracy {_name}": _at(_loop, "loop.best.accuracy", _value)
            for _name, _value in {"text": HOSTILE, "a list": [1], "missing": ELSE, "7": 7}.items()
        },
    )
    _add_all(
        _loop,
        {
            "best weights of another shape": _tensors(_loop, BENDS["of another shape"], "best"),
            "best weights that are missing": _tensors(_loop, BENDS["missing"], "best"),
            "best weights of no network": _adds(_loop, {f"best/{HOSTILE}": torch.ones(3)}),
            "best weights of NaN": _tensors(
                _loop, lambda _, t: like(t, math.nan) if t.is_floating_point() else t, "best"
            ),
        },
    )
_add_all(
    "imp",
    {f"returnable {name}": _at("imp", "loop.returnable", value) for name, value in NUMBERS.items()},
)
_add_all(
    "imp",
    {f"dense weights {name}": _tensors("imp", bend, "dense") for name, bend in BENDS.items()}
    | {f"early weights {name}": _tensors("imp", bend, "early") for name, bend in BENDS.items()}
    | {
        "early weights of NaN": _tensors(
            "imp", lambda _, t: like(t, math.nan) if t.is_floating_point() else t, "early"
        )
    },
)
_add_all(
    "search",
    {f"first weights {name}": _tensors("search", bend, "first") for name, bend in BENDS.items()},
)
_add_all("finetune", {"other inputs": _at("finetune", "loop.inputs", {"checkpoint": "0" * 64})})
_add_all("finetune", {"inputs in a list": _at("finetune", "loop.inputs", [HOSTILE])})


def _file(loop: str, name: str, bend: Callable[[bytes], bytes]) -> Make:
    """The folder of a run that was stopped, another file of it bent."""

    def made(bench: Bench) -> Files:
        files = bench.stopped(loop)
        return {**files, name: bend(files[name])}

    return made


METRICS = "run/metrics.jsonl"


def _row(loop: str, row: Any) -> Make:
    """Metrics with another row."""
    text = row if isinstance(row, bytes) else json.dumps(row).encode()
    return _file(loop, METRICS, lambda data: b"\n".join([text, *data.split(b"\n")[1:]]))


def _setting(loop: str, path: str, value: Any) -> Make:
    """Metrics with another value in the first row."""

    def bend(data: bytes) -> bytes:
        first, *others = data.split(b"\n")
        return b"\n".join(
            [json.dumps(with_value(json.loads(first), path, value)).encode(), *others]
        )

    return _file(loop, METRICS, bend)


for _kind, _loop in {"metrics": "train", "metrics of imp": "imp"}.items():
    add(_kind, "stopped", lambda bench, loop=_loop: bench.stopped(loop), codes=(READ,))
    for _name, _make in {
        "a row of nothing": _row(_loop, {}),
        "a row that is a list": _row(_loop, []),
        "a row that is cut": _row(_loop, b'{"kind": "epoch", "lo'),
        "a row that is deep": _row(_loop, b"[" * 100_000),
        "a row of no UTF-8": _row(_loop, b"\xff\xfe"),
        "a row of another kind": _setting(_loop, "kind", HOSTILE),
        "a row of a kind that is a list": _setting(_loop, "kind", ["epoch"]),
        "a row with a field too many": _setting(_loop, HOSTILE, 1),
        "a row without an accuracy": _setting(_loop, "validation_accuracy", ELSE),
        "a row with an accuracy in words": _setting(_loop, "validation_accuracy", HOSTILE),
        "a row with an epoch in words": _setting(_loop, "epoch", HOSTILE),
        "a row with a loss of NaN": _setting(_loop, "train_loss", math.nan),
        "a row with an accuracy in quotes": _setting(_loop, "train_accuracy", "0"),
        "a row with a loss in a list": _setting(_loop, "train_loss", [0]),
        "no rows": _file(_loop, METRICS, lambda data: b""),
        "a row of a ticket": _row(_loop, {"kind": "ticket"}),
        "a row of a ticket in words": _row(
            _loop,
            {"kind": "ticket", "method": HOSTILE, "sparsity_asked": "x", "test": [], "layers": 1},
        ),
    }.items():
        add(_kind, _name, _make)


RECIPE = "run/recipe.yaml"


def _named(old: bytes, new: bytes) -> Make:
    """The recipe of a run with other text in one place."""

    def bend(data: bytes) -> bytes:
        assert old in data, data
        return data.replace(old, new)

    return _file("train", RECIPE, bend)


@good("recipe of a run")
def as_it_was(bench: Bench) -> Files:
    return bench.stopped("train")


for _name, _make in {
    "more epochs than the state allows": _named(b"epochs: 2", b"epochs: 0"),
    "another network": _named(b"width: 2", b"width: 3"),
    "a wide network": _named(b"width: 2", b"width: 1099511627776"),
    "a network of a shell": _named(b"name: conv-snn", b"name: os:system"),
    "a network that is not known": _named(b"name: conv-snn", b'name: "\\e[31m"'),
    "another data set": _named(b"tensors:", b"tensors:/nowhere"),
    "no recipe": _file("train", RECIPE, lambda data: b""),
    "bytes": _file("train", RECIPE, lambda data: bytes(range(256))),
}.items():
    add("recipe of a run", _name, _make)

LOCK = "run/run.lock"
for _name, _data in {
    "a lock of hostile text": HOSTILE.encode(),
    "a lock of bytes": b"\xff" * 99,
}.items():
    add("lock", _name, _file("train", LOCK, lambda _, data=_data: data), codes=(READ,))

REPORT = "run/report.json"


def _report(text: Any) -> Make:
    """The folder of a whole run, with another report."""
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    return lambda bench: {**bench.finished("train"), REPORT: data}


def _reported(path: str, value: Any) -> Make:
    """A whole run whose report says something else."""

    def made(bench: Bench) -> Files:
        files = bench.finished("train")
        found = with_value(json.loads(files[REPORT]), path, value)
        return {**files, REPORT: json.dumps(found).encode()}

    return made


@good("report of a run")
def a_whole_run(bench: Bench) -> Files:
    return bench.finished("train")


for _name, _make in {
    "a report that is a list": _report([]),
    "a report that is a number": _report(3),
    "a report of nothing": _report({}),
    "a report of no bytes": _report(b""),
    "a report that is deep": _report(b"[" * 100_000),
    "a report of no UTF-8": _report(b"\xff"),
    "a report of 6000 digits": _report(b"9" * 6000),
    "a report without tickets": _reported("tickets", ELSE),
    "a report of a ticket that is a number": _reported("tickets", [3]),
    "a report of a ticket of nothing": _reported("tickets", [{}]),
    "a report of hostile tickets": _reported("tickets", [{"kind": HOSTILE, "method": HOSTILE}]),
}.items():
    add("report of a run", _name, _make)


@bad("report of a run")
def a_report_of_another_command(bench: Bench) -> Files:
    report = bench.finished("search")[REPORT]
    return {**bench.finished("train"), REPORT: report.replace(b'"method"', b'"\\u001b[31m"')}


@bad("state of train")
def a_state_of_another_network(bench: Bench) -> Files:
    files = bench.stopped("train")
    (name,) = state_files(files)
    return {**files, name: bench.bytes_of(MODEL)}


@bad("state of train")
def a_state_of_imp(bench: Bench) -> Files:
    files, others = bench.stopped("train"), bench.stopped("imp")
    return {**files, state_files(files)[0]: others[state_files(others)[0]]}


@good("state of train")
def a_newer_state_of_a_number_of_200_digits(bench: Bench) -> Files:
    return {**bench.stopped("train"), f"run/state/step-{'9' * 200}.safetensors": b""}
