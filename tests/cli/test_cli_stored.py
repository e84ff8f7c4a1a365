"""What is done to a bare file piece by piece is what is done to it in memory, byte for byte."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import save_file
from torch import Tensor

from snnprune.checkpoint import stored as pieces
from snnprune.errors import InputError
from snnprune.export import measure_sizes
from snnprune.jobs import inspect
from snnprune.jobs.targets import stored as targets
from snnprune.pruning import stored as ranking

Run = Callable[..., subprocess.CompletedProcess[str]]
Tensors = dict[str, Tensor]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def with_ties(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (draw(*shape) * 3).round().div(4).to(dtype)


def a_network() -> Tensors:
    net = {
        "conv.weight": draw(16, 3, 3, 3, seed=1),
        "conv.bias": draw(16),
        "bn.running_var": draw(16).abs(),
        "bn.num_batches_tracked": torch.tensor(7),
        "fc.weight": draw(10, 70, seed=2) / 10,
    }
    net["fc.weight"][0, :9] = 0
    return net


def in_types(*kinds: torch.dtype) -> Tensors:
    made = {f"l{i}.weight": draw(9, 31, seed=i, dtype=kind) for i, kind in enumerate(kinds)}
    # of an odd number of bytes, so that wider types come first in what is written
    return {"odd": torch.arange(5, dtype=torch.uint8), **made}


def of_extremes() -> Tensors:
    values = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, 1.0, -1.0, 0.5])
    return {"a.weight": values.repeat(30).view(20, 15), "b.weight": values.flip(0).repeat(4)[None]}


NETWORKS: dict[str, Callable[[], Tensors]] = {
    "a network": a_network,
    "ties": lambda: {"a.weight": with_ties(20, 30), "b.weight": with_ties(7, 11)},
    "all alike": lambda: {"a.weight": torch.ones(20, 30), "b.weight": -torch.ones(7, 11)},
    "all zero": lambda: {"a.weight": torch.zeros(4, 5), "b.weight": draw(3, 3)},
    "extremes": of_extremes,
    "halves": lambda: in_types(torch.float16, torch.bfloat16),
    "ties of halves": lambda: {
        "a.weight": with_ties(20, 30, dtype=torch.float16),
        "b.weight": with_ties(20, 30, dtype=torch.bfloat16),
    },
    "doubles": lambda: in_types(torch.float64),
    "mixed": lambda: in_types(torch.float16, torch.float64, torch.float32, torch.bfloat16),
    "mixed ties": lambda: {
        "odd": torch.zeros(3, dtype=torch.uint8),
        "a.weight": with_ties(5, 9, dtype=torch.float16),
        "b.weight": with_ties(5, 9, dtype=torch.float64),
        "c.weight": with_ties(5, 9),
    },
    "a wrapper's keys": lambda: {f"module.{key}": one for key, one in a_network().items()},
    "what is no layer": lambda: {
        **a_network(),
        "embed.weight": draw(5, 4),
        "norm.weight": draw(3, 3),
        "norm.bias": draw(3, 3),
        "lif.mem": draw(2, 8),
        "old.running_var": torch.tensor([-1, 0], dtype=torch.int32),
        "older.running_var": torch.zeros(3, dtype=torch.bool),
        "empty.weight": torch.empty(0, 4),
        "integers.weight": torch.ones(3, 3, dtype=torch.int8),
        "z": torch.ones(2, dtype=torch.complex64),
    },
}
WAYS = {
    "global": ["--sparsity", "0.7", "--allocation", "global"],
    "by magnitude": ["--sparsity", "0.37", "--criterion", "magnitude"],
    "local": ["--sparsity", "0.9", "--allocation", "local"],
    "nothing": ["--sparsity", "0", "--allocation", "global"],
    "nearly all": ["--sparsity", "0.9999", "--allocation", "local"],
}

FIRST = ("global", "local")
FEW = ("a network", "mixed", "mixed ties", "what is no layer")


def with_few_by_default(networks: Iterable[str], *more: str) -> list[object]:
    """All of them, most where slow tests are asked for."""
    return [
        pytest.param(name, marks=[] if name in (*FEW, *more) else [pytest.mark.slow])
        for name in networks
    ]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight is many pieces, and enough for a sample."""
    monkeypatch.setattr(pieces, "PIECE", 64)
    monkeypatch.setattr(ranking, "FEW", 100)
    monkeypatch.setattr(ranking, "EACH", 3)
    monkeypatch.setattr(ranking, "RUN", 8)


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on nothing is done piece by piece."""

    def switch() -> None:
        monkeypatch.setattr("snnprune.jobs.prune.prune.open_for_stored_pruning", lambda _: None)
        for job in ("inspect", "check", "diff"):
            monkeypatch.setattr(f"snnprune.jobs.{job}.open_stored_target", lambda _: None)
        monkeypatch.setattr("snnprune.jobs.export.open_stored", lambda _: None)

    return switch


def read_all(folder: Path) -> dict[str, object]:
    """The bytes of the files, and the reports but for what differs from run to run."""
    found: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        found[path.name] = path.read_bytes()
        if path.suffix == ".json":
            report = json.loads(path.read_text())
            assert list(report["cost"]) == [
                "seconds",
                "peak_memory",
                "peak_gpu_memory",
                "estimates",
            ]
            found[path.name] = {**report, "cost": None, "device": None}
            found[f"keys of {path.name}"] = list(report)
    return found


def prune_both_ways(
    run: Run, source: Path, folder: Path, in_memory: Callable[[], None], *flags: str
) -> list[tuple[int, str, str, dict[str, object]]]:
    found = []
    for switch in (lambda: None, in_memory):
        switch()
        out = folder / "out"
        out.mkdir()
        done = run("prune", source, *flags, "-o", out / "p.safetensors")
        found.append((done.returncode, done.stdout, done.stderr, read_all(out)))
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
    return found


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * (way not in FIRST)) for way in WAYS]
)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_is_pruned_to_the_same_bytes(
    network: str, way: str, run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    save_file(NETWORKS[network](), tmp_path / "n.safetensors", {"format": "pt", "who": "them"})
    stored, whole = prune_both_ways(
        run, tmp_path / "n.safetensors", tmp_path, in_memory, *WAYS[way]
    )
    assert stored == whole
    assert stored[0] == 0


def test_shards_are_pruned_to_the_same_bytes(
    run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    net = a_network()
    save_file({key: net[key] for key in ("fc.weight", "conv.bias")}, tmp_path / "1.safetensors")
    save_file({k: v for k, v in net.items() if k.startswith(("bn", "conv.w"))},
              tmp_path / "2.safetensors")  # fmt: skip
    where = {key: f"{1 if key in ('fc.weight', 'conv.bias') else 2}.safetensors" for key in net}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    stored, whole = prune_both_ways(
        run, tmp_path / "model.safetensors.index.json", tmp_path, in_memory, *WAYS["global"]
    )
    assert stored == whole
    assert stored[0] == 0


ODD_SHARDS = {
    "a tensor in two shards": ({"a.weight": 2, "b.weight": 3}, {"a.weight": "1", "b.weight": "2"}),
    "a tensor that is not listed": ({"b.weight": 3, "c": 2}, {"a.weight": "1", "b.weight": "2"}),
    "one shard by two names": ({}, {"a.weight": "1", "b.weight": "./1"}),
}


@pytest.mark.parametrize("case", ODD_SHARDS)
@pytest.mark.parametrize("command", ["inspect", "check", "prune"])
def test_shards_that_are_not_as_indexed_are_refused_alike(
    command: str, case: str, run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    held, where = ODD_SHARDS[case]
    first = {"a.weight": draw(4, 4)} | ({} if held else {"b.weight": draw(4, 4, seed=1)})
    save_file(first, tmp_path / "1.safetensors")
    save_file({key: draw(4, 4, seed=n) for key, n in held.items()} or {"x": draw(1)},
              tmp_path / "2.safetensors")  # fmt: skip
    index = tmp_path / "m.safetensors.index.json"
    table = {key: f"{name}.safetensors" for key, name in where.items()}
    index.write_text(json.dumps({"weight_map": table}))
    flags = {
        "prune": (*WAYS["global"], "-o", tmp_path / "p.safetensors"),
        "check": ("--min-sparsity", "0"),
    }
    answers = []
    for switch in (lambda: None, in_memory):
        switch()
        done = run(command, index, *flags.get(command, ()))
        answers.append((done.returncode, done.stdout, done.stderr))
    assert answers[0] == answers[1]
    assert answers[0][0] == 3


@pytest.mark.parametrize(
    "flags",
    [
        ["--sparsity", "0.5,0.9"],
        ["--sparsity", "0.5", "--exclude", "fc*"],
        ["--sparsity", "0.5", "--exclude", "nothing"],
        ["--sparsity", "0.5", "--exclude", "*"],
        ["--sparsity", "0.5", "--min-sparsity", "0.5", "--max-size", "1MB"],
        ["--sparsity", "0.5,0.6", "--min-sparsity", "0.55"],
        ["--sparsity", "0.5", "--min-accuracy", "0.5"],
        ["--sparsity", "0.5", "--repair", "bn"],
        ["--sparsity", "0.5", "--tune-steps", "4"],
        ["--sparsity", "0.5", "--steps", "2"],
        ["--structure", "2:4"],
        ["--sparsity", "0.5", "--bits", "8", "--repair", "none"],
    ],
    ids=" ".join,
)
def test_flags_mean_the_same(
    flags: list[str], run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    save_file(a_network(), tmp_path / "n.safetensors")
    flags = [*flags, "--criterion", "magnitude"]
    stored, whole = prune_both_ways(run, tmp_path / "n.safetensors", tmp_path, in_memory, *flags)
    assert stored == whole


def spoil(kind: str, path: Path) -> None:
    net = a_network()
    if kind == "nan":
        net["fc.weight"][3, 60] = torch.nan
        net["fc.weight"][5, 1] = torch.inf
    if kind == "negative variance":
        net["bn.running_var"][3] = -2.5
    if kind == "odd elsewhere":
        net |= {"attn_mask": torch.full((3, 3), -torch.inf), "bn.running_var": torch.zeros(16)}
    save_file(net, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("kind", ["nan", "negative variance", "odd elsewhere", "truncated"])
@pytest.mark.parametrize("command", ["inspect", "check", "prune"])
def test_odd_values_are_told_alike(
    command: str, kind: str, run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    path = tmp_path / "n.safetensors"
    spoil(kind, path)
    flags = {
        "prune": (*WAYS["global"], "-o", tmp_path / "p.safetensors", "--force"),
        "check": ("--min-sparsity", "0"),
    }
    answers = []
    for switch in (lambda: None, in_memory):
        switch()
        done = run(command, path, *flags.get(command, ()))
        answers.append((done.returncode, done.stdout, done.stderr))
    assert answers[0] == answers[1]
    assert answers[0][0] == (0 if kind == "odd elsewhere" else 3)


@pytest.mark.many(5)
@pytest.mark.parametrize("network", with_few_by_default(NETWORKS, "extremes"))
@pytest.mark.parametrize("command", ["inspect", "check"])
def test_a_file_is_told_of_alike(
    command: str, network: str, run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    path = tmp_path / "n.safetensors"
    save_file(NETWORKS[network](), path, {"who": "them"})
    flags = ("--max-sparsity", "0.9") if command == "check" else ()
    shown, told = [], []
    for switch in (lambda: None, in_memory):
        switch()
        shown.append(run(command, path, *flags).stdout)
        told.append({**json.loads(run(command, path, *flags, "--json").stdout), "device": None})
    assert shown[0] == shown[1]
    assert told[0] == told[1]
    assert list(told[0]) == list(told[1])


def change(net: Tensors) -> Tensors:
    """Another network of the same layers: some values are others, some 0, some in another type."""
    found = {key: one.clone() for key, one in net.items()}
    for number, (key, one) in enumerate(found.items()):
        flat = one.flatten()
        flat[number % 3 :: 5] = 0
        flat[1::7] = (flat[1::7] / 2).to(one.dtype)
        if one.is_floating_point() and number % 4 == 1:
            found[key] = one.to(torch.float64 if one.dtype == torch.float32 else torch.float32)
    return found


@dataclass(frozen=True)
class Nearly:
    """A number but for its last digits."""

    value: float | None

    def __eq__(self, other: object) -> bool:
        """Whether `other` is one that is as near."""
        if not isinstance(other, Nearly) or self.value is None:
            return isinstance(other, Nearly) and other.value is None
        return bool(other.value == pytest.approx(self.value, rel=1e-12))


def differ(path: Path, other: Path, run: Run, *flags: str) -> tuple[object, ...]:
    """What `diff` shows, and its report; sums of squares alone may end in other digits.

    They are told as what must be equal to them.
    """
    done, told = run("diff", path, other, *flags), run("diff", path, other, *flags, "--json")
    if done.returncode:
        return done.returncode, done.stdout, done.stderr
    report = json.loads(told.stdout)
    for row in (report["totals"], *report["layers"], *report["others"]):
        for name in ("squared_change", "squared_norm", "relative_change"):
            row[name] = Nearly(row[name])
    return done.returncode, done.stdout, done.stderr, {**report, "device": None}, list(report)


@pytest.mark.many(5)
@pytest.mark.parametrize("network", with_few_by_default(NETWORKS, "extremes"))
@pytest.mark.parametrize("order", ["there", "back"])
def test_two_files_differ_alike(
    network: str, order: str, run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    paths = [tmp_path / "n.safetensors", tmp_path / "m.safetensors"]
    save_file(NETWORKS[network](), paths[0])
    save_file(change(NETWORKS[network]()), paths[1], {"who": "them"})
    one, other = paths if order == "there" else paths[::-1]
    found = differ(one, other, run)
    assert found[0] == 0
    in_memory()
    assert differ(one, other, run) == found


OTHERS: dict[str, Callable[[Tensors], Tensors]] = {
    "the same": lambda net: net,
    "another order": lambda net: dict(reversed(net.items())),
    "one more": lambda net: {**net, "more.weight": draw(3, 3)},
    "one less": lambda net: {key: one for key, one in net.items() if key != "fc.weight"},
    "another shape": lambda net: {**net, "fc.weight": draw(10, 71)},
    "another prefix": lambda net: {f"net.{key}": one for key, one in net.items()},
    "not finite": lambda net: {**net, "fc.weight": net["fc.weight"] / 0},
    "a negative variance": lambda net: {**net, "bn.running_var": -net["bn.running_var"]},
    "integers": lambda net: {**net, "fc.weight": net["fc.weight"].to(torch.int32)},
}


@pytest.mark.many(8)
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("flags", [(), ("--exclude", "conv*")], ids=["all", "without some"])
def test_a_file_differs_from_any_other_alike(
    kind: str, flags: tuple[str, ...], run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    one, other = tmp_path / "n.safetensors", tmp_path / "m.safetensors"
    save_file(a_network(), one)
    save_file(OTHERS[kind](a_network()), other)
    found = differ(one, other, run, *flags)
    in_memory()
    assert differ(one, other, run, *flags) == found


def with_odd_values() -> Tensors:
    """Zeros of both signs, NaN and infinity, in weights of all types that can be packed."""
    drawn = torch.Generator().manual_seed(5)
    found = {"conv.weight": draw(40, 30, 3, 3), "conv.bias": draw(40), "steps": torch.tensor(4)}
    found["conv.weight"] *= torch.rand(found["conv.weight"].shape, generator=drawn) > 0.9
    found["negative.weight"] = -found["conv.weight"]
    found["odd.weight"] = found["conv.weight"].clone()
    found["odd.weight"][0, 0, 0, :2] = torch.tensor([torch.nan, -torch.inf])
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        found[f"{kind}.weight".removeprefix("torch.")] = found["conv.weight"].abs().to(kind)
    return found


PACKABLE: dict[str, Callable[[], Tensors]] = {**NETWORKS, "odd values": with_odd_values}


@pytest.mark.many(2)
@pytest.mark.parametrize("network", with_few_by_default(PACKABLE, "odd values"))
def test_a_file_is_packed_to_the_same_bytes(
    network: str, run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    path, out = tmp_path / "n.safetensors", tmp_path / "p.safetensors"
    save_file(PACKABLE[network](), path, {"who": "them"})
    found = []
    for switch in (lambda: None, in_memory):
        switch()
        done = run("export", path, "--to", "packed", "-o", out, "--force")
        told = run("export", path, "--to", "packed", "-o", out, "--force", "--json")
        assert (done.returncode, told.returncode) == (0, 0), done.stderr
        report = {**json.loads(told.stdout), "device": None}
        found.append((done.stdout, done.stderr, out.read_bytes(), report, list(report)))
    assert found[0] == found[1]
    if network == "odd values":
        assert len(found[0][3]["packed"]) == 6
        assert "weights are -0.0" in found[0][1]


def test_shards_are_packed_to_the_same_bytes(
    run: Run, tmp_path: Path, in_memory: Callable[[], None]
) -> None:
    net = {f"module.{key}": tensor for key, tensor in with_odd_values().items()}
    where = {key: f"{number % 2}.safetensors" for number, key in enumerate(net)}
    for shard in sorted(set(where.values())):
        save_file({key: net[key] for key in net if where[key] == shard}, tmp_path / shard)
    index, out = tmp_path / "n.safetensors.index.json", tmp_path / "p.safetensors"
    index.write_text(json.dumps({"weight_map": where}))
    found = []
    for switch in (lambda: None, in_memory):
        switch()
        done = run("export", index, "--to", "packed", "-o", out, "--force")
        found.append((done.returncode, done.stdout, done.stderr, out.read_bytes()))
    assert found[0] == found[1]
    assert found[0][0] == 0


def test_a_file_that_changes_while_it_is_packed_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "n.safetensors", tmp_path / "p.safetensors"
    save_file(a_network(), path)

    def touched(*args: object, **how: object) -> object:
        os.utime(path)
        return measure_sizes(*args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("snnprune.jobs.export.measure_sizes", touched)
    done = run("export", path, "--to", "packed", "-o", out)
    assert_one_line(done, 3, "n.safetensors", "changed while it was read")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["n.safetensors"]


def test_bytes_of_a_tensor_in_a_file_are_sliced_as_an_array(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    save_file(a_network(), path)
    checkpoint = pieces.open_stored(path)
    assert checkpoint is not None
    raw = pieces.StoredBytes(checkpoint.tensors["fc.weight"])
    whole = a_network()["fc.weight"].numpy().tobytes()
    for first, last in ((0, 9), (5, 6), (2790, 2900), (7, 3), (0, 2800)):
        assert raw[first:last].tobytes() == whole[first:last]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="changed while it was read"):
        pieces.StoredBytes(max(checkpoint.tensors.values(), key=lambda one: one.start))[:]


def test_of_a_large_file_inspect_reads_the_header_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.safetensors"
    save_file(a_network(), path)
    whole = json.loads(run("inspect", path, "--json").stdout)
    monkeypatch.setattr(inspect, "LARGE", 100)
    found = json.loads(run("inspect", path, "--json").stdout)
    assert found["totals"] == {**whole["totals"], "kept": None, "pruned": None}
    assert [one["kept"] for one in found["layers"]] == [None, None]
    assert found["inputs"] == [{"path": str(path)}]
    assert [text for text in found["warnings"] if "--statistics" in text]
    done = run("inspect", path)
    assert "1,132 prunable weights of 1,148 parameters; zeros not counted" in done.stdout
    told = {**json.loads(run("inspect", path, "--statistics", "--json").stdout), "command_line": 0}
    assert told == {**whole, "command_line": 0}


def test_a_file_that_changes_while_it_is_pruned_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "n.safetensors", tmp_path / "p.safetensors"
    save_file(a_network(), path)
    found_before = ranking.find_cuts

    def touched(*args: object) -> object:
        os.utime(path)
        return found_before(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("snnprune.jobs.prune.stored.find_cuts", touched)
    done = run("prune", path, *WAYS["global"], "-o", out)
    assert_one_line(done, 3, "n.safetensors", "changed while it was read")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["n.safetensors"]


def test_a_file_that_is_replaced_between_two_outputs_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.safetensors"
    save_file(a_network(), path)
    save_file(a_network() | {"conv.bias": draw(16, seed=9)}, tmp_path / "other.safetensors")
    found_before, calls = ranking.find_cuts, []

    def replacing(*args: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            (tmp_path / "other.safetensors").replace(path)
        return found_before(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("snnprune.jobs.prune.stored.find_cuts", replacing)
    flags = ("--sparsity", "0.5,0.9", "--criterion", "magnitude")
    done = run("prune", path, *flags, "-o", tmp_path / "p.safetensors")
    assert_one_line(done, 3, "changed while it was read", "p-0.5.safetensors")
    assert not (tmp_path / "p-0.9.safetensors").exists()


@pytest.mark.parametrize("command", ["inspect", "check", "prune"])
def test_a_file_that_goes_away_is_told_as_such(
    command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.safetensors"
    save_file(a_network(), path)
    counted = targets.count_values

    def gone(*args: object) -> object:
        path.unlink()
        return counted(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(targets, "count_values", gone)
    flags = {"prune": (*WAYS["global"], "-o", tmp_path / "p.safetensors"),
             "check": ("--min-sparsity", "0")}  # fmt: skip
    done = run(command, path, *flags.get(command, ()))
    assert_one_line(done, 3, "n.safetensors", "no such file")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_read_is_told_as_such(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.safetensors"
    save_file(a_network(), path)

    def broken(*_: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(targets, "hash_checkpoint", broken)
    done = run("prune", path, *WAYS["global"], "-o", tmp_path / "p.safetensors")
    assert_one_line(done, 3, "n.safetensors", "cannot be read: Input/output error")


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
import snnprune.cli
snnprune.cli.main(sys.argv[2:])
"""


