"""stdout is the result and nothing else; stderr is for people who wait."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TextIO

from snnprune.errors import OutputError, make_printable
from snnprune.runtime import read_process_rank

STDOUT, STDERR = 1, 2
WIDTH = 80  # where the width is not known


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
        with self._catch_errors():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is held back.

        Raises:
            OutputError: there is no room, or the device failed.
            ReaderLeftError: the other end of a pipe is closed.
        """
        with self._catch_errors():
            super().flush()

    @contextlib.contextmanager
    def _catch_errors(self) -> Iterator[None]:
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


CLEAR = "\r\x1b[K"  # to the begin of the line, and nothing on it


class LogStream(ResultStream):
    """stderr, without which work goes on unless its reader has left."""

    waiting = False
    """Whether its last line is one of `wait`."""

    def wait(self, text: str) -> None:
        """Show a line that is gone as soon as anything else is written."""
        columns = os.get_terminal_size(self.fileno()).columns or WIDTH  # 0 where nobody knows
        self.write(make_printable(text)[: columns - 1])
        self.flush()
        self.waiting = True

    def clear(self) -> None:
        """Take away the line of `wait`."""
        if self.waiting:
            self.waiting = False
            super().write(CLEAR)
            self.flush()

    def write(self, text: str) -> int:
        """As that of stdout, in the place of what waits."""
        self.clear()
        return super().write(text)

    def refuse(self, error: OSError) -> None:
        """A log that cannot be written is no fault of the work."""


def claim_stdout() -> None:
    """From now on only `sys.stdout` leads to where the result goes.

    What anybody writes to descriptor 1, such as a user's code, a library in C or a program that
    they start, goes to stderr.
    """
    _require_open()
    out = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    sys.stdout = _open_text_stream(ResultStream, out, sys.stdout, by_line=os.isatty(out))
    sys.stderr = _open_text_stream(LogStream, os.dup(STDERR), sys.stderr, by_line=True)


def take_stdout() -> TextIO:
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


def _open_text_stream(
    kind: type[ResultStream], number: int, like: TextIO | None, *, by_line: bool
) -> ResultStream:
    """A stream of text to a descriptor; a character that it has no code for is an escape."""
    encoding = like.encoding if like else "utf-8"  # there is none where it was closed
    binary = io.BufferedWriter(io.FileIO(number, "wb"))
    return kind(binary, encoding, "backslashreplace", line_buffering=by_line)


class _TorchWatch(MetaPathFinder):
    """Tells that torch is being imported, which takes seconds, and then what comes next."""

    def __init__(self, stream: LogStream, following: str | None) -> None:
        self.stream, self.following = stream, following
        self.seen = False

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  # the same for a package of its own
        target: ModuleType | None = None,  # noqa: ARG002  # likewise
    ) -> ModuleSpec | None:
        """That of the finders behind it; its loader tells when it is done."""
        if name != "torch" or self.seen:
            return None
        self.seen = True
        found = find_spec(name)
        if found is None or found.loader is None:
            return found
        execute = found.loader.exec_module

        def execute_and_tell(module: ModuleType) -> None:
            self.stream.wait("loading torch ...")
            execute(module)
            if self.following is None:
                self.stream.clear()
            else:
                self.stream.wait(f"{self.following} ...")

        found.loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return found


@contextlib.contextmanager
def tell_of_loading(following: str | None) -> Iterator[None]:
    """In the block somebody who waits at a terminal sees why, before there is a bar to draw.

    `following` is what is done once torch is there.
    """
    stream = sys.stderr
    shown = isinstance(stream, LogStream) and stream.isatty() and os.environ.get("TERM") != "dumb"
    if not shown or "torch" in sys.modules or not read_process_rank().first:
        yield
        return
    assert isinstance(stream, LogStream)
    watch = _TorchWatch(stream, following)
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        sys.meta_path.remove(watch)
        stream.clear()


def clear_waiting() -> None:
    """Take away what waits, before something is shown elsewhere than on stderr."""
    if isinstance(sys.stderr, LogStream):
        sys.stderr.clear()
