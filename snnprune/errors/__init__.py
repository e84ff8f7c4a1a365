"""The faults that snnprune reports in one line: what is wrong, where, and what to do about it.

Every class carries the process exit code that it stands for. Only `snnprune.cli` turns one into
text; everything else raises it.
"""

import re
import signal
import traceback
from typing import Any

WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) ([\w :]+)")
KILLED = ("is killed by signal: Killed", "is killed by signal: Bus error")
"""By the system, which is short of memory, or of memory to share."""
SIGNALS_OF_SHORTAGE = (-signal.SIGKILL, -signal.SIGBUS)
OUT_OF_MEMORY = (
    "can't allocate memory",  # torch
    "can't start new thread",  # Python, for its stack
    "not enough memory",  # zstandard
    "std::bad_alloc",
)


class SnnpruneError(Exception):
    """A fault in what we were given or asked to do, told as `FILE: FIELD: what is wrong. hint`."""

    exit_code = 1
    in_report = False
    """Whether a report that holds it has been shown: `--json` prints one object."""

    def __init__(
        self,
        message: str,
        *,
        file: object = None,
        field: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = None if file is None else str(file)
        self.field = None if field is None else str(field)
        self.hint = hint

    def __str__(self) -> str:
        where = [place for place in (self.file, self.field) if place]
        line = ": ".join([*where, self.message])
        if not self.hint:
            return line
        return f"{line} {self.hint}" if line.endswith("?") else f"{line}. {self.hint}"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "code": self.exit_code,
            "file": self.file,
            "field": self.field,
            "message": self.message,
            "hint": self.hint,
        }


class UsageError(SnnpruneError):
    """The command line asks for something that is not there or makes no sense."""

    exit_code = 2


class InputError(SnnpruneError):
    """A checkpoint, recipe, data set or function of the user's cannot be used."""

    exit_code = 3


class GateError(SnnpruneError):
    """A gate is not met."""

    exit_code = 4


class OutputError(SnnpruneError):
    """The output exists, is the input, or cannot be written."""

    exit_code = 5


class NonFiniteError(SnnpruneError):
    """Training or calibration met NaN or infinity."""

    exit_code = 6


class MemoryExhaustedError(SnnpruneError):
    """The device or the host ran out of memory."""

    exit_code = 7


class StoppedError(SnnpruneError):
    """A signal ended a run whose state had been saved; 130 after SIGINT, else 143."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class PeerError(SnnpruneError):
    """Another of several processes ended; torchrun ends this one too, as by SIGTERM."""

    exit_code = 143


def error_class_for(field: str) -> type[SnnpruneError]:
    """The class for a wrong value of `field`: `UsageError` for a flag, else `InputError`."""
    return UsageError if field.startswith("-") else InputError


def says_out_of_memory(error: BaseException) -> bool:
    """Whether it is Python's error, torch's on a GPU, or one in words of a library in C."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in OUT_OF_MEMORY)
    )


def convert_torch_error(error: BaseException) -> SnnpruneError | None:
    """The error as one of ours where memory is short, or a process that loads data is gone.

    Torch may tell of such a process in the middle of anything.
    """
    if isinstance(error, SnnpruneError):
        return None
    ended = _list_worker_ends(error)
    if any(end.startswith(KILLED) for end in ended) or (ended and _has_killed_worker(error)):
        return MemoryExhaustedError(
            "a data worker was killed",
            hint="mostly for lack of memory: give the loader fewer workers or smaller batches",
        )
    if ended:
        return InputError(
            f"a data worker {ended[-1].strip()}",
            hint="num_workers=0 of its DataLoader shows why",
        )
    if says_out_of_memory(error):
        return MemoryExhaustedError("out of memory", hint="give a smaller --batch-size")
    return None


def _list_worker_ends(error: BaseException | None) -> list[str]:
    """What torch says of them in the error and in those that led to it."""
    found = []
    while error is not None:
        match = WORKER.match(str(error)) if isinstance(error, RuntimeError) else None
        found += [match[1]] if match else []
        error = error.__cause__ or error.__context__
    return found


def _has_killed_worker(error: BaseException) -> bool:
    """Whether a loader that the error came through has a process that was killed.

    Where torch sees first that nothing comes any more, it does not say why.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        workers = getattr(frame.f_locals.get("self"), "_workers", None)
        if isinstance(workers, list) and any(
            getattr(worker, "exitcode", None) in SIGNALS_OF_SHORTAGE for worker in workers
        ):
            return True
    return False
