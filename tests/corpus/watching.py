"""What Python does while a stranger's file is read: an audit hook, behind a switch.

A hook cannot be taken off again, so there is one for the process, which listens in `watching`
alone. It sees what Python does, and not what a library in C does without it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUNS = (
    *("exec", "compile", "import", "pickle.find_class", "marshal.loads", "code.__new__"),
    *("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn"),
    *("os.startfile", "subprocess.Popen", "cpython.run_command", "cpython.run_file"),
    *("sys.addaudithook", "sys.settrace", "sys.setprofile", "builtins.input", "function.__new__"),
)
"""Names of events that run something, or say what will run."""
RUNS_ANY = ("ctypes.", "socket.", "urllib.", "ftplib.", "http.", "smtplib.", "webbrowser.")
"""Beginnings of such names, of what leaves Python or the machine."""
HARMLESS = ("socket.gethostname", "socket.__new__")  # one leads nowhere until it is connected
"""What a run writes into its lock."""
WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
WRITES_MORE = ("os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "os.setxattr")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Watch:
    """What was seen that must not be."""

    writable: tuple[Path, ...]
    """Folders in which the command may write."""
    seen: list[str] = field(default_factory=list)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note an event that a reader has no use for."""
        if event in RUNS or (event.startswith(RUNS_ANY) and event not in HARMLESS):
            self.seen.append(f"{event} {_shown(arguments)}")
        elif event in WRITES or event in WRITES_MORE:
            if not self._may_write(arguments[0]):
                self.seen.append(f"{event} {_shown(arguments)}")
        elif event == "open" and _writes(*arguments) and not self._may_write(arguments[0]):
            self.seen.append(f"open for writing {_shown(arguments)}")

    def _may_write(self, path: object) -> bool:
        if isinstance(path, int):  # of a file that is open already, which was heard
            return True
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if self.writable and name and "/" not in name:  # in a folder that is held open
            return True
        return any(_place(name).is_relative_to(folder) for folder in self.writable)


_watches: list[Watch] = []
_installed: list[bool] = []


@contextlib.contextmanager
def watching(*writable: Path) -> Iterator[list[str]]:
    """What is done in the block and must not be; writing is allowed below `writable`."""
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    watch = Watch(writable=writable)
    _watches.append(watch)
    try:
        yield watch.seen
    finally:
        _watches.remove(watch)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _watches:
        watch.hear(event, arguments)


def _place(name: str) -> Path:
    """Where a path leads; one by an open folder, where that lies."""
    path = Path(name)
    if not name.startswith("/proc/self/fd/"):
        return path
    return Path(*[os.readlink(Path(*path.parts[:5])), *path.parts[5:]])  # noqa: PTH115


def _writes(path: object, mode: str | None, flags: int | None) -> bool:
    return bool(set(mode or "") & set("wax+")) or bool((flags or 0) & WRITING)


def _shown(arguments: tuple[Any, ...]) -> str:
    return " ".join(str(argument)[:80] for argument in arguments)
