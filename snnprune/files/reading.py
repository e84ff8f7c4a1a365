"""Files read only where they can be, and lists of hashes to hold them against."""

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Self

from snnprune.errors import InputError

COPY_AGAIN = "copy or download it again"

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def require_regular_file(path: Path) -> int:
    """The size in bytes of a file that is there, found without opening it.

    Raises:
        InputError: nothing is there, a link leads nowhere, it is a folder, pipe or device
            (opening one could wait for ever), or it is empty.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _not_there_error(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        hint = "name a file in it" if stat.S_ISDIR(status.st_mode) else "copy it into a file first"
        raise InputError(f"is {kind}, not a regular file", file=path, hint=hint)
    if status.st_size == 0:
        raise InputError("empty file", file=path, hint=COPY_AGAIN)
    return status.st_size


def require_readable(path: Path) -> None:
    """Refuse a file that `open_for_reading` would refuse, before the work to read it is begun.

    Raises:
        InputError: as `require_regular_file` and `open_for_reading`.
    """
    require_regular_file(path)
    with open_for_reading(path):
        pass


@contextlib.contextmanager
def open_for_reading(path: Path) -> Iterator[BufferedReader]:
    """The open file, which stays what it is until the block ends.

    Raises:
        InputError: the system does not let us open or read it, or somebody writes to it meanwhile.
    """
    try:
        with path.open("rb") as file, _require_steady(path, file.fileno()):
            yield file
    except OSError as error:
        raise _unreadable_error(path, error) from error


@contextlib.contextmanager
def require_unchanging(*paths: Path) -> Iterator[None]:
    """Files that are opened more than once in the block, and have to be the same each time.

    Raises:
        InputError: one was written to, cut, or replaced by another before the block ended.
    """
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(_require_steady(path, path))
        yield


def changed_error(path: Path) -> InputError:
    """The error of a file that somebody else writes to."""
    return InputError(
        "changed while it was read", file=path, hint="run it again when nobody writes to it"
    )


@contextlib.contextmanager
def _require_steady(path: Path, place: Path | int) -> Iterator[None]:
    """What is found wrong in the block may come of the change, and what is not may be of two."""
    before = _read_mark(path, place)
    try:
        yield
    except Exception as error:
        if _read_mark(path, place) != before:
            raise changed_error(path) from error
        raise
    if _read_mark(path, place) != before:
        raise changed_error(path)


def _read_mark(path: Path, place: Path | int) -> tuple[int, ...]:
    """What changes with every change of the file; the time of its status cannot be set back."""
    try:
        found = os.fstat(place) if isinstance(place, int) else place.stat()
    except OSError as error:
        raise _not_there_error(path, error) from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _not_there_error(path: Path, error: OSError | ValueError) -> InputError:
    if isinstance(error, ValueError):  # a null byte in the name
        return InputError("is not a name that a file can have", file=path)
    if error.errno == errno.ELOOP:
        return InputError("is a loop of links", file=path, hint="name the file itself")
    if not isinstance(error, FileNotFoundError):
        return _unreadable_error(path, error)
    if path.is_symlink():
        return InputError(
            f"is a link to {path.readlink()}, which is not there",
            file=path,
            hint="name the file itself",
        )
    return InputError("no such file", file=path, hint="check the path")


def _unreadable_error(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(
        f"cannot be read: {reason}", file=path, hint="check the path and its permissions"
    )


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class SteadyFiles:
    """Files that are opened more than once, and have to be what they are now each time."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._marks = {path: _read_mark(path, path) for path in files}

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """A block in which they are read; what is wrong in it may come of a change.

        Raises:
            InputError: one was written to, cut, or replaced by another before the block ended.
        """
        try:
            yield
        except Exception as error:
            self.require(error)
            raise
        self.require()

    def require(self, cause: Exception | None = None) -> None:
        """Refuse files that are others by now.

        Raises:
            InputError: one is.
        """
        for path, mark in self._marks.items():
            if _read_mark(path, path) != mark:
                raise changed_error(path) from cause


class BackgroundHash:
    """A hash that a thread computes of files, which have to stay what they are meanwhile.

    Nobody waits for the thread where its result is not asked for, as after an error.
    """

    def __init__(self, path: Path, compute: Callable[[], str]) -> None:
        """`path` is named where they cannot be read."""
        self._path, self._compute = path, compute
        self._found: str | Exception = ""
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._compute()
        except Exception as error:
            self._found = error

    def result(self) -> str:
        """The hash, in hexadecimal.

        Raises:
            InputError: a file cannot be read.
        """
        self._thread.join()
        if isinstance(self._found, OSError):
            raise _unreadable_error(self._path, self._found) from self._found
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


class GrowingHash:
    """The SHA-256 of a file that is being written, which a thread reads back; a context manager."""

    def __init__(self, path: Path, see: Callable[[str, memoryview], None]) -> None:
        """`see` gets all that is read, with the label that it was announced by."""
        self._path, self._see = path, see
        self._announced: Queue[tuple[int, str] | None] = Queue()
        self._pool = ThreadPoolExecutor(1)
        self._found = self._pool.submit(self._follow)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._announced.put(None)
        self._pool.shutdown()

    def advance(self, end: int, label: str) -> None:
        """So many bytes are in the file by now, and those after the last ones are of `label`."""
        self._announced.put((end, label))

    def result(self) -> str:
        """The hash of all that was there when the block ended, in hexadecimal.

        Raises:
            InputError: something was announced and is not there.
        """
        return self._found.result()

    def _follow(self) -> str:
        digest, place, memory = hashlib.sha256(), 0, bytearray()
        with self._path.open("rb", buffering=0) as file:
            while (announced := self._announced.get()) is not None:
                end, label = announced
                if len(memory) < end - place:
                    memory = bytearray(end - place)
                data = memoryview(memory)[: end - place]
                if file.readinto(data) != len(data):
                    raise changed_error(self._path)
                place = end
                digest.update(data)
                self._see(label, data)
        return digest.hexdigest()


LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
MOST = 2**24  # bytes: some 100,000 files
ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


def compute_sums(folder: Path, names: Iterable[str]) -> str:
    """A line for each file of `folder`."""
    return "".join(_format_line(hash_file(folder / name), name) for name in names)


def read_sums(path: Path) -> Mapping[Path, set[str]]:
    """The hashes that a list has of each file, whose names it tells from its own folder.

    Raises:
        InputError: it cannot be read, or is no such list.
    """
    if require_regular_file(path) > MOST:
        raise _no_list_error(path)
    with open_for_reading(path) as file:
        lines = file.read().decode("utf-8", "surrogateescape").split("\n")
    found: dict[Path, set[str]] = {}
    for line in filter(None, (line.rstrip("\r") for line in lines)):
        match = LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise _no_list_error(path)
        name = _unescape_name(match[3]) if match[1] else match[3]
        found.setdefault((path.parent / name).resolve(), set()).add(match[2].lower())
    return found


def _format_line(digest: str, name: str) -> str:
    escaped = name
    for written, meant in ESCAPES.items():
        escaped = escaped.replace(meant, written)
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _unescape_name(name: str) -> str:
    return re.sub(r"\\[\\nr]", lambda match: ESCAPES[match[0]], name)


def _no_list_error(path: Path) -> InputError:
    return InputError("is no list of hashes", file=path, hint="sha256sum writes one")