@pytest.mark.many(1)
@pytest.mark.parametrize("limit", [100, 40_001, 159_999])
def test_a_file_that_is_cut_short_is_never_taken_for_whole(limit: int, tmp_path: Path) -> None:
    save_file({"a.weight": draw(100, 100), "z": draw(30_000)}, tmp_path / "n.safetensors")
    flags = ("prune", "n.safetensors", *WAYS["global"], "-o", "p.safetensors", "-q")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "error: p.safetensors: cannot be written: File too large" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["n.safetensors"]


def test_pages_have_what_they_have_of_pruning_in_memory(run: Run, tmp_path: Path) -> None:
    save_file(a_network(), tmp_path / "n.safetensors")
    out = ("-o", tmp_path / "p.safetensors", "--report", tmp_path / "r", "--json")
    found = json.loads(run("prune", tmp_path / "n.safetensors", *WAYS["global"], *out).stdout)
    assert found["sizes"] is not None
    assert found["evidence"] is not None


def test_a_file_that_was_not_written_as_meant_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "n.safetensors", tmp_path / "p.safetensors"
    save_file(a_network(), path)
    made = ranking.MaskMaker.make
    monkeypatch.setattr(  # counts what it does not write
        "snnprune.jobs.prune.stored.MaskMaker.make",
        lambda self, piece, bits: made(self, piece, bits) | (bits[:] == bits[0]) & (bits == 0),
    )
    done = run("prune", path, *WAYS["global"], "-o", out)
    assert_one_line(done, 3, "changed while it was read")
    assert not out.exists()


