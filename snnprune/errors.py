"""The faults that snnprune reports in one line: what is wrong, where, and what to do about it.

And the text of it: names, numbers and tables, and strangers' text made safe to show.

Every class carries the process exit code that it stands for. Only `snnprune.cli` turns one into
text; everything else raises it.
"""

from __future__ import annotations

import difflib
import json
import re
import signal
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# Control, format (bidi overrides, zero width), surrogate, private and unassigned characters, and
# the line and paragraph separators: none of them may reach a terminal or a page.
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

COMMAND = re.compile(r"^(?P<blank>\s*):(?=:)|#(?=#\w*\[)")
"""What CI servers obey in a log: `::` at a line's begin, `##[` and `##name[` anywhere in it.

Always escaped, not only where a server says that it is one: logs are sent on.
"""


def make_printable(text: str, limit: int | None = 400) -> str:
    """`text` on one line that commands nothing, cut to `limit` characters.

    Every hidden character is an escape.
    """
    cut = text[:limit]
    shown = disarm_line("".join(map(_escape_character, cut)))
    return shown if cut == text else f"{shown}... ({len(text)} characters)"


def disarm_line(line: str) -> str:
    """A line of a log without what a CI server would take for a command to it."""
    return COMMAND.sub(lambda found: f"{found['blank'] or ''}\\x{ord(found[0][-1]):02x}", line)


def escape_hidden(text: str) -> str:
    """`text` with its line ends, every other hidden character as an escape."""
    return "\n".join("".join(map(_escape_character, line)) for line in text.split("\n"))


def format_json_line(report: Any) -> str:
    """One line of JSON, whose text commands nothing and is exactly that of `report` once read."""
    return COMMAND.sub(r"\\u0023", json.dumps(report))  # only in text is there a #


def _escape_character(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def suggest_share(value: float) -> str:
    """What to do about a share that is outside its range: `did you mean 0.95?` of 95."""
    if 1 < value < 100:
        return f"did you mean {value / 100:g}?"
    return "a share is written as 0.95, not 95"


def suggest_percent(text: str) -> str:
    """What to do about a share that is no number: `did you mean 0.9?` of 90%."""
    if re.fullmatch(r"[0-9]{1,2} ?%", text):
        return f"did you mean {int(text.rstrip(' %')) / 100:g}?"
    return "a share is written as 0.95"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean X?` where a known word is close to `word`, else `choose from ...`."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"choose from {', '.join(known)}" if known else "there are none"


# an underscore within a word is none; an address would become a link
MARKUP = re.compile(r"[\\`*\[\]<>#|~&$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")
MARKS = re.compile(r"([\\`*_\[\]<>|])")


def escape_markup(text: str) -> str:
    """Text in which nothing is markup, a link, a mention or a cell's end, on one line."""
    return MARKUP.sub(_escape_match, make_printable(text))


def escape_with_backslashes(text: str) -> str:
    """Text on one line whose marks have a backslash, for files that are read as they are too."""
    return MARKS.sub(r"\\\1", make_printable(text))


def _escape_match(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def format_row(cells: Sequence[str], escape: Callable[[str], str] = escape_markup) -> str:
    """Cells of a table, one after the other."""
    return " | ".join(map(escape, cells))


def format_table(
    titles: Sequence[str],
    body: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    *,
    escape: Callable[[str], str] = escape_markup,
    spaced: bool = False,
) -> str:
    """A table; the columns `right` are flush right, and a `spaced` rule has blanks."""
    rules = ["---:" if column in right else "---" for column in range(len(titles))]
    rule = f"| {' | '.join(rules)} |" if spaced else f"|{'|'.join(rules)}|"
    rows = (f"| {format_row(cells, escape)} |" for cells in body)
    return "\n".join([f"| {format_row(titles, escape)} |", rule, *rows])


def format_names(names: Iterable[object], limit: int = 5) -> str:
    """`a, b and 3 more`: the first `limit` names and how many there are beyond them."""
    everything = list(names)
    shown = ", ".join(str(name) for name in everything[:limit])
    beyond = len(everything) - limit
    return f"{shown} and {beyond} more" if beyond > 0 else shown


def format_count(count: int, noun: str) -> str:
    """`1 key`, `12 keys`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class Note(str):
    """A line among warnings that only informs: what was done, not what may make a result wrong."""

    __slots__ = ()


def is_text(name: str) -> bool:
    """Whether `name` can be written as UTF-8: a pickle can hold half a surrogate pair."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


JOULES = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))
UNKNOWN = "-"


def format_percent(
    share: float | None, digits: int = 1, *, sign: str = "%", unknown: str = UNKNOWN
) -> str:
    """A share in percent, with that many digits."""
    return unknown if share is None else f"{100 * share:.{digits}f}{sign}"


def format_small_percent(share: float | None, *, sign: str = "%", unknown: str = UNKNOWN) -> str:
    """A share that may be very small in percent, with two significant digits below 1 %."""
    if share is None or share >= 0.01 or share == 0:
        return format_percent(share, sign=sign, unknown=unknown)
    return f"{100 * share:.2g}{sign}"


def format_percent_number(sparsity: float) -> str:
    """The number without a sign, with as many digits as it takes to tell 99.5 from 99.9."""
    return f"{round(100 * sparsity, 1 if sparsity < 0.99 else 2):g}"


def format_whole(count: float) -> str:
    """A count, or a mean of counts: whole from 100 on."""
    return f"{count:,.0f}" if count >= 100 or count == int(count) else f"{count:.3g}"


def format_joules(picojoules: float) -> str:
    """An energy in the unit that leaves a number from 1 to 1000."""
    size, unit = next((pair for pair in JOULES if picojoules >= pair[0]), JOULES[-1])
    return f"{picojoules / size:.3g} {unit}"


def layer_name(key: str) -> str:
    """The name of a layer: the key of its weight without `.weight`."""
    return key.removesuffix(".weight")


SPLIT_WORDS = {"train": "training"}
"""What the images of a split are called, where it is not its name."""


def format_split(split: str) -> str:
    """What images are called in words: `test`, `validation`, `training` or `given`."""
    return SPLIT_WORDS.get(split, split)


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
    result: object = None
    """What a call came to that raised it all the same, as where a gate is not met."""

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
