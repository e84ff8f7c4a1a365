"""Signals that ask a run to end: a flag is set, and the loop saves its state after the step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from snnprune.errors import StoppedError
from snnprune.plugins import waiting

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Slurm sends the last one on request
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
INTERRUPTED, TERMINATED = 130, 143


class StopSignal:
    """False until a signal asks the run to end."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, where: str) -> StoppedError:
        """What ends the loop; `where` is `in epoch 2 after step 3 of 54`."""
        asked = self.signal or signal.SIGTERM
        return StoppedError(
            f"{WORDS.get(asked, f'stopped by {asked.name}')} {where}",
            exit_code=INTERRUPTED if asked == signal.SIGINT else TERMINATED,
        )


NEVER = StopSignal()


@contextlib.contextmanager
def catch_signals() -> Iterator[StopSignal]:
    """The first signal is noted; a second one ends the process at once, as it would without us."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]  # as nohup sets

    def put_back() -> None:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)

    def note(number: int, _: FrameType | None) -> None:
        waiting.noted[number] += 1
        put_back()
        if signal.SIGUSR1 in heard:  # its default would leave a temporary file
            signal.signal(signal.SIGUSR1, before[signal.SIGTERM] or signal.SIG_DFL)
        stop.signal = signal.Signals(number)

    for number in heard:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        put_back()