WITHOUT_TORCH = """
import json, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise RuntimeError("torch was imported")
sys.meta_path.insert(0, Refused())
from snnprune.cli import run_app, run_command
codes = [run_app(run_command, line.split()) for line in json.loads(sys.argv[1])]
print(json.dumps(codes), file=sys.stderr)
"""
LINES = {
    "--help": 0,
    "prune --help": 0,
    "inspect n.safetensors": 0,
    "check n.safetensors --min-sparsity 0.5": 4,
    "check n.safetensors --sha256 0123": 3,
    "prune n.safetensors --sparsity 0.5 --criterion magnitude -o p.safetensors": 0,
    "prune n.safetensors --sparsity 95 -o p.safetensors": 2,
    "prune n.safetensors --sparsity 0.5 --structure 3:2 -o p.safetensors": 2,
    "prune n.safetensors --sparsity 0.5 --repair bm -o p.safetensors": 2,
    "prune n.safetensors --sparsity 0.5 --allocation globl -o p.safetensors": 2,
    "prune n.safetensors --sparsity 0.5 -o p.pth": 2,
    "score n.safetensors --criterion sff": 2,
    "sensitivity n.safetensors --sparsities 95": 2,
    "sensitivity n.safetensors --repair bm": 2,
    "calibrate missing.pth -o c.safetensors": 3,
    "eval missing.pth": 3,
    "diff n.safetensors missing.pth": 3,
    "diff n.safetensors m.safetensors": 0,
    "export missing.pth --to pth -o p.pth": 3,
    "export n.safetensors --to packed -o e.safetensors": 0,
    "export n.safetensors --to packed -o n.safetensors --force": 5,
    "export n.safetensors --to pakced -o f.safetensors": 2,
    "export n.safetensors --to packed --values int9 -o f.safetensors": 2,
    "export n.safetensors --to dense --values int8 -o f.safetensors": 2,
    "export n.safetensors --to packed --model conv-snn -o f.safetensors": 2,
    "export n.safetensors --to csr -o f.safetensors": 2,
    "export n.safetensors --to onnx -o f.nir": 2,
    "recipes ls": 0,
    "train --recipe nonsense": 3,
}


def test_what_needs_no_torch_does_not_import_it(tmp_path: Path) -> None:
    save_file(a_network(), tmp_path / "n.safetensors")
    save_file(change(a_network()), tmp_path / "m.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(list(LINES))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torch was imported" not in done.stderr
    found = json.loads(done.stderr.splitlines()[-1])
    assert dict(zip(LINES, found, strict=True)) == LINES


TELL_PEAK = """
import atexit, re, sys
from pathlib import Path
import snnprune.cli
status = Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]))
snnprune.cli.main(sys.argv[1:])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it there")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    net = {f"l{i}.weight": torch.full((2048, 2048), 0.5 + i) for i in range(8)}
    save_file(net, tmp_path / "n.safetensors")  # 128 MiB
    flags = ("prune", "n.safetensors", *WAYS["global"], "-o", "p.safetensors", "-q")
    done = subprocess.run(
        [sys.executable, "-c", TELL_PEAK, *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stderr.splitlines()[-1]) < 128 * 2**10
