"""`prune` that tunes: by default where it can, as asked, and never without saying so."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from snnprune.jobs.prune import methods
from snnprune.jobs.prune.methods import MethodChoice
from snnprune.jobs.prune.pruned_model import PrunedModel
from snnprune.jobs.prune.work import TIMES, tune_longer
from snnprune.pruning.oneshot import Plan
from snnprune.pruning.prune import PruneResult
from snnprune.pruning.repair import TuneOutcome, TuneSettings

from one_line import assert_one_line  # isort: skip

Run = Callable[..., subprocess.CompletedProcess[str]]
SHORT = ("--tune-steps", 12, "--tune-images", 96)


@pytest.fixture
def prune(untrained: Path, run: Run, tmp_path: Path) -> Run:
    """`prune("--sparsity", 0.5)`: writes p.safetensors in the test's folder, or `out`."""

    def pruned(*flags: object, out: str = "p.safetensors") -> subprocess.CompletedProcess[str]:
        few = ("--samples", 64, "--eval-samples", 64)
        return run("prune", untrained, "-o", tmp_path / out, *few, *flags)

    return pruned


def report(tmp_path: Path, name: str = "p") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / f"{name}.report.json").read_text())
    return found


def test_it_is_tuned_by_default_and_the_report_says_how(prune: Run, tmp_path: Path) -> None:
    done = prune("--sparsity", 0.9, *SHORT)
    assert done.returncode == 0, done.stderr
    found = report(tmp_path)
    total = found["totals"]["prunable"]
    assert (found["criterion"], found["repair"]) == ("magnitude", "tune")
    assert found["tuning"]["steps"] == 12
    assert found["tuning"]["images"] == 96
    assert found["tuning"]["augment"] == ["flip"]
    assert found["tuning"]["kept"] == total - round(0.9 * total)
    assert found["tuning"]["kept_before"] > 0.49 * total
    assert "tuned by 12 steps on 96 images and the dense network's outputs" in done.stdout
    weights = [w for w in load_file(tmp_path / "p.safetensors").values() if w.dim() > 1]
    assert sum(int((weight != 0).sum()) for weight in weights) == found["tuning"]["kept"]


@pytest.mark.slow
def test_the_number_of_steps_follows_from_their_cost(
    prune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "STEPS", 14)
    monkeypatch.setattr(methods, "LEAST", 9)
    done = prune("--sparsity", 0.9, "--no-eval", "--tune-images", 96)
    assert done.returncode == 0, done.stderr
    assert report(tmp_path)["tuning"]["steps"] == 14
    why = report(tmp_path)["tuning_because"]
    assert why.startswith("14 steps of 0.0")
    assert f"tuned so because {why}" in done.stdout
    cost = float(why.split()[3]) * 1e9
    monkeypatch.setattr(methods, "MINUTE", int(10.5 * cost))
    prune("--sparsity", 0.9, "--no-eval", "--tune-images", 96, out="q.safetensors")
    assert report(tmp_path, "q")["tuning"]["steps"] == 10
    monkeypatch.setattr(methods, "MINUTE", int(8.5 * cost))
    done = prune("--sparsity", 0.9, "--no-eval", out="r.safetensors")
    assert report(tmp_path, "r")["tuning"] is None
    assert "not tuned: 9 steps of 0.0" in done.stdout


@pytest.mark.slow
def test_where_half_goes_at_most_magnitude_is_taken_and_judged(prune: Run, tmp_path: Path) -> None:
    done = prune("--sparsity", 0.5, "--no-eval")
    assert done.returncode == 0, done.stderr
    told = "not tuned: no more than half of the weights go, and"
    assert told in done.stdout
    assert report(tmp_path)["tuning_because"].startswith(told)
    assert report(tmp_path)["repair"] == "bn"
    by_hand = ("--criterion", "magnitude", "--allocation", "lamp", "--repair", "bn")
    prune("--sparsity", 0.5, "--no-eval", *by_hand, out="a.safetensors")
    prune("--sparsity", 0.5, "--no-eval", "--no-tune", out="q.safetensors")
    files = [load_file(tmp_path / f"{name}.safetensors") for name in ("p", "a", "q")]
    for other in files[1:]:
        assert all(torch.equal(files[0][key], other[key]) for key in files[0])
    assert "closed form was asked for" in report(tmp_path, "q")["tuning_because"]
    done = prune("--sparsity", 0.5, "--no-eval", *SHORT, out="r.safetensors")
    assert report(tmp_path, "r")["repair"] == "tune"


