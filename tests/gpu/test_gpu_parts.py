"""The parts of the GPU check on a CPU and on a pretended GPU; how they measure, and what if not."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bandwidth
import environment
import neurons
import pytest
import throughput
import tickets
import torch
from measuring import Lines, Unavailable, read_flags, say, time_calls
from torch._subclasses.fake_tensor import FakeTensorMode

from snnprune.models.lif import LIF
from snnprune.models.lif.choice import VARIABLE
from snnprune.models.networks import conv_snn

HERE = Path(__file__).parent
CPU = torch.device("cpu")
Run = Callable[..., subprocess.CompletedProcess[str]]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def by_candidate(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return {row["candidate"]: row[key] for row in rows if key in row}


def in_a_process(*words: object, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def _path_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `throughput.build` sets is for its own process."""
    monkeypatch.setenv(VARIABLE, "")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.mark.slow
def test_bandwidth_times_both_passes_of_what_runs_on_a_cpu(out: Path) -> None:
    bandwidth.main(["--small", "--device", "cpu", "--out", str(out)])
    rows = rows_of(out)
    timed = {(r["dtype"], r["candidate"], r["direction"]): r for r in rows if "ms" in r}
    for dtype in ("float32", "bfloat16"):
        for name in ("plain", "SpikingJelly auto", "SpikingJelly torch"):
            assert {(dtype, name, "forward"), (dtype, name, "backward")} <= timed.keys()
    row = timed["bfloat16", "plain", "backward"]
    bytes_moved = 3 * 2 * (2 * 3 * 4 * 5 * 5)  # the current and two gradients of two bytes
    assert row["gb_per_s"] == pytest.approx(bytes_moved / 1e9 / (row["ms"] / 1e3))
    assert set(by_candidate(rows, "absent")) == {
        *("triton", "SpikingJelly cupy", "SpikingJelly cuda", "SpikingJelly triton"),
    }
    assert by_candidate(rows, "failed") == {}


