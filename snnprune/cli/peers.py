"""Several processes that torchrun started: which commands they share, and which of them speaks."""

import signal
import time
from types import FrameType

from snnprune.errors import PeerError, StoppedError, UsageError
from snnprune.launch import place

# the commands that several processes do together
SHARING = ("calibrate", "eval", "train", "finetune", "imp", "search")
PATIENCE, APART = 3.0, 0.5  # seconds; torchrun ends the others within a tenth of one
PAUSE = 0.05  # seconds between two looks whether the signal came


class _EndedError(BaseException):
    """SIGTERM came while this process waited."""


def require_sharing(command: str) -> None:
    """Refuse a command that each process would do again, all writing to one place.

    Raises:
        UsageError: there are several processes, and they cannot share it.
    """
    if place().size > 1 and command not in SHARING:
        raise UsageError(
            f"{command} runs in one process",
            hint=f"start it without torchrun, which is for {', '.join(SHARING)}",
        )


def may_speak(error: BaseException) -> bool:
    """Whether this process is the one to tell of its fault.

    The first does at once. The others, and one that only met that another is gone, wait to be
    ended: torchrun does so as soon as any process has failed. So a fault that all of them meet is
    told once, and one that only one of them meets is told by that one.
    """
    here = place()
    if here.size == 1 or (here.first and not isinstance(error, PeerError)):
        return True
    if isinstance(error, StoppedError):  # all have agreed to stop
        return False
    return not _ended_within(PATIENCE + APART * here.local_rank)


def _ended_within(seconds: float) -> bool:
    before = signal.signal(signal.SIGTERM, _note)
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(PAUSE)
    except _EndedError:
        return True
    finally:
        signal.signal(signal.SIGTERM, before)
    return False


def _note(_: int, __: FrameType | None) -> None:
    raise _EndedError
