"""A run of several processes, of which the first alone writes."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from snnprune.distributed.ranks import Ranks
from snnprune.training.runs import SharedRun, SharedStop, StopSignal


@dataclass
class Kept:
    """A run that writes down what it is asked for."""

    rows: list[dict[str, Any]] = field(default_factory=lambda: [{"epoch": 0}])
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def begin(self) -> str:
        return "state"

    def log(self, row: Any) -> None:
        self.asked.append(("log", row))

    def save(self, *given: Any) -> None:
        self.asked.append(("save", *given))

    def keep(self, *given: Any) -> None:
        self.asked.append(("keep", *given))


class Second(Ranks):
    """The second of two processes: the first shares its state and rows."""

    def share(self, value: Any) -> Any:
        assert value is None
        return "state", [{"epoch": 0}]


def used(run: SharedRun) -> list[dict[str, Any]]:
    assert cast(Any, run.begin()) == "state"
    run.log({"epoch": 1})
    run.save(3, {"at": 1}, {})
    run.keep("round-01", {}, {}, {"name": "x"})
    return run.rows


def test_the_first_process_writes_and_all_have_the_rows() -> None:
    kept = Kept()
    rows = [{"epoch": 0}, {"epoch": 1}]
    assert used(SharedRun(cast(Any, kept), Ranks())) == rows
    assert used(SharedRun(None, Second(rank=1, size=2))) == rows
    assert kept.rows == [{"epoch": 0}]  # the run adds to its own
    assert kept.asked == [
        ("log", {"epoch": 1}),
        ("save", 3, {"at": 1}, {}),
        ("keep", "round-01", {}, {}, {"name": "x"}),
    ]


class Asked(StopSignal):
    """A stop that one process was asked for."""

    def __bool__(self) -> bool:
        return True


def test_a_stop_of_one_is_one_of_all_and_so_is_a_launcher_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not SharedStop(StopSignal(), Ranks())
    assert SharedStop(Asked(), Ranks())
    left = SharedStop(StopSignal(), Ranks())
    told = str(left.error("in epoch 3"))
    assert "launcher" not in told
    monkeypatch.setattr("os.getppid", lambda: -1)
    assert left
    error = left.error("in epoch 3")
    assert str(error) == "the launcher is gone: stopped in epoch 3"
    assert error.exit_code == 143