def test_where_too_many_decisions_change_half_is_tuned_too(
    prune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "STEPS", 9)
    monkeypatch.setattr(methods, "LEAST", 9)
    monkeypatch.setattr(methods, "SAME", 1.01)
    done = prune("--sparsity", 0.4, "--no-eval")
    assert done.returncode == 0, done.stderr
    found = report(tmp_path)
    assert (found["repair"], found["tuning"]["steps"]) == ("tune", 9)
    assert "9 steps of" in found["tuning_because"]
    assert "without, only" in found["tuning_because"]
    assert f"tuned so because {found['tuning_because']}" in done.stdout


def test_a_choice_is_judged_by_the_decisions_that_stay() -> None:
    tuned = MethodChoice(
        plan=Plan(criterion="magnitude", repair="tune"), why="so", tuning_why="960 steps"
    )
    plain = MethodChoice(
        plan=Plan(criterion="magnitude", repair="bn"),
        why="so",
        tuning_why="not tuned: half",
        otherwise=tuned,
    )
    kept, changed = plain.judge(0.9), plain.judge(0.8999)
    assert (kept.plan.repair, changed.plan.repair) == ("bn", "tune")
    assert kept.otherwise is None
    assert kept.tuning_why is not None
    assert kept.tuning_why.startswith("not tuned: half, and 90.0% of the decisions")
    assert changed.tuning_why is not None
    assert changed.tuning_why.startswith("960 steps; without, only 90.0% of")


@pytest.mark.slow
def test_the_closed_form_needs_no_scores_and_is_that_of_sf_obs(prune: Run, tmp_path: Path) -> None:
    by_scores = ("--criterion", "sf-obs", "--allocation", "lamp-magnitude", "--repair", "obs")
    for flags, out in ((by_scores, "a"), (("--no-tune",), "b"), (("--effort", "fast"), "c")):
        done = prune("--sparsity", 0.8, "--no-eval", *flags, out=f"{out}.safetensors")
        assert done.returncode == 0, done.stderr
    files = [load_file(tmp_path / f"{name}.safetensors") for name in "abc"]
    for other in files[1:]:
        assert all(torch.equal(files[0][key], other[key]) for key in files[0])
    assert report(tmp_path, "b")["criterion"] == "magnitude"
    assert report(tmp_path, "b")["tuning"] is None
    assert "closed form was asked for" in report(tmp_path, "b")["tuning_because"]


