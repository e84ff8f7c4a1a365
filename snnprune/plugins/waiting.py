"""How long a user's own code has been at work: a word when that is long, and an end to it.

Python cannot end code that does not want to end. So beside the main thread there is one that
watches it: it tells what is waited for, interrupts what takes longer than `$SNNPRUNE_TIME_LIMIT`
allows, and ends the process where an interrupt, or Ctrl-C, is swallowed or does not get through.
Code in C that keeps Python's lock for ever keeps it from the watcher too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import select
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from snnprune.errors import InputError, SnnpruneError, StoppedError, UsageError

LIMIT = "SNNPRUNE_TIME_LIMIT"
FIRST_WORD = 30.0  # seconds; each further one when it has taken twice as long
GRACE = 3.0  # seconds that code has to end in when it was interrupted
TICK = 0.5  # seconds between two looks
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
TIME_IS_UP = signal.SIGVTALRM  # of all signals the one that nobody else uses

SAVES_FIRST = "snnprune.training.runs"  # where the handler of signals to a run is

really_exit = os._exit


class TimeUpError(BaseException):
    """What interrupts code that took too long; no Exception, which it may take for a fault."""


@dataclasses.dataclass(eq=False, slots=True)
class UserCall:
    """A call of a user's code."""

    what: str
    field: str
    since: float = dataclasses.field(default_factory=time.monotonic)
    next_word: float = FIRST_WORD
    interrupted: float | None = None
    """When it was, for having taken too long."""


_calls: list[UserCall] = []
"""Those that the main thread is in, the outermost first."""
noted: Counter[int] = Counter()
"""Signals that a run has taken for a wish to save its state first, and that end nothing yet."""


@contextlib.contextmanager
def limit_user_call(what: str, *, field: str) -> Iterator[None]:
    """The block runs a user's code, which `what` names and `field` has named.

    Meanwhile `os._exit` raises SystemExit in the main thread of this process, so that somebody is
    left to tell of it.

    Raises:
        InputError: it took longer than the limit, and was interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    call = UserCall(what, field, next_word=FIRST_WORD)
    _calls.append(call)
    before, os._exit = os._exit, _exit_of(os.getpid())
    try:
        yield
    except TimeUpError:
        if call.interrupted is None:  # it is one around this one that took too long
            raise
        raise _too_long_error(call) from None
    finally:
        os._exit = before
        _calls.remove(call)


def read_time_limit() -> float | None:
    """Seconds that one call of a user's code may take; None for as long as it likes.

    Raises:
        UsageError: the environment says something else than a number of seconds.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"{text!r} is no number of seconds", field=LIMIT, hint="as 600 for 10 min")
    return seconds


@contextlib.contextmanager
def watch_user_code(
    say: Callable[[str], None], end: Callable[[SnnpruneError], object]
) -> Iterator[None]:
    """Watch what a user's code does in the block.

    `say` tells a line. `end` tells of an error when nobody else can: the process ends after it.

    Raises:
        UsageError: the limit is no number.
    """
    seconds = read_time_limit()
    noted.clear()
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        handler = signal.signal(TIME_IS_UP, _raise_time_up)
        watcher = _Watcher(say, end, seconds, here)
        with contextlib.suppress(RuntimeError):  # no room for a thread: nobody watches
            watcher.start()
        try:
            yield
        finally:
            watcher.done.set()
            there.send(b"\0")
            signal.signal(TIME_IS_UP, handler)
            signal.set_wakeup_fd(before)
            if watcher.ident is not None:
                watcher.join()


class _Watcher(threading.Thread):
    def __init__(
        self,
        say: Callable[[str], None],
        end: Callable[[SnnpruneError], object],
        limit: float | None,
        signals: socket.socket,
    ) -> None:
        super().__init__(daemon=True, name="snnprune-watcher")
        self.say, self.end, self.limit, self.signals = say, end, limit, signals
        self.done = threading.Event()
        self.heard: Counter[int] = Counter()
        self.asked: tuple[signal.Signals, float, UserCall] | None = None
        """The signal that is to end a call, and when it came."""

    def run(self) -> None:
        while not self.done.is_set():
            ready, _, _ = select.select([self.signals], [], [], TICK)
            for number in self.signals.recv(64) if ready else b"":
                self._on_signal(number)
            self._look(time.monotonic())

    def _on_signal(self, number: int) -> None:
        self.heard[number] += 1
        calls = _calls.copy()
        if not calls or number not in EXIT_CODES or not self._ends(number):
            return
        if self.asked is not None and self.asked[2] is calls[0]:
            self._end_by(signal.Signals(number))  # asked for the second time
        self.asked = signal.Signals(number), time.monotonic(), calls[0]

    def _ends(self, number: int) -> bool:
        """Whether a signal ends the command, not only a run after its step."""
        handler = getattr(signal.getsignal(number), "__module__", None)
        return handler != SAVES_FIRST and self.heard[number] > noted[number]

    def _look(self, now: float) -> None:
        calls = _calls.copy()
        if self.asked is not None:
            number, since, call = self.asked
            if call not in calls:
                self.asked = None
            elif now - since > GRACE:
                self._end_by(number)
        self._hold_to_limit(calls, now)
        if calls:
            self._tell(calls[-1], now)

    def _hold_to_limit(self, calls: Sequence[UserCall], now: float) -> None:
        """Interrupt what takes too long, and end what does not end then."""
        for call in calls:
            if call.interrupted is not None:
                if now - call.interrupted > GRACE:
                    self._end(_too_long_error(call))
                return
        limit = self.limit
        if limit is None or not any(now - call.since > limit for call in calls):
            return
        # the innermost that took most of it: those around it only wait, those in it are short
        guilty = next(call for call in reversed(calls) if now - call.since > limit / 2)
        guilty.interrupted = now
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, TIME_IS_UP)

    def _tell(self, call: UserCall, now: float) -> None:
        taken = now - call.since
        if taken >= call.next_word:
            call.next_word = 2 * taken
            self.say(f"still waiting for {call.what} ({taken:.0f} s); Ctrl-C ends it")

    def _end_by(self, number: signal.Signals) -> None:
        words = "interrupted" if number == signal.SIGINT else "terminated"
        code = EXIT_CODES[number]
        self._end(StoppedError(f"{words}: what was under way is not written", exit_code=code))

    def _end(self, error: SnnpruneError) -> NoReturn:
        try:
            self.end(error)
        finally:
            really_exit(error.exit_code)


def _raise_time_up(*_: object) -> None:
    if any(call.interrupted is not None for call in _calls):  # it may have ended by itself
        raise TimeUpError


def _too_long_error(call: UserCall) -> InputError:
    return InputError(
        f"{call.what} did not end in {read_time_limit() or 0:g} s",
        field=call.field,
        hint=f"mend it, or allow more seconds in {LIMIT}",
    )


def _exit_of(process: int) -> Any:
    def leave(status: int) -> NoReturn:
        ours = os.getpid() == process  # processes that it started leave as they like
        if ours and threading.current_thread() is threading.main_thread():
            raise SystemExit(f"os._exit({status})")
        really_exit(status)

    return leave


def _forget_watcher() -> None:
    """A process that was forked shares the descriptor: its signals are none of the watcher's."""
    with contextlib.suppress(ValueError):  # it was forked by another thread
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_watcher)
