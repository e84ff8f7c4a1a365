"""Run folders: what a run keeps, so that it can go on after whatever ended it.

`open_run` locks a folder and gives the `Run` that a loop begins, logs to and saves its states in;
`stopping` turns the signals that end a process into a flag that the loop looks at.
"""

from snnprune.runs.changes import made_with, require_same
from snnprune.runs.folder import RunFolder
from snnprune.runs.opening import holds_run, open_run, require_ready, require_run
from snnprune.runs.ours import require_ours
from snnprune.runs.run import Run, Unsaved
from snnprune.runs.state import State, taking_up
from snnprune.runs.stopping import NEVER, Stop, stopping
from snnprune.runs.together import RunTogether, StopTogether

__all__ = [
    "NEVER",
    "Run",
    "RunFolder",
    "RunTogether",
    "State",
    "Stop",
    "StopTogether",
    "Unsaved",
    "holds_run",
    "made_with",
    "open_run",
    "require_ours",
    "require_ready",
    "require_run",
    "require_same",
    "stopping",
    "taking_up",
]
