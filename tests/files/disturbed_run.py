"""Disturb `finetune` again and again, and let it go on; run as a script.

`python disturbed_run.py HOW FOLDER COUNT`: HOW is `fails` or `dies` (at every COUNT-th write, flush
and rename of a run, each in a fresh folder), `kill` (with -9, COUNT times in one run) or `limit`
(files may be no larger than a size, for COUNT sizes). What comes out in the end has to be, to the
bit, what an undisturbed run leaves. Prints how many of each kind there were.
"""

import collections
import contextlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from disturbances import KINDS, command, disturbed, left_in, made_in

# imported once for all processes
import snnprune.cli.console
import snnprune.jobs.prune.prune
import snnprune.jobs.train.finetune  # noqa: F401
from snnprune.cli import run_app, run_command
from snnprune.training.runs.ownership import holds_run

HOW, FOLDER, COUNT = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
KILLED, FULL = -signal.SIGKILL, 5
RESULTS = ("model.safetensors", "mask.safetensors", "metrics.jsonl", "recipe.yaml")
Disturb = Callable[[], contextlib.AbstractContextManager[object]]
counted: collections.Counter[str] = collections.Counter()


def start(words: list[str], disturb: Disturb = contextlib.nullcontext) -> int:
    """Run a command in a process of its own."""
    child = os.fork()
    if child:
        return child
    try:
        told = io.StringIO()
        with disturb(), contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            code = run_app(run_command, words)
        if code not in (0, FULL):
            print(told.getvalue())
        os._exit(code)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end_of(child: int) -> int:
    """Its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def words(out: Path) -> list[str]:
    """The command that begins the run, or goes on with it."""
    how = ["--resume"] if holds_run(out) else ["--recipe", str(FOLDER / "recipe.yaml"), "--force"]
    return ["finetune", str(FOLDER / "out.safetensors"), "--out", str(out), "-q", *how]


def same(out: Path) -> None:
    """Go on to the end, and compare."""
    assert end_of(start(words(out))) == 0
    for name in RESULTS:
        assert (out / name).read_bytes() == (FOLDER / "whole" / name).read_bytes(), name
    assert (out / "DONE").exists()
    assert left_in(out) == []


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond it, in this process for good."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    yield


def at_calls(*, kill: bool) -> None:
    """Disturb every COUNT-th write, flush and rename."""
    for kind in KINDS:
        number, code = 1, -1
        while code != 0:
            out = FOLDER / "disturbed"
            shutil.rmtree(out, ignore_errors=True)
            code = end_of(start(words(out), partial(disturbed, kind, number, kill=kill)))
            assert code in (0, KILLED, FULL), code
            counted[kind] += code != 0
            same(out)
            number += COUNT


def killed_at_random(whole: float) -> None:
    """Kill one run COUNT times; it begins again when it has come to its end."""
    draws, out = random.Random(0), FOLDER / "killed"
    for _ in range(COUNT):
        child = start(words(out))
        time.sleep(draws.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        code = end_of(child)
        counted["kill" if code == KILLED else "too late"] += 1
        if (out / "DONE").exists():
            same(out)
            shutil.rmtree(out)
    same(out)


def on_a_small_disk() -> None:
    """Let no file be larger than each of COUNT sizes."""
    largest = max(path.stat().st_size for path in (FOLDER / "whole").rglob("*"))
    for number in range(COUNT):
        out = FOLDER / "small"
        code = end_of(start(words(out), partial(limited, largest * number // (COUNT - 1))))
        assert code in (0, FULL), code
        counted["size: full" if code else "size: done"] += 1
        same(out)
        shutil.rmtree(out)


def main() -> None:
    """Make a pruned network and the undisturbed run, then disturb."""
    made_in(FOLDER)
    assert end_of(start(command("prune", FOLDER, new=False))) == 0
    begun = time.monotonic()
    assert end_of(start(words(FOLDER / "whole"))) == 0
    whole = time.monotonic() - begun
    if HOW in ("fails", "dies"):
        at_calls(kill=HOW == "dies")
    elif HOW == "kill":
        killed_at_random(whole)
    else:
        on_a_small_disk()
    print(dict(counted))


if __name__ == "__main__":
    main()
