"""A few hundred bent files for every reader, and faults that the fuzzer has to find."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus.bench import Bench
from corpus.kinds import KINDS

from fuzz.targets import TARGETS
from fuzz.undisturbed import undisturbed
from fuzz.with_atheris import main as with_atheris
from fuzz.worker import CRASHED, input_of, outcome

QUICK, SLOW = 200, 10
UNFUZZED = {
    "torch of attackers": "the seeds of torch bend into these",
    "cifar": "nothing is read whose sum is not the publisher's",
    "lock": "one line of text, which nothing takes apart",
    "state of finetune": "taken up as that of train; read by the target state",
    "metrics": "bent by train --resume",
    "metrics of imp": "bent by imp --resume",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with undisturbed():
        yield Bench(tmp_path_factory.mktemp("fuzz") / "bench")


@pytest.mark.many(2)
@pytest.mark.parametrize("name", TARGETS)
def test_bent_files_are_read_or_refused_and_nothing_else(
    name: str, bench: Bench, tmp_path: Path
) -> None:
    target = TARGETS[name]
    seeds = target.seeds(bench)
    came = {
        outcome(target, bench, input_of(name, target, seeds, 0, number), tmp_path / "here")
        for number in range(SLOW if target.slow else QUICK)
    }
    assert [why for what, why in came if what == CRASHED] == []


@pytest.mark.many(2)
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_what_is_good_and_is_given_the_same_files_again(
    name: str, bench: Bench, tmp_path: Path
) -> None:
    target = TARGETS[name]
    seeds = target.seeds(bench)
    assert outcome(target, bench, seeds[0], tmp_path / "here") == ("read", "")
    bent = [input_of(name, target, seeds, seed, 7) for seed in (0, 0, 1)]
    assert bent[0] == bent[1] != bent[2]


def test_every_kind_of_the_corpus_is_fuzzed_or_it_is_said_why_not() -> None:
    fuzzed = {kind for target in TARGETS.values() for kind in target.kinds}
    assert fuzzed | UNFUZZED.keys() == set(KINDS)


@pytest.mark.slow
def test_what_raises_hangs_fills_the_memory_or_dies_is_found(tmp_path: Path) -> None:
    script = Path(__file__).with_name("planted.py")
    command = [sys.executable, str(script), str(tmp_path / "crashes")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {
        name: (count, bad, why)
        for name, count, bad, why in map(json.loads, done.stdout.splitlines())
    }
    assert found["sound"] == (3, 0, [])
    for name, word in {
        "raises": "KeyError",
        "fills": "MemoryError",
        "dies": "died with status",
        "hangs": "no answer in 2 s",
    }.items():
        _, crashed, why = found[name]
        assert crashed > 0
        assert any(word in each for each in why)


def test_without_atheris_it_is_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert with_atheris(["with_atheris", "torch"]) == 2
    assert "run.py needs nothing" in capsys.readouterr().err
