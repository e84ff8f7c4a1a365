"""Native libraries: compiled once for a machine, kept in the user's cache, loaded whole.

The name of one is a hash of all that it is made of, so that machines may share a home. Its last
bytes are a hash of those before them: a damaged file is made again and never run.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import torch

from snnprune.runtime import find_cache_folder

COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-shared"),
    *("-fno-math-errno", "-fno-trapping-math"),  # or comparisons are not done in vectors
    "-ffp-contract=off",
)
PARALLEL = "-fopenmp"
VECTORS = {"x86_64": ("-mavx2", "-mfma"), "aarch64": (), "arm64": ()}
"""By processor; an instruction that multiplies and adds is what torch's own kernels use."""
TIME_LIMIT = 30  # seconds; it takes one
DIGEST_SIZE = 32
SHARE = 2**15  # elements that are worth a thread, as in torch


class UnavailableError(Exception):
    """There is no native library here, and why."""


def load_library(source: Path) -> ctypes.CDLL:
    """What `source`, a file of C++, is compiled to, from the cache or freshly made.

    Raises:
        UnavailableError: it cannot be had here.
    """
    flags = (*FLAGS, *_choose_vectors())
    compiler = _find_compiler()
    folder = find_cache_folder().absolute() / "native"
    try:
        made_of = _describe(compiler, flags, source.read_bytes())
        path = folder / f"{source.parent.name}-{made_of}.so"
        _require_own_folder(folder)
        if not _is_whole(path):
            _compile([*compiler, *flags], source, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{folder}: {error.strerror or error}") from None


def count_threads(elements: int) -> int:
    """How many threads share the work on that many elements."""
    return min(torch.get_num_threads(), 1 + elements // SHARE)


def _choose_vectors() -> tuple[str, ...]:
    machine, capability = platform.machine(), torch.backends.cpu.get_cpu_capability()
    if machine not in VECTORS:
        raise UnavailableError(f"none for {machine} processors")
    if machine == "x86_64" and not capability.startswith("AVX"):
        raise UnavailableError("torch runs without AVX2 here")
    return VECTORS[machine]


def _find_compiler() -> list[str]:
    """The words that call it: `$CXX`, else the first that is there."""
    try:
        chosen = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise UnavailableError(f"CXX: {error}") from None
    for words in [chosen] if chosen else [[name] for name in COMPILERS]:
        if found := shutil.which(words[0]):
            return [found, *words[1:]]
    raise UnavailableError(f"no {chosen[0]}" if chosen else "no C++ compiler")


def _describe(compiler: list[str], flags: tuple[str, ...], source: bytes) -> str:
    """A hash of what is compiled, how, and by which file of a compiler."""
    program = Path(compiler[0]).resolve()
    known = program.stat()
    words = [*compiler, *flags, platform.machine(), program, known.st_size, known.st_mtime_ns]
    parts = [source, *(os.fsencode(str(word)) for word in words)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _require_own_folder(folder: Path) -> None:
    """Make it; what others may write to is no place to run code from."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnavailableError(f"others may write to {folder}")


def _is_whole(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    body, digest = content[:-DIGEST_SIZE], content[-DIGEST_SIZE:]
    return hashlib.sha256(body).digest() == digest


def _compile(command: list[str], source: Path, path: Path) -> None:
    """Make the library beside its place, and put it there as a whole."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        made = Path(folder) / path.name
        words = [*command, "-o", str(made), str(source)]
        said = _run([*words, PARALLEL])
        if said is not None:  # the compiler of a Mac knows no OpenMP
            said = _run(words)
        if said is not None:
            raise UnavailableError(f"{command[0]} failed: {said}")
        with made.open("ab") as file:
            file.write(hashlib.sha256(made.read_bytes()).digest())
        made.replace(path)


def _run(words: list[str]) -> str | None:
    """Run a compiler; the first line that it complains with, None if it does not."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{words[0]} took more than {TIME_LIMIT} s") from None
    if done.returncode == 0:
        return None
    return next(iter(done.stderr.splitlines()), f"exit code {done.returncode}")
