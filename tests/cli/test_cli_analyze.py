"""`analyze` as it is typed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_line import assert_one_line
from safetensors.torch import load_file

Run = Callable[..., subprocess.CompletedProcess[str]]
FEW = ("--samples", 64, "--eval-samples", 64)


def found_by(run: Run, *arguments: object) -> Any:
    done = run("analyze", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def flips(found: Any) -> list[float]:
    """The most of any layer, by level."""
    return [max(one["measured"] for one in level["layers"]) for level in found["levels"]]


@pytest.mark.many(1)
@pytest.mark.parametrize(
    "command",
    [
        ("quantize", "--bits", "8,4,2"),
        ("lowrank", "--keep", "0.9,0.5,0.25"),
        ("prune", "--sparsity", "0.1,0.5,0.9"),
        ("noise", "--level", "0.05,0.2,0.8"),
    ],
    ids=lambda command: str(command[0]),
)
def test_a_stronger_change_flips_more_spikes(
    command: tuple[object, ...], run: Run, model_file: Path
) -> None:
    name, *flags = command
    found = found_by(run, name, model_file, *flags, *FEW)
    assert flips(found) == sorted(flips(found))
    assert flips(found)[0] < flips(found)[-1]
    assert found["dense"]["labelled"] == 64
    assert all(level["evaluation"]["labelled"] == 64 for level in found["levels"])


def test_the_table_and_with_v_each_layer(run: Run, model_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    done = run("analyze", "quantize", model_file, "--bits", "4,2", "-v", *FEW, "--report", page)
    assert done.returncode == 0, done.stderr
    assert "first to break" in done.stdout
    assert done.stdout.count("E|du|") == 2
    assert "What the change does" in (page / "report.html").read_text()


@pytest.mark.many(1)
@pytest.mark.parametrize(
    "flags", [("quantize", "--bits", 3), ("lowrank", "--keep", 0.5)], ids=("quantize", "lowrank")
)
def test_the_changed_checkpoint_is_a_drop_in_with_that_accuracy(
    flags: tuple[object, ...], run: Run, model_file: Path, tmp_path: Path
) -> None:
    out, (name, *others) = tmp_path / "q.safetensors", flags
    found = found_by(run, name, model_file, *others, *FEW, "-o", out)
    before, after = load_file(model_file), load_file(out)
    assert list(before) == list(after)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if before[key].dim() > 1}
    flags = ("--samples", 64, "--json")
    measured = json.loads(run("eval", out, *flags).stdout)["evaluation"]
    assert measured["correct"] == found["levels"][0]["evaluation"]["correct"]
    pruned = tmp_path / "p.safetensors"
    plain = ("--criterion", "magnitude", "--repair", "none", "--no-eval")
    assert run("prune", out, "--sparsity", 0.5, *plain, "-o", pruned).returncode == 0


def test_the_batch_size_does_not_matter(run: Run, model_file: Path) -> None:
    command = ("noise", model_file, "--level", 0.3, *FEW)
    one, other = (found_by(run, *command, "--batch-size", size) for size in (64, 17))
    for a, b in zip(one["levels"][0]["layers"], other["levels"][0]["layers"], strict=True):
        assert a["measured"] == pytest.approx(b["measured"], rel=0.02)
        assert a["error"] == pytest.approx(b["error"], rel=1e-3)
    correct = [each["levels"][0]["evaluation"]["correct"] for each in (one, other)]
    assert abs(correct[0] - correct[1]) <= 1


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("quantize", "--bits", 1), 2, ("--bits", "2 to 16")),
        (("quantize", "--bits", "4,x"), 2, ("--bits", "not a number")),
        (("quantize", "--per", "row"), 2, ("--per", "channel or tensor")),
        (("quantize", "--bits", "4,2", "-o", "q.safetensors"), 2, ("-o", "of one level")),
        (("lowrank", "--keep", 0), 2, ("--keep", "(0, 1]")),
        (("prune", "--sparsity", 1), 2, ("--sparsity",)),
        (("lowrank", "--keep", "nan"), 2, ("--keep", "'nan' is not a share")),
        (("noise", "--level", "nan"), 2, ("--level", "'nan' is not a level")),
        (("noise", "--level", "inf"), 2, ("--level", "'inf' is not a level")),
        (("noise", "--kind", "loud"), 2, ("--kind", "gaussian")),
        (("noise", "--kind", "jitter", "--level", 2), 2, ("--level",)),
        (("noise", "--kind", "delete", *FEW), 3, ("--kind", "is for spikes")),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_refused(
    flags: tuple[object, ...], code: int, words: tuple[str, ...], run: Run, model_file: Path
) -> None:
    name, *others = flags
    assert_one_line(run("analyze", name, model_file, *others), code, *words)


EVENTS = """
import torch
from torch import nn


