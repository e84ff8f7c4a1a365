"""What the process writes to: stdout for the result alone, stderr for everything else."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from snnprune.errors import OutputError

STDOUT, STDERR = 1, 2


class ReaderLeftError(Exception):
    """Nobody reads any more what is written."""


class ResultStream(io.TextIOWrapper):
    """stdout, whose failures say whose they are.

    What cannot be written is given up, so that Python has nothing to complain of at exit.
    """

    def write(self, text: str) -> int:
        """Write `text`.

        Raises:
            OutputError: there is no room, or the device failed.
            ReaderLeftError: the other end of a pipe is closed.
        """
        with self._watched():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is held back.

        Raises:
            OutputError: there is no room, or the device failed.
            ReaderLeftError: the other end of a pipe is closed.
        """
        with self._watched():
            super().flush()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._give_up()
            raise ReaderLeftError from None
        except OSError as error:
            self._give_up()
            self.refuse(error)

    def _give_up(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)

    def refuse(self, error: OSError) -> None:
        """Tell that the result is not told."""
        raise OutputError(f"cannot be written: {error.strerror}", file="stdout") from error


class LogStream(ResultStream):
    """stderr, without which work goes on unless its reader has left."""

    def refuse(self, error: OSError) -> None:
        """A log that cannot be written is no fault of the work."""


def claim() -> None:
    """From now on only `sys.stdout` leads to where the result goes.

    What anybody writes to descriptor 1, such as a user's code, a library in C or a program that
    they start, goes to stderr.
    """
    _require_open()
    out = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    sys.stdout = _text(ResultStream, out, sys.stdout, by_line=os.isatty(out))
    sys.stderr = _text(LogStream, os.dup(STDERR), sys.stderr, by_line=True)


def take() -> TextIO:
    """Where the result goes; what is printed from now on without naming a place goes to stderr.

    `app` gives `sys.stdout` back when the command ends.
    """
    out = sys.stdout
    sys.stdout = sys.stderr
    return out


def _require_open() -> None:
    """Let a closed stdout or stderr lead nowhere, lest a file that is opened gets its number."""
    for number in (STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)


def _text(
    kind: type[ResultStream], number: int, like: TextIO | None, *, by_line: bool
) -> ResultStream:
    """A stream of text to a descriptor; a character that it has no code for is an escape."""
    encoding = like.encoding if like else "utf-8"  # there is none where it was closed
    binary = io.BufferedWriter(io.FileIO(number, "wb"))
    return kind(binary, encoding, "backslashreplace", line_buffering=by_line)