def test_without_spikingjelly_the_others_are_timed_with_a_word(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spikingjelly.activation_based.neuron", None)
    bandwidth.main(["--small", "--device", "cpu", "--out", str(out)])
    rows = rows_of(out)
    assert "spikingjelly" in by_candidate(rows, "absent")["SpikingJelly torch"]
    assert set(by_candidate(rows, "ms")) == {"copy", "plain"}


def test_a_candidate_that_fails_does_not_keep_the_next_from_being_timed(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(device: torch.device) -> neurons.Fire:
        raise RuntimeError("no kernel image\nCompile with more")

    made = [("first", fail), ("second", neurons.make_plain)]
    monkeypatch.setattr(bandwidth, "candidates", lambda: made)
    bandwidth.main(["--small", "--device", "cpu", "--out", str(out)])
    rows = rows_of(out)
    assert by_candidate(rows, "failed") == {"first": "RuntimeError: no kernel image"}
    assert "second" in by_candidate(rows, "gb_per_s")


def test_spikes_that_are_others_are_counted() -> None:
    spikes = torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert bandwidth.share_of_others(spikes, torch.tensor([0.0, 1.0, 0.0, 0.0])) == 0.25


class OldNode:
    """A LIFNode of before 2.0.0, without CuPy."""

    supported_backends = ("torch", "cupy")

    def __init__(self) -> None:
        self.chosen = "torch"

    @property
    def backend(self) -> str:
        return self.chosen

    @backend.setter
    def backend(self, name: str) -> None:
        if name not in self.supported_backends:
            raise NotImplementedError(f"{name} is not a supported backend")
        if name == "cupy":
            raise ImportError("CuPy is not installed!")
        self.chosen = name


@pytest.mark.parametrize(
    ("name", "why"), [("cupy", "CuPy is not installed"), ("triton", "not a supported backend")]
)
def test_an_older_spikingjelly_says_which_back_ends_it_lacks(name: str, why: str) -> None:
    node = OldNode()
    neurons.choose_old_back_end(node, "auto")
    with pytest.raises(Unavailable, match=why):
        neurons.choose_old_back_end(node, name)
    assert node.chosen == "torch"


def test_a_spikingjelly_that_chooses_otherwise_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spikingjelly._ops.lif", SimpleNamespace())
    with pytest.raises(Unavailable, match="_selection"):
        neurons.choose_back_end(SimpleNamespace(), "triton", torch.device("cuda"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loop_has_the_spikes_and_gradients_of_our_neurons(dtype: torch.dtype) -> None:
    x = torch.randn(5, 4, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = []
    for neuron in (LIF(neurons.DYNAMICS), neurons.LoopLIF()):
        leaf = x.clone().requires_grad_()
        spikes = neuron(leaf)
        assert spikes.dtype == dtype
        found.append((spikes, *torch.autograd.grad(spikes, leaf, weights)))
    torch.testing.assert_close(*found)


@pytest.mark.usefixtures("_path_again")
def test_throughput_trains_a_network_with_each_kind_of_neuron(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = partial(conv_snn, in_channels=3, size=throughput.SMALL_SIDE, width=2, depth=2)
    monkeypatch.setattr(throughput, "MODELS", {"conv-snn": tiny})
    throughput.main(["--small", "--device", "cpu", "--out", str(out)])
    triton, *others = rows_of(out)
    assert "needs a GPU" in triton["absent"]
    assert [row["neurons"] for row in others] == ["plain", "loop", "ReLU"]
    for row in others:
        assert (row["batch"], row["peak_gb"]) == (2, None)
        assert row["images_per_s"] == pytest.approx(2 / (row["ms"] / 1e3))


@pytest.mark.usefixtures("_path_again")
def test_what_stands_in_for_neurons_takes_the_place_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (("loop", neurons.LoopLIF), ("ReLU", neurons.StepwiseReLU)):
        found = throughput.build("res-snn-19-light", name, torch.device("meta"))
        kinds = [type(module) for module in found.modules()]
        assert kinds.count(kind) == 18
        assert LIF not in kinds


def test_the_batch_is_halved_until_it_fits() -> None:
    tried = []

    def measure(batch: int) -> dict[str, Any]:
        tried.append(batch)
        if batch > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")
        return {"ms": 1.0}

    fits = 16
    assert throughput.find_batch(measure, 64) == {"batch": 16, "ms": 1.0}
    assert tried == [64, 32, 16]
    fits = 0
    found = throughput.find_batch(measure, 64)
    assert found == {"failed": "OutOfMemoryError: CUDA out of memory. Tried to allocate"}


def test_another_failure_of_a_network_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(batch: int) -> dict[str, Any]:
        raise ValueError("wrong")

    assert throughput.find_batch(measure, 64) == {"failed": "ValueError: wrong"}


@pytest.fixture
def _autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 without a GPU, where it is not computed."""
    of_cpu = partial(torch.autocast, "cpu", torch.bfloat16)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: of_cpu())


@pytest.mark.usefixtures("_autocast")
def test_a_tensor_left_on_another_device_is_an_error_of_the_step() -> None:
    network = conv_snn(in_channels=3, size=8, width=2, depth=2)  # not moved
    step = throughput.make_step(network, 2, 8, torch.device("meta"))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step()


@pytest.mark.usefixtures("_autocast")
def test_the_step_has_all_on_the_device_that_is_asked_for() -> None:
    network = conv_snn(in_channels=3, size=8, width=2, depth=2).to("meta")
    throughput.make_step(network, 2, 8, torch.device("meta"))()
    grads = [parameter.grad for parameter in network.parameters()]
    assert all(grad is not None and grad.is_meta for grad in grads)


@pytest.mark.slow
@pytest.mark.usefixtures("_autocast", "_path_again")
@pytest.mark.parametrize("kind", ["plain", "loop", "ReLU"])
@pytest.mark.parametrize("model", throughput.MODELS)
def test_networks_of_the_whole_size_take_a_step_in_bf16(
    model: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module)  # not with the mode
    types = set()

    def note(module: object, args: tuple[torch.Tensor, ...]) -> None:
        types.add(args[0].dtype)

    with FakeTensorMode():  # shapes, types and devices alone
        network = throughput.build(model, kind, CPU)
        for module in network.modules():
            if isinstance(module, throughput.NEURONS[kind] or LIF):
                module.register_forward_pre_hook(note)
        step = throughput.make_step(network, throughput.BATCH, throughput.SIDE, CPU)
        step()
    assert types == {torch.bfloat16}


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("all",)])
def test_a_pretended_gpu_runs_every_candidate_by_the_paths_of_a_gpu(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    in_a_process(HERE / "on_pretended_gpu.py", tmp_path, *words)
    (where,) = rows_of(tmp_path / "environment.jsonl")
    assert (where["device"], where["capability"]) == ("pretended GPU", "9.0")
    rows = rows_of(tmp_path / "bandwidth.jsonl")
    assert by_candidate(rows, "failed") == {}
    names = {"triton", "plain", "SpikingJelly auto", "SpikingJelly torch", "SpikingJelly triton"}
    assert by_candidate(rows, "other_spikes") == dict.fromkeys(names, 0.0)
    assert {"copy", *names} == set(by_candidate(rows, "ms"))
    rows = rows_of(tmp_path / "throughput.jsonl")
    assert len(rows) == (12 if words else 4)
    assert all(row["ms"] > 0 and row["peak_gb"] == 0 for row in rows)


def test_events_are_around_calls_with_a_cold_cache_and_read_once_all_are_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            self.awaited = False

        def record(self) -> None:
            told.append("record")

        def elapsed_time(self, end: object) -> float:
            assert told[-1] == "synchronize"
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("synchronize"))
    cache = torch.ones(8, dtype=torch.uint8)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: cache)

    def call() -> None:
        told.append("warm" if cache.any() else "call")
        cache.fill_(1)

    device: Any = SimpleNamespace(type="cuda")
    assert time_calls(call, device, rounds=5, flushed=8) == 2.0
    assert told == ["warm", *["record", "call", "record"] * 5, "synchronize"]


def test_a_row_is_in_the_file_before_the_next_is_measured(out: Path) -> None:
    out.write_text('{"of": "another run"}\n')
    lines = Lines(out)
    for count in (1, 2):
        lines.add(count=count)
        assert [row["count"] for row in rows_of(out)] == [1, 2][:count]


def test_an_error_is_told_in_one_line() -> None:
    assert say(Unavailable("no such back end")) == "no such back end"
    assert say(KeyError("x")) == "KeyError: 'x'"
    assert say(RuntimeError()) == "RuntimeError: "


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = importlib.import_module("measuring").make_parser("")
    for there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert read_flags(parser, []).device.type == device


def test_the_environment_says_what_is_installed_and_what_is_not(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "missing", lambda names: ["scipy"])
    environment.main(["--small", "--device", "cpu", "--out", str(out)])
    (row,) = rows_of(out)
    assert row["packages"]["torch"] == importlib.metadata.version("torch")
    assert (row["device"], row["missing_for_tests"]) == ("cpu", ["scipy"])


MARKED = """
import pytest
gpu = pytest.mark.gpu
@gpu
def test_passes(): pass
@gpu
def test_fails(): assert 1 + 1 == 3
@gpu
def test_skips(): pytest.skip("no reason")
@gpu
def test_needs_a_fixture(run): pass
def test_of_a_cpu(run): pass
"""
STAND_IN = """
import sys, pathlib, marked_tests
marked_tests.find_files = lambda: [pathlib.Path(sys.argv[2])]
marked_tests.missing = lambda names: sys.argv[4:]
marked_tests.main(["--out", sys.argv[1], "--device", sys.argv[3]])
"""


def marked(tmp_path: Path, *words: str) -> list[dict[str, Any]]:
    """The rows of a file with four such tests."""
    out, file = tmp_path / "rows.jsonl", tmp_path / "test_marked.py"
    file.write_text(MARKED, "utf-8")
    in_a_process("-c", STAND_IN, out, file, *words)
    return rows_of(out)


@pytest.mark.slow
def test_marked_tests_run_on_a_gpu_with_a_row_for_each(tmp_path: Path) -> None:
    why, *rows = marked(tmp_path, "cuda", "scipy")
    assert why == {"absent": "tests with fixtures: scipy not installed"}
    assert {row["test"].partition("::")[2]: row["outcome"] for row in rows} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_skips": "skipped",
        "test_needs_a_fixture": "not run",
    }
    (failed,) = (row["failed"] for row in rows if "failed" in row)
    assert failed.startswith("assert (1 + 1) == 3")


@pytest.mark.slow
def test_marked_tests_are_but_named_without_a_gpu(tmp_path: Path) -> None:
    assert [row["outcome"] for row in marked(tmp_path, "cpu")] == ["not run"] * 4


def test_every_file_with_tests_for_a_gpu_is_found() -> None:
    found = {file.name for file in importlib.import_module("marked_tests").find_files()}
    assert {"test_gpu.py", "test_data_images.py"} <= found
    assert Path(__file__).name not in found


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [pytest.param(tickets.RECIPE, marks=pytest.mark.slow), tickets.SMALL_RECIPE],
    ids=["whole", "small"],
)
def test_the_short_run_is_one_that_imp_takes(
    settings: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    flags = [word for setting in settings for word in ("--set", setting)]
    recipe = ("--recipe", "fashion-mnist-mini", "--out", tmp_path / "run")
    done = run("imp", *recipe, *flags, "--device", "cpu", "--dry-run")
    assert done.returncode == 0, done.stderr


TICKETS = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
ticket = {"kind": "ticket", "method": "imp", "pruned": 3, "prunable": 4, "test": {"accuracy": 0.5}}
with open(folder / "metrics.jsonl", "w") as file:
    for part in (json.dumps({"kind": "epoch"}) + "\\n", json.dumps(ticket) + "\\n", '{"kind": "ti'):
        file.write(part)
        file.flush()
        time.sleep(0.1)
print("warning", file=sys.stderr)
print("error: out of memory", file=sys.stderr)
sys.exit(3)
"""


def test_tickets_are_told_as_they_come_and_why_the_run_ended(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(
        neurons: str, device: str, folder: Path, errors: Any, *, small: bool
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", TICKETS, str(folder)], stderr=errors)

    monkeypatch.setattr(tickets, "start", start)
    monkeypatch.setattr(tickets, "POLL", 0.02)
    assert tickets.main(["--device", "cuda", "--out", str(out)]) == 3
    rows = rows_of(out)
    assert [row["neurons"] for row in rows] == ["plain", "plain", "triton", "triton"]
    ticket, end = rows[:2]
    assert (ticket["sparsity"], ticket["accuracy"]) == (0.75, 0.5)
    assert (end["exit_code"], end["failed"]) == (3, "error: out of memory")
