"""Signals become a flag."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from snnprune.distributed.ranks import ALONE
from snnprune.plugins import waiting
from snnprune.training.runs import SharedStop, StopSignal, catch_signals


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """As in a terminal: where a shell runs the suite in the background, Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def raise_signal(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted here"),
        (signal.SIGTERM, 143, "terminated here"),
        (signal.SIGUSR1, 143, "stopped by SIGUSR1 here"),
    ],
)
def test_a_signal_is_noted_and_nothing_else_happens(number: int, code: int, word: str) -> None:
    before = waiting.noted[number]
    with catch_signals() as stop:
        assert not stop
        raise_signal(number)
        assert stop
    assert waiting.noted[number] == before + 1  # a further one ends a user's code
    error = stop.error("here")
    assert (error.exit_code, str(error)) == (code, word)


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with catch_signals() as stop:
        raise_signal(signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            raise_signal(signal.SIGINT)


def test_a_second_signal_of_slurm_ends_like_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    class EndedError(BaseException):
        pass

    def end(*_: object) -> None:
        raise EndedError

    before = signal.signal(signal.SIGTERM, end)
    try:
        with catch_signals():
            raise_signal(signal.SIGUSR1)
            with pytest.raises(EndedError):
                raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_handlers_are_as_before_after_the_block() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    with catch_signals():
        assert all(
            signal.getsignal(number) != handler
            for number, handler in zip(numbers, before, strict=True)
        )
        raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with catch_signals() as stop:
            raise_signal(signal.SIGINT)
        assert not stop
    finally:
        signal.signal(signal.SIGINT, before)


def test_beside_the_main_thread_nothing_is_noted() -> None:
    seen = []

    def work() -> None:
        with catch_signals() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_rank_whose_launcher_is_gone_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, asked = SharedStop(StopSignal(), ALONE), StopSignal()
    interrupted = SharedStop(asked, ALONE)
    assert not stop
    assert not interrupted
    asked.signal = signal.SIGINT
    assert interrupted
    launcher = os.getppid()
    monkeypatch.setattr(os, "getppid", lambda: launcher + 1)
    assert stop
    error = stop.error("here")
    assert (error.exit_code, str(error)) == (143, "the launcher is gone: stopped here")
    assert interrupted
    error = interrupted.error("here")
    assert (error.exit_code, str(error)) == (130, "interrupted here")


def test_a_stop_that_no_signal_asked_for_is_told_as_one_of_sigterm() -> None:
    error = StopSignal().error("here")
    assert (error.exit_code, str(error)) == (143, "terminated here")
