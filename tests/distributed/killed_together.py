"""Run RECIPE by two processes of torchrun once undisturbed, and kill it again and again; a script.

`python killed_together.py RECIPE FOLDER KILLS SEED`: `imp` is killed with -9, in turn one rank, the
other, both at once or the launcher, at a random moment of what the undisturbed run took, and is
taken up where it was. What comes out must be, to the bit, what the undisturbed run left; then the
next run begins, until there were as many kills. Prints how many there were of each kind, and where.
"""

import collections
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from launched import Launched, alive, metrics, results, sums_hold

RECIPE, FOLDER, KILLS, SEED = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
KINDS = ("the first rank", "the second rank", "both ranks", "the launcher")
FINISHED = "done"


def main() -> None:
    """The undisturbed run, then the others."""
    draws, counted = random.Random(SEED), collections.Counter[str]()
    expected, seconds = undisturbed()
    runs, too_late = 0, 0
    while counted.total() < KILLS:
        out, kind = FOLDER / f"killed-{runs}", KINDS[counted.total() % len(KINDS)]
        stage = killed(out, kind, draws.uniform(0, seconds))
        counted[f"{kind}, {stage}"] += stage != FINISHED
        too_late += stage == FINISHED
        if (out / "DONE").exists():
            runs = compare(out, expected, runs)
    out = FOLDER / f"killed-{runs}"
    Launched(RECIPE, out).require_end()
    runs = compare(out, expected, runs)
    print(json.dumps({**counted, "too late": too_late, "runs compared": runs}), flush=True)


def undisturbed() -> tuple[dict[str, bytes], float]:
    """What it leaves, and the seconds from its taking the folder to its end."""
    run = Launched(RECIPE, FOLDER / "undisturbed")
    run.wait_until_at_work()
    begun = time.monotonic()
    run.require_end()
    return results(run.out), time.monotonic() - begun


def killed(out: Path, kind: str, seconds: float) -> str:
    """Kill what works in `out`, see all of it end; the stage at which that was."""
    run = Launched(RECIPE, out)
    run.wait_until_at_work()
    time.sleep(seconds)
    stage = stage_of(out)
    for victim in victims(run, kind):
        os.kill(victim, signal.SIGKILL)
    run.require_nobody_left()
    print(f"{kind}, {stage}: code {run.process.returncode}, {states(out)}", flush=True)
    return stage if run.process.returncode else FINISHED


def victims(run: Launched, kind: str) -> list[int]:
    """The processes that are killed, as far as they are still there."""
    ranks = {"the first rank": run.ranks[:1], "the second rank": run.ranks[1:]}
    chosen = {**ranks, "both ranks": run.ranks, "the launcher": [run.process.pid]}[kind]
    return [process for process in chosen if alive(process)]


def stage_of(out: Path) -> str:
    """How far the run was, as its folder tells."""
    rows = metrics(out)
    tickets = [row for row in rows if row["kind"] == "ticket"]
    if (out / "DONE").exists():
        return FINISHED
    if len(tickets) == 3:
        return "report"
    if not rows:
        return "before the first epoch"
    return f"round {len(tickets)}"


def states(out: Path) -> list[str]:
    """Those that it would go on from."""
    return sorted(path.name for path in (out / "state").glob("step-*"))


def compare(out: Path, expected: dict[str, bytes], number: int) -> int:
    """Require what the undisturbed run left, whole; the number of the next run."""
    found = results(out)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert list(out.rglob("*.tmp")) == []
    assert sums_hold(out)
    return number + 1


if __name__ == "__main__":
    main()
