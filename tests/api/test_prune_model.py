"""Calls on a network of this process: the numbers of the commands, and nothing of it changed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import sinabs.layers
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from valid_reports import assert_valid

import snnprune
from snnprune.checkpoint.mask_file import read_masks
from snnprune.errors import GateError, InputError, OutputError, SnnpruneError, UsageError
from snnprune.models.lif import LIF, Dynamics

Run = Callable[..., subprocess.CompletedProcess[str]]

SOURCE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from snnprune.models.lif import LIF, Dynamics


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.spikes = nn.Linear(12, 24), nn.BatchNorm1d(24), LIF(Dynamics())
        self.second, self.spikes2 = nn.Linear(24, 16), LIF(Dynamics())
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        x = self.norm(self.first(x)).expand(3, -1, -1)
        return self.out(self.spikes2(3 * self.second(self.spikes(2 * x))))


def build():
    torch.manual_seed(0)
    return Net()


def batches():
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(192, 12, generator=drawn)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=32)
"""


NAMES = ("build", "batches", "Net")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`own.build()` and `own.batches()`, in a folder with the file `own.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("own.py").write_text(SOURCE)
    scope: dict[str, Any] = {"__name__": "own"}
    exec(SOURCE, scope)
    return type("Own", (), {name: staticmethod(scope[name]) for name in NAMES})


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []


TOLD = {"cost", "inputs", "model", "data", "outputs", "command_line", "gates"}
"""What a report has of the way that it was asked for; a file has it too, which counts for gates."""


@pytest.mark.many(2)
@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 0.8, "tune_steps": 4},
        {"sparsity": 0.5, "structure": "channels", "allocation": "local", "criterion": "magnitude"},
        {"bits": 4, "effort": "fast", "sparsity": 0.6, "report": "evidence"},
        {"structure": "1:2", "criterion": "wanda"},
        {"max_accuracy_drop": 10, "effort": "fast", "resolution": 0.1},
        {"sparsity": 0.7, "min_sparsity": 0.7, "max_size": "9000", "seed": 3, "steps": 2},
    ],
    ids=["tuned", "channels", "bits", "pattern", "search", "gates"],
)
@pytest.mark.usefixtures("unrendered")
def test_a_call_gives_the_tensors_masks_and_report_of_the_command(
    own: Any, run: Run, options: dict[str, Any]
) -> None:
    model = own.build()
    torch.save(model.state_dict(), "given.pth")
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words = ("--model", "own.py:build", "--data", "own.py:batches", "-o", "by-command.safetensors")
    flags = [word.replace("_", "-") if word.startswith("--") else word for word in flags]
    done = run("prune", "given.pth", *words, *flags, "--json")
    assert done.returncode == 0, done.stderr
    folder = {"report": "by-call"} if "report" in options else {}

    result = snnprune.prune_model(model, own.batches(), **{**options, **folder})

    expected = load_file("by-command.safetensors")
    assert_same(tensors_of(result.model), expected)
    assert_same(dict(result.masks), read_masks(Path("by-command.mask.safetensors")))
    assert_valid(result.report)
    by_command = json.loads(done.stdout)
    assert result.report.keys() == by_command.keys()
    met = [[gate["met"] for gate in one.get("gates", ())] for one in (result.report, by_command)]
    assert met[0] == met[1]
    assert [k for k in by_command.keys() - TOLD if result.report[k] != by_command[k]] == []
    assert_same(tensors_of(model), tensors_of(own.build()))
    result.model(next(iter(own.batches()))[0])  # it runs
    assert not folder or Path("by-call/report.html").is_file()

    gates = result.report.get("gates")
    result.save("by-call.safetensors")

    assert result.report.get("gates") == gates  # the size of the file was known before
    assert_same(load_file("by-call.safetensors"), expected)
    for kind in ("mask", "integers") if "bits" in options else ("mask",):
        files = (f"{by}.{kind}.safetensors" for by in ("by-call", "by-command"))
        assert_same(*map(load_file, files))
    assert json.loads(Path("by-call.report.json").read_text()) == result.report
    assert [one["path"] for one in result.report["outputs"]][:1] == ["by-call.safetensors"]


def test_in_place_parameters_stay_the_objects_that_they_are(own: Any) -> None:
    model = own.build().train()
    parameters = [*model.parameters()]
    result = snnprune.prune_model(model, own.batches(), sparsity=0.5, criterion="sf", copy=False)
    assert result.model is model
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert model.training
    for key, mask in result.masks.items():
        assert torch.equal(model.get_parameter(key) != 0, mask)
    again = snnprune.prune_model(own.build(), own.batches(), sparsity=0.5, criterion="sf")
    assert_same(tensors_of(model), tensors_of(again.model))
    assert again.model.training


def test_a_compiled_or_parallel_network_is_the_one_inside(own: Any) -> None:
    expected = snnprune.prune_model(own.build(), own.batches(), sparsity=0.5, criterion="sf")
    wrapped = nn.DataParallel(cast(nn.Module, torch.compile(own.build())))
    result = snnprune.prune_model(wrapped, own.batches(), sparsity=0.5, criterion="sf")
    assert_same(dict(result.masks), dict(expected.masks))
    assert type(result.model).__name__ == "Net"
    inside = snnprune.prune_model(wrapped, own.batches(), sparsity=0.5, criterion="sf", copy=False)
    assert inside.model is wrapped
    assert_same(dict(inside.masks), dict(expected.masks))
    assert not wrapped.module.get_parameter("_orig_mod.first.weight")[
        ~inside.masks["first.weight"]
    ].any()


class Remembering(nn.Module):
    """Keeps a membrane that a graph of autograd hangs on, as libraries do after a step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.out = nn.Linear(12, 24), nn.Linear(24, 3)
        self.seen: dict[str, list[Tensor]] = {"membranes": []}

    def forward(self, x: Tensor) -> Tensor:
        membrane = 2 * self.first(x)
        self.seen = {"membranes": [membrane]}
        soft = torch.sigmoid(membrane - 1)
        return self.out((membrane > 1).to(x) + soft - soft.detach())


def test_what_a_training_left_in_a_network_is_no_obstacle_and_stays(own: Any) -> None:
    model = Remembering()
    model(torch.randn(5, 12)).sum().backward()
    kept = model.seen["membranes"][0]
    result = snnprune.prune_model(model, own.batches(), sparsity=0.5, effort="fast")
    assert model.seen["membranes"][0] is kept
    fresh = snnprune.prune_model(Remembering(), own.batches(), sparsity=0.5, effort="fast")
    assert_same(tensors_of(result.model), tensors_of(fresh.model))


class Stateful(nn.Module):
    """A neuron of somebody's own that goes on from where the last batch left it."""

    def __init__(self) -> None:
        super().__init__()
        self.mem: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.mem = x if self.mem is None else 0.5 * self.mem + x
        return (self.mem > 1).to(x)


def test_a_membrane_that_nobody_put_at_rest_is_told(own: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), Stateful(), nn.Linear(24, 3))
    assert not any("earlier batch" in one for one in evaluated(model, own))
    model(torch.randn(32, 12))
    assert any(
        one.startswith("left by an earlier batch") and "1.mem" in one
        for one in evaluated(model, own)
    )
    with torch.no_grad():
        model[1].mem = torch.zeros(32, 24)
    assert any("1.mem" in one for one in evaluated(model, own))


def evaluated(model: nn.Module, own: Any) -> tuple[str, ...]:
    return snnprune.evaluate_model(model, own.batches()).warnings


def test_membranes_that_a_library_saves_are_not_those_of_the_last_batch(own: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), sinabs.layers.LIF(tau_mem=5.0), nn.Linear(24, 3))
    fresh = tensors_of(model)
    batches = [(3 * torch.rand(8, 4, 12), torch.randint(3, (8,))) for _ in range(4)]
    model(batches[0][0])
    result = snnprune.prune_model(model, batches, sparsity=0.5, effort="fast")
    assert model[1].v_mem.shape == (8, 24)
    found = tensors_of(result.model)
    assert {key: one.shape for key, one in found.items()} == {k: v.shape for k, v in fresh.items()}
    result.model(batches[0][0][:3])
    in_place = snnprune.prune_model(model, batches, sparsity=0.5, effort="fast", copy=False)
    assert_same(dict(in_place.masks), dict(result.masks))
    model(batches[0][0][:3])


def test_scores_and_measures_are_those_of_the_commands(own: Any, run: Run) -> None:
    model = own.build()
    torch.save(model.state_dict(), "given.pth")
    words = ("given.pth", "--model", "own.py:build", "--data", "own.py:batches", "--json")
    scored = run("score", *words, "--criterion", "sf", "-o", "scores.safetensors")
    result = snnprune.score_model(model, own.batches(), criterion="sf", out="mine.safetensors")
    assert_same(load_file("mine.safetensors"), load_file("scores.safetensors"))
    assert_valid(result.report)
    measured = snnprune.evaluate_model(model, own.batches())
    assert_valid(measured.report)
    by_command = json.loads(run("eval", *words).stdout)
    for report, other in (
        (result.report, json.loads(scored.stdout)),
        (measured.report, by_command),
    ):
        assert [k for k in other.keys() - TOLD if report[k] != other[k]] == []
    assert measured.accuracy == by_command["evaluation"]["correct"] / 192
    work = by_command["workload"]
    assert measured.synops == (work["macs"] + work["acs"]) / 192
    assert set(measured.firing_rates) == {"spikes", "spikes2"}
    assert result.scores["out.weight"].shape == (3, 16)


def functions_of(own: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The same samples, given in one way after the other."""
    pairs = [*own.batches()]
    yield pairs, {}
    yield lambda: iter(pairs), {}
    yield {"train": pairs[:1], "test": pairs}, {}
    yield {"train": pairs[:1], "test": lambda: iter(pairs)}, {}
    yield (
        [{"x": x, "label": y} for x, y in pairs],
        {"forward": lambda model, batch: model(batch["x"])},
    )
    yield pairs, {"readout": lambda steps: steps.sum(0)}


def test_batches_may_be_given_in_any_way_that_data_have(own: Any) -> None:
    model = own.build()
    found = [
        snnprune.evaluate_model(model, batches, **options) for batches, options in functions_of(own)
    ]
    assert len({one.accuracy for one in found}) == 1
    assert found[2].report["split"] == "test"
    named = snnprune.evaluate_model(
        snnprune_picture_model(), "fashion-mnist-mini", limit=64, split="train"
    )
    assert named.report["data"]["name"] == "fashion-mnist-mini"
    assert named.report["evaluation"]["samples"] == 64


def snnprune_picture_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), LIF(Dynamics()), nn.Linear(8, 10))


def rates(evidence: Any) -> Tensor:
    """A criterion of one's own that is found by its name, as in a notebook."""
    found: Tensor = evidence.weight.abs()
    return found


own_criterion = snnprune.criterion(needs="weight")(rates)


def test_an_option_may_be_a_function_that_is_found_by_its_name(
    own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.rates", own_criterion)  # as a decorator leaves it
    found = snnprune.score_model(own.build(), own.batches(), criterion=own_criterion)
    assert found.report["criterion"] == f"{__name__}:rates"
    assert torch.equal(found.scores["out.weight"], own.build().out.weight.detach().abs())
    local = snnprune.criterion(needs="weight")(lambda evidence: evidence.weight)
    with pytest.raises(UsageError, match="define it outside of functions"):
        snnprune.score_model(own.build(), own.batches(), criterion=local)


def fails(model: nn.Module, x: Tensor) -> Tensor:
    raise ValueError("of mine")


WRONG: list[tuple[str, Callable[[Any], Any], type[SnnpruneError], str]] = [
    ("option", lambda own: {"sparsty": 0.5}, UsageError, "sparsty: .* did you mean sparsity?"),
    ("data", lambda own: {"sparsity": 0.5, "data": "x"}, UsageError, "data: is no option here"),
    ("out", lambda own: {"sparsity": 0.5, "out": "x"}, UsageError, r"out: .*save\(path\)"),
    ("percent", lambda own: {"sparsity": 80}, UsageError, r"sparsity: 80 is .*did you mean 0\.8\?"),
    ("several", lambda own: {"sparsity": [0.5, 0.8]}, UsageError, "call it once for each"),
    ("missing", lambda own: {}, UsageError, "sparsity: missing. or give a limit such as max_"),
    ("kind", lambda own: {"sparsity": 0.5, "samples": 1.5}, UsageError, "samples: 1.5 is no whole"),
    ("range", lambda own: {"sparsity": 0.5, "samples": 0}, UsageError, "samples: 0 is below 1"),
    ("flag", lambda own: {"sparsity": 0.5, "evaluate": 0}, UsageError, "evaluate: 0 is neither"),
    ("name", lambda own: {"sparsity": 0.5, "criterion": "obd"}, UsageError, "did you mean obs?"),
    ("exclude", lambda own: {"sparsity": 0.5, "exclude": "conv*"}, InputError, "^exclude: "),
    ("device", lambda own: {"sparsity": 0.5, "device": "mps"}, UsageError, "^device: mps has"),
    ("progress", lambda own: {"sparsity": 0.5, "progress": 3}, UsageError, "^progress: a int"),
    ("class", lambda own: {"model": own.Net}, UsageError, r"the class Net .* call it: Net\(\)"),
    ("state", lambda own: {"model": own.build().state_dict()}, UsageError, "model: OrderedDict is"),
    ("lazy", lambda own: {"model": nn.LazyLinear(3)}, UsageError, "weight has no values yet"),
    ("plain", lambda own: {"model": nn.Linear(12, 3)}, InputError, "model: no spiking neuron"),
    ("tensor", lambda own: {"batches": torch.rand(8, 12)}, UsageError, "batches: is one batch"),
    ("pair", lambda own: {"batches": (torch.rand(8, 12), None)}, UsageError, "is one batch"),
    ("set", lambda own: {"batches": own.batches().dataset}, UsageError, "gives single samples"),
    ("once", lambda own: {"batches": iter([torch.rand(8, 12)])}, UsageError, "only once"),
    ("number", lambda own: {"batches": 5}, UsageError, "batches: int is no batches"),
    ("split", lambda own: {"batches": {"tran": []}}, UsageError, "did you mean train?"),
    ("train", lambda own: {"batches": {"test": []}}, UsageError, "batches: has no train"),
    ("unknown", lambda own: {"batches": "mnistt"}, UsageError, "did you mean mnist?"),
    ("empty", lambda own: {"batches": []}, InputError, "batches: list gave no batches"),
    ("code", lambda own: {"forward": fails}, InputError, "forward: .*:fails .* ValueError: of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "kind", "told"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_is_wrong_is_told_in_one_line_in_the_words_of_the_call(
    own: Any, options: Callable[[Any], dict[str, Any]], kind: type[SnnpruneError], told: str
) -> None:
    found = options(own)
    data = {"model": own.build(), "batches": own.batches()}
    wrong = {**({"sparsity": 0.5} if found.keys() & {*data, "forward"} else {}), **data, **found}
    with pytest.raises(kind, match=told) as caught:
        snnprune.prune_model(**wrong)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_network_that_cannot_be_copied_is_refused(own: Any) -> None:
    model = own.build()
    model.handle = (number for number in range(3))  # no generator can be copied
    with pytest.raises(InputError, match="Net cannot be copied: TypeError"):
        snnprune.prune_model(model, own.batches(), sparsity=0.5)


def test_a_gate_that_is_not_met_raises_and_leaves_the_network_and_the_result(own: Any) -> None:
    model = own.build()
    with pytest.raises(GateError, match="Net: 1 of 1 gates not met: min_sparsity") as caught:
        snnprune.prune_model(
            model, own.batches(), sparsity=0.5, effort="fast", min_sparsity=0.6, copy=False
        )
    assert_same(tensors_of(model), tensors_of(own.build()))
    result = caught.value.result
    assert isinstance(result, snnprune.api.results.PruningResult)
    assert result.sparsity == pytest.approx(0.5, abs=1e-3)
    assert not result.report["ok"]
    assert "NOT MET" in result._repr_html_()


def test_an_error_late_in_the_work_leaves_a_network_in_place_as_it_was(
    own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("snnprune.jobs.prune.measuring.NetworkMeter.evaluate_test", stop)
    model = own.build()
    with pytest.raises(KeyboardInterrupt):
        snnprune.prune_model(model, own.batches(), sparsity=0.5, criterion="sf", copy=False)
    assert_same(tensors_of(model), tensors_of(own.build()))


def test_what_the_caller_draws_and_has_set_of_autograd_is_the_caller_s(own: Any) -> None:
    shuffled = DataLoader(TensorDataset(torch.randn(64, 12)), batch_size=16, shuffle=True)
    model = own.build()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.inference_mode():
        result = snnprune.prune_model(model, shuffled, sparsity=0.8, tune_steps=2)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(torch.rand(1), expected)
    assert result.report["repair"] == "tune"
    assert not any(one.is_inference() for one in result.model.parameters())


def test_a_result_is_saved_once_to_files_that_can_hold_it(own: Any) -> None:
    result = snnprune.prune_model(
        own.build(), own.batches(), sparsity=0.5, structure="channels", criterion="magnitude"
    )
    with pytest.raises(InputError, match=r"only a \.safetensors file can say"):
        result.save("small.pth")
    with pytest.raises(UsageError, match=r"path: small\.nir: a network can be written as \.pt"):
        result.save("small.nir")
    result.save("small.safetensors")
    with pytest.raises(OutputError, match="exists already"):
        result.save("small.safetensors")
    result.save("small.safetensors", force=True)
    model = snnprune.shrink(own.build(), "small.safetensors")
    model.load_state_dict(load_file("small.safetensors"))
    whole = snnprune.prune_model(own.build(), own.batches(), sparsity=0.5, effort="fast")
    whole.save("whole.pth")
    read = torch.load("whole.pth", weights_only=True)
    assert_same(read, tensors_of(whole.model))


def test_a_result_shows_itself_in_a_line_and_in_a_notebook(own: Any) -> None:
    class Net(own.Net):  # type: ignore[misc]  # of a file
        pass

    Net.__qualname__ = "<img src=x onerror=alert(1)>"
    torch.manual_seed(0)
    model = Net()
    result = snnprune.prune_model(model, own.batches(), sparsity=0.5, effort="fast")
    assert repr(result).startswith(
        "<PruningResult: 50.0% sparse, 360 of 720 weights kept, accuracy"
    )
    shown = result._repr_html_()
    assert "<img" not in shown
    assert "<script" not in shown
    assert all(title in shown for title in ("Before and after", "Layers", "Warnings", "first"))
    assert "--test-data" not in shown
    assert "no test samples" in shown
    measured = snnprune.evaluate_model(own.build(), own.batches())
    assert repr(measured).startswith("<EvaluationResult: accuracy ")
    assert "Measured" in measured._repr_html_()
    scored = snnprune.score_model(own.build(), own.batches(), criterion="magnitude")
    assert repr(scored).startswith("<ScoringResult: 720 weights in 3 layers, magnitude (linear)")


class Shell:
    """A kernel's shell and display, as far as they are used."""

    kernel = object()

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool = False) -> Any:
        assert raw
        self.shown.append(data["text/html"])
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        self.display(data, raw=raw)


def test_a_notebook_sees_bars_that_are_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from snnprune.api import progress

    shell = Shell()
    monkeypatch.setattr(progress, "_find_notebook", lambda: shell.display)
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    bars = progress.choose_progress(None)
    with bars.within("<both>", total=6):
        for label in ("one", "two"):
            assert [*bars.track(range(3), label=label, total=3)] == [0, 1, 2]
    assert len(shell.shown) == 7
    assert "&lt;both&gt;" in shell.shown[0]
    assert 'value="2" max="3"' in shell.shown[5]
    assert shell.shown[-1] == ""


@pytest.mark.slow
def test_on_a_gpu_a_network_stays_there_and_gives_the_same_numbers() -> None:
    # in a process, which keeps the pretended GPU for good
    done = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).parents[1] / "devices" / "api_on_a_gpu.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_there_is_to_use_is_listed() -> None:
    names = dir(snnprune)
    assert {"prune_model", "score_model", "evaluate_model", "hold_masks", "MaskCallback"} < {*names}
    assert not {"sys", "warnings", "HOME", "MOVED", "Any"} & {*names}
    for name in snnprune.__all__:
        assert getattr(snnprune, name) is not None
        assert name in names