class Spike(nn.Module):
    def forward(self, currents):
        h, out = torch.zeros_like(currents[0]), []
        for x in currents:
            u = h + x
            s = (u >= 0.6).float()
            h = 0.5 * u * (1 - s)
            out.append(s)
        return torch.stack(out)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.spike, self.b = nn.Linear(20, 30), Spike(), nn.Linear(30, 3)

    def forward(self, x):
        return self.b(self.spike(self.a(x)))


def build():
    return Net()


def batches():
    draws = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = (torch.rand(6, 16, 20, generator=draws) < 0.4).float()
        yield x, torch.randint(3, (16,), generator=draws)


def of(sizes):
    draws = torch.Generator().manual_seed(0)
    x = (torch.rand(6, sum(sizes), 20, generator=draws) < 0.4).float()
    y = torch.randint(3, (sum(sizes),), generator=draws)
    return list(zip(x.split(sizes, 1), y.split(sizes)))


def of_8():
    return of([8, 8, 8])


def of_6():
    return of([6, 6, 6, 2, 4])


def of_6_alone():
    return of([6, 6, 6, 6])


def unlabelled():
    return [x for x, _ in of([8, 8, 8])]
"""


Analyze = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def disturb(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analyze:
    """`analyze noise` of that network with its data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("events.py").write_text(EVENTS)
    scope: dict[str, Any] = {}
    exec(EVENTS, scope)
    torch.manual_seed(0)
    torch.save(scope["build"]().state_dict(), "net.pth")

    def run_it(data: str, *flags: object) -> subprocess.CompletedProcess[str]:
        mine = ("net.pth", "--model", "events.py:build", "--data", f"events.py:{data}")
        return run("analyze", "noise", *mine, *flags, *FEW)

    return run_it


@pytest.mark.many(1)
@pytest.mark.parametrize("kind", ["delete", "insert", "jitter"])
def test_spikes_are_disturbed_where_the_input_is_spikes(kind: str, disturb: Analyze) -> None:
    found = json.loads(disturb("batches", "--kind", kind, "--level", "0.02,0.4", "--json").stdout)
    assert 0 < flips(found)[0] < flips(found)[1]


@pytest.mark.many(1)
@pytest.mark.parametrize("kind", ["gaussian", "delete", "insert", "jitter"])
def test_batches_of_as_many_samples_as_time_steps_do_not_matter(
    kind: str, disturb: Analyze
) -> None:
    flags = ("--kind", kind, "--level", 0.3, "--json")
    several, as_many = (json.loads(disturb(name, *flags).stdout) for name in ("of_8", "of_6"))
    assert flips(several) == pytest.approx(flips(as_many), rel=1e-6)
    one, other = (found["levels"][0]["evaluation"] for found in (several, as_many))
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert one["firing_rates"] == pytest.approx(other["firing_rates"], rel=1e-6)


@pytest.mark.parametrize(
    ("data", "flags", "words"),
    [
        ("of_6_alone", ("--kind", "jitter"), "as many of both"),
        ("batches", ("--kind", "jitter", "--time-axis", 5), "axis 5 is not time"),
    ],
    ids=("ambiguous", "out of range"),
)
def test_time_that_nobody_knows_is_asked_for(
    data: str, flags: tuple[object, ...], words: str, disturb: Analyze
) -> None:
    assert_one_line(disturb(data, *flags), 3, "--time-axis", words)


def test_the_axis_of_time_can_be_said(disturb: Analyze) -> None:
    flags = ("--kind", "jitter", "--level", 0.4, "--time-axis", 0, "--json")
    for data in ("of_6_alone", "unlabelled"):
        assert flips(json.loads(disturb(data, *flags).stdout))[0] > 0


def test_the_axis_of_time_is_that_which_the_network_does_not_treat_as_samples(
    disturb: Analyze,
) -> None:
    flags = ("--kind", "jitter", "--level", 0.4, "--json")
    seen, said = (
        json.loads(disturb("unlabelled", *flags, *more).stdout) for more in ((), ("--time-axis", 0))
    )
    assert flips(seen) == flips(said)


@pytest.mark.slow
def test_zeros_that_a_decomposition_takes_away_are_told(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    pruned = tmp_path / "pruned.safetensors"
    run("prune", model_file, "--sparsity", 0.8, "--criterion", "magnitude", "-o", pruned)
    done = run(
        "analyze", "lowrank", pruned, "--keep", 0.5, "-o", tmp_path / "low.safetensors", *FEW
    )
    assert "weights that were 0 are not any more" in done.stderr
    done = run("analyze", "quantize", pruned, "--bits", 4, "-o", tmp_path / "q.safetensors", *FEW)
    assert done.returncode == 0
    assert "not any more" not in done.stderr
