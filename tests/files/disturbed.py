"""Run a command again and again in processes that are disturbed; run as a script.

`python disturbed.py HOW COMMAND FOLDER COUNT`: HOW is `fails` or `dies` (at the n-th write, flush
or rename, for every n), `kill` (with -9 at COUNT random moments) or `limit` (files may be no larger
than a size, for COUNT sizes); `quick` has COUNT of the last two and dies at every
rename. Each is a process forked from this one, so that torch is imported only once. Prints how
many of each kind there were; an assertion fails where something was lost.
"""

import collections
import contextlib
import io
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from disturbances import KINDS, command, disturbed, left_in, made_in, remember, state_of

# imported once for all processes
import snnprune.checkpoint.packed
import snnprune.cli.console
import snnprune.cli.prune_tables
import snnprune.jobs.calibrate
import snnprune.jobs.export
import snnprune.jobs.prune.prune  # noqa: F401
from snnprune.cli import run_app, run_command

HOW, COMMAND, FOLDER, COUNT = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
KILLED, FULL = -signal.SIGKILL, 5
counted: collections.Counter[str] = collections.Counter()


def start(*, new: bool, disturb: Callable[[], contextlib.AbstractContextManager[object]]) -> int:
    """Run the command in a process of its own."""
    child = os.fork()
    if child:
        return child
    try:
        told = io.StringIO()
        with disturb(), contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            code = run_app(run_command, command(COMMAND, FOLDER, new=new))
        os._exit(code)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end_of(child: int) -> int:
    """Its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def done(*, new: bool) -> float:
    """Run it undisturbed; the seconds that took."""
    begun = time.monotonic()
    assert end_of(start(new=new, disturb=contextlib.nullcontext)) == 0
    assert left_in(FOLDER) == []
    return time.monotonic() - begun


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond it, in this process for good."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    yield


def judged(code: int, what: str) -> None:
    """Nothing is lost, and what was done is counted."""
    assert code in (0, KILLED, FULL), code
    try:
        state = state_of(FOLDER)
    except AssertionError:  # a crash between two renames, which the files themselves tell
        assert code == KILLED
        state = "told apart"
        done(new=False)
    assert code != FULL or (state == "old" and left_in(FOLDER) == [])
    assert code != 0 or state == "new"
    counted[f"{what}: {state}"] += 1
    if state != "old":
        done(new=False)


def at_every_call(*, kill: bool, kinds: Sequence[str] = KINDS) -> None:
    """Disturb the n-th write, flush and rename, for all n."""
    for kind in kinds:
        number, code = 0, -1
        while code != 0:
            number += 1
            child = start(new=True, disturb=partial(disturbed, kind, number, kill=kill))
            code = end_of(child)
            if code != 0:
                judged(code, kind)
        done(new=False)


def killed_at_random(whole: float) -> None:
    """Kill it at COUNT random moments."""
    draws = random.Random(0)
    for _ in range(COUNT):
        child = start(new=True, disturb=contextlib.nullcontext)
        time.sleep(draws.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        judged(end_of(child), "kill")


def on_a_small_disk() -> None:
    """Let no file be larger than each of COUNT sizes."""
    largest = max(path.stat().st_size for path in FOLDER.glob("out.*"))
    for number in range(COUNT):
        size = largest * number // (COUNT - 1)
        judged(end_of(start(new=True, disturb=partial(limited, size))), "size")


def main() -> None:
    """Make the new result and the old one, then disturb."""
    made_in(FOLDER)
    done(new=True)
    remember(FOLDER, "new")
    whole = done(new=False)
    remember(FOLDER, "old")
    if HOW == "quick":
        at_every_call(kill=True, kinds=["rename"])
    if HOW in ("fails", "dies"):
        at_every_call(kill=HOW == "dies")
    if HOW in ("kill", "quick"):
        killed_at_random(whole)
    if HOW in ("limit", "quick"):
        on_a_small_disk()
    done(new=True)  # clears up whatever is left
    assert state_of(FOLDER) == "new"
    print(dict(counted))


if __name__ == "__main__":
    main()
