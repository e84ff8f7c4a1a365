"""Run RECIPE once undisturbed and once killed with -9 again and again; run as a script.

`python killed_at_random.py COMMAND RECIPE FOLDER KILLS`, COMMAND being train or imp: leaves
`undisturbed` and `killed` in FOLDER, without pictures. Each run is a process forked before torch
has done anything, so that torch is imported only once.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from unittest.mock import patch

import torch._dynamo  # noqa: F401  # what an optimizer imports when it is made, once for all processes

from snnprune.jobs.train.options import LoopOptions
from snnprune.jobs.train.train import JOBS
from snnprune.recipe.loading import load_recipe
from snnprune.runtime import SILENT

COMMAND, RECIPE, FOLDER, KILLS = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
patch("snnprune.jobs.train.train.draw_run", lambda *_: []).start()  # it takes longer than the run


def start(out: Path) -> int:
    """Run in a process of its own, from where the folder is; the process."""
    child = os.fork()
    if child:
        return child
    try:
        recipe, resume = load_recipe(RECIPE), (out / "recipe.yaml").exists()
        options = LoopOptions(command=COMMAND, recipe=recipe, out=out, device="cpu", resume=resume)
        JOBS[COMMAND](options, SILENT, lambda _: None)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end_of(child: int) -> int:
    """Its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """The one run, then the other."""
    begun = time.monotonic()
    assert end_of(start(FOLDER / "undisturbed")) == 0
    whole = time.monotonic() - begun
    draws = random.Random(0)
    for _ in range(KILLS):
        child = start(FOLDER / "killed")
        time.sleep(draws.uniform(0, whole * 2.5 / KILLS))
        os.kill(child, signal.SIGKILL)
        if end_of(child) == 0:
            break  # it was quicker
        print(sorted(path.name for path in (FOLDER / "killed" / "state").glob("step-*")))
    assert end_of(start(FOLDER / "killed")) == 0


if __name__ == "__main__":
    main()