def test_a_seed_gives_the_same_file_again(prune: Run, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prune("--sparsity", 0.9, "--no-eval", *SHORT, "--seed", seed, out=f"{name}.safetensors")
    a, b, c = (load_file(tmp_path / f"{name}.safetensors") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["2:4", "channels"])
def test_a_structure_holds_while_it_is_tuned(prune: Run, tmp_path: Path, structure: str) -> None:
    asked = ("--sparsity", 0.3) if structure == "channels" else ()
    shape = ("--structure", structure, *asked, "--no-eval")
    done = prune(*shape, *SHORT)
    assert done.returncode == 0, done.stderr
    assert report(tmp_path)["repair"] == "obs+tune"
    closed = prune(*shape, "--no-tune", out="q.safetensors")
    assert closed.returncode == 0, closed.stderr
    tuned, plain = (load_file(tmp_path / f"{name}.mask.safetensors") for name in "pq")
    assert all(torch.equal(tuned[key], plain[key]) for key in plain)


@pytest.mark.slow
def test_labels_and_augmentation_are_as_asked(prune: Run, tmp_path: Path) -> None:
    done = prune("--sparsity", 0.9, *SHORT, "--use-labels", "--augment", "flip,shift", "--no-eval")
    assert done.returncode == 0, done.stderr
    tuning = report(tmp_path)["tuning"]
    assert (tuning["use_labels"], tuning["temperature"]) == (True, None)
    assert tuning["augment"] == ["flip", "shift"]
    assert "96 images and their labels" in done.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--effort", "fas"), ("--effort", "did you mean fast?")),
        (("--no-tune", "--effort", "thorough"), ("--no-tune", "beside --effort thorough")),
        (("--no-tune", "--tune-steps", 3), ("--tune-steps", "nothing is tuned")),
        (("--tune-lr", 0), ("--tune-lr", "positive")),
        (("--augment", "flop"), ("--augment", "did you mean flip?")),
        (("--repair", "bn", "--tune-lr", 0.1), ("--tune-lr", "repair bn does not")),
        (("--criterion", "magnitude", "--effort", "thorough"), ("--effort", "--repair tune")),
    ],
)
def test_what_does_not_go_together_is_refused(
    prune: Run, flags: tuple[object, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(prune("--sparsity", 0.9, *flags), 2, *words)


HARD = """
import os
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(9, 8), nn.Linear(8, 3)
    def forward(self, x):
        current = self.first(x)
        if os.environ.get("DETACHED"):
            current = current.detach()
        return torch.stack([self.last((current >= 0.1).float()) for _ in range(2)])
def batches():
    x = torch.rand(64, 9, generator=torch.Generator().manual_seed(0))
    return [(x, torch.arange(64) % 3)]
"""


@pytest.fixture
def hard(tmp_path: Path, run: Run) -> Run:
    """`prune` of a network whose spikes let no gradient through."""
    (tmp_path / "net.py").write_text(HARD)
    scope: dict[str, Any] = {}
    exec(HARD, scope)
    torch.manual_seed(0)
    torch.save(scope["Net"]().state_dict(), tmp_path / "net.pt")
    where = ("--model", f"{tmp_path}/net.py:Net", "--data", f"{tmp_path}/net.py:batches")
    out = ("-o", tmp_path / "p.safetensors", "--sparsity", 0.6)
    return lambda *flags: run("prune", tmp_path / "net.pt", *where, *out, *flags)


def test_spikes_without_a_gradient_are_given_one_and_it_is_told(hard: Run, tmp_path: Path) -> None:
    done = hard("--tune-steps", 12)
    assert done.returncode == 0, done.stderr
    assert "12 steps were asked for, with a surrogate gradient of snnprune's own" in done.stdout
    assert report(tmp_path)["tuning"]["surrogate"] is True
    before, after = (torch.load(tmp_path / "net.pt"), load_file(tmp_path / "p.safetensors"))
    kept = after["first.weight"] != 0
    assert bool((after["first.weight"] != before["first.weight"])[kept].all())
    again = hard("--force", "--repair", "tune", "--tune-steps", 12)
    assert again.returncode == 0, again.stderr
    assert report(tmp_path)["tuning"]["surrogate"] is True


def test_without_gradients_the_closed_form_is_taken_and_told(
    hard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETACHED", "1")
    done = hard()
    assert done.returncode == 0, done.stderr
    assert "not tuned: no gradient reaches first" in done.stdout
    assert report(tmp_path)["repair"] == "obs"
    assert_one_line(hard("--force", "--tune-steps", 3), 3, "--tune-steps", "no gradient reaches")
    assert_one_line(hard("--force", "--effort", "thorough"), 3, "--effort", "no gradient reaches")


@pytest.mark.slow
def test_a_search_for_an_accuracy_is_tuned_where_it_is_asked_for(prune: Run) -> None:
    done = prune("--target-accuracy", 0.05, "--resolution", 0.25)
    assert done.returncode == 0, done.stderr
    assert "not tuned: each sparsity that is tried would take a minute" in done.stdout


def outcome(loss: float, steps: int) -> PrunedModel:
    tuned = TuneOutcome(
        steps=steps,
        images=1,
        learning_rate=0.1,
        use_labels=False,
        surrogate=False,
        augment=(),
        temperature=1.0,
        kept_before=2,
        kept=1,
        loss_at_first=9.0,
        loss_at_goal=9.0,
        loss_at_last=loss,
    )
    cut = PruneResult(masks={}, already_zero=0)
    plan = Plan(criterion="magnitude", repair="none", tuning=TuneSettings(steps=steps))
    choice = MethodChoice(plan=plan, why="asked for")
    return PrunedModel(cut=cut, tensors={}, choice=choice, tuned=tuned)


@pytest.mark.parametrize(
    ("losses", "best", "tries"),
    [
        ((1.0, 0.5, 0.3, 0.2), 0.2, 3),
        ((1.0, 0.5, 0.49, 0.1), 0.49, 2),
        ((1.0, 1.1, 0.1, 0.1), 1.0, 1),
    ],
)
def test_it_goes_on_as_long_as_it_pays(losses: tuple[float, ...], best: float, tries: int) -> None:
    asked: list[int] = []

    def make(longer: MethodChoice) -> PrunedModel:
        asked.append(longer.plan.tuning.steps)
        return outcome(losses[len(asked)], asked[-1])

    found = tune_longer(outcome(losses[0], 10), make)
    assert found.tuned is not None
    assert found.tuned.loss_at_last == best
    assert asked == [10 * times for times in TIMES[:tries]]
