"""What runs: version, process, memory, cache, device and libraries, progress, seeded randomness,
and what is compiled on the machine. Importing this imports no torch.

Randomness is by counting: every draw is seeded by what it is for; no generator state is saved.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol, TypeVar

from snnprune.errors import UsageError

if TYPE_CHECKING:
    import torch

__version__ = "0.1.0"
KEY = "snnprune.version"
"""Metadata of every file that snnprune writes: its own version."""
PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "pydantic")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True, kw_only=True)
class ProcessRank:
    """One of `size` processes, counted from 0 over all machines and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether it is the one that prints and writes."""
        return self.rank == 0


def read_process_rank() -> ProcessRank:
    """As the environment tells it; without torchrun this process is alone."""
    values = [os.environ.get(name, "") for name in VARIABLES]
    if not all(value.isdecimal() for value in values) or "MASTER_ADDR" not in os.environ:
        return ProcessRank()
    rank, size, local_rank = map(int, values)
    return ProcessRank(rank=rank, size=size, local_rank=local_rank)


def find_cache_folder() -> Path:
    """Where what can be made or fetched again is kept; it need not exist.

    `$SNNPRUNE_CACHE`, else snnprune's in the user's cache.
    """
    if chosen := os.environ.get("SNNPRUNE_CACHE"):
        return Path(chosen)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "snnprune"
    try:
        return Path.home() / ".cache" / "snnprune"
    except RuntimeError:  # neither HOME nor an entry in the password file, as in some containers
        import tempfile

        return Path(tempfile.gettempdir()) / "snnprune"


def format_command_line() -> str | None:
    """What was typed, quoted for a shell; None where something else than the command runs us."""
    program = PurePath(sys.argv[0])
    ours = program.stem == "snnprune" or program.parts[-2:] == ("snnprune", "__main__.py")
    return shlex.join(["snnprune", *sys.argv[1:]]) if ours else None


def read_peak_memory() -> int | None:
    """The largest resident set of this process so far, in bytes; None where nobody tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def read_memory() -> int | None:
    """The resident set of this process now, in bytes; None where nobody tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # another system than Linux
        return None


def return_freed_memory() -> None:
    """Give the system back what was freed, where the C library keeps pieces of it, as glibc does.

    Between stages that need large tensors of other sizes each; what is left in pieces adds up.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library, Windows
        ctypes.CDLL(None).malloc_trim(0)


def read_peak_gpu_memory(device: torch.device | None = None) -> int | None:
    """The most that torch has had of that GPU or the current one, in bytes; None if none is in use.

    torch is asked only if somebody has imported it: importing it takes seconds.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    peak: int = torch.cuda.max_memory_allocated(device)
    return peak


LIF_VARIABLE = "SNNPRUNE_LIF"
"""The variable that says how LIF neurons are computed; see `models.lif.choice`."""


DEVICES = ("cpu", "cuda")


def require_device_name(name: str, *, field: str = "--device") -> None:
    """Refuse what names no device, whatever machine this is.

    Raises:
        UsageError: it is none of `auto`, `cpu`, `cuda` and `cuda:N`.
    """
    kind, colon, number = name.partition(":")
    if kind == "mps":
        raise UsageError(
            "mps has no 64-bit floats, which statistics are summed in",
            field=field,
            hint="choose cpu",
        )
    if name == "auto" or (kind in DEVICES and number.isdecimal() == bool(colon)):
        return
    raise UsageError(f"no device {name!r} here", field=field, hint="choose auto, cpu or cuda:N")


def device_name(device: torch.device) -> str:
    """The device as its maker calls it, and how neurons are computed there, if by other bits."""
    import torch

    if device.type == "cuda":
        by = ", neurons by triton" if os.environ.get(LIF_VARIABLE, "").strip() == "triton" else ""
        return f"{torch.cuda.get_device_name(device)}{by}"
    return f"{device.type} ({torch.get_num_threads()} threads)"


def collect_versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import platform

    return {
        "snnprune": __version__,
        "python": platform.python_version(),
        **{package: _read_version(package) for package in PACKAGES},
    }


@cache
def _read_version(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


T = TypeVar("T")


class Progress(Protocol):
    """What `snnprune.cli` draws as bars; a notebook may pass its own."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Pass `items` on, telling after each how far the work is; `total` is their number."""
        ...

    def within(self, label: str, *, total: int, done: int = 0) -> AbstractContextManager[None]:
        """A block of the work, of `total` items; each item of a `track` in it brings it forward.

        `done` of them were done before, by a run that is taken up again: they count as done and
        not for the speed. Blocks may lie in blocks; a `track` within a `track` counts once.
        """
        ...

    def note(self, text: str) -> None:
        """A line about the item in hand, such as the loss so far."""
        ...

    def announce(self, text: str) -> None:
        """A line that stays, on work that is about to begin."""
        ...


class Silent:
    """Progress that nobody watches."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002  # nobody reads them
        """Pass `items` on."""
        yield from items

    def within(self, label: str, *, total: int, done: int = 0) -> AbstractContextManager[None]:  # noqa: ARG002  # likewise
        """Nothing around the block."""
        return nullcontext()

    def note(self, text: str) -> None:
        """Say nothing."""

    def announce(self, text: str) -> None:
        """Likewise."""


SILENT: Progress = Silent()


def derive_seed(*key: object) -> int:
    """A 63-bit seed that depends on every part of `key`, such as (seed, "shuffle", epoch)."""
    text = "\x1f".join(map(str, key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def make_generator(*key: object, device: str = "cpu") -> torch.Generator:
    """A fresh generator on `device`, seeded by `key`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(*key))


@contextlib.contextmanager
def seed_draws(*key: object, device: torch.device | None = None) -> Iterator[None]:
    """In the block torch's own generators are seeded by `key`; after it they are as before.

    For what draws by itself: dropout, a user's own initialisation or loader.
    """
    import torch

    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_all(*key)
        yield


def seed_all(*key: object) -> None:
    """As `torch.manual_seed`, by `key` and for the devices that are here.

    For each kind that is not, torch would note the call stack, longer than a small step takes.
    """
    import torch

    seed = derive_seed(*key)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


COMPILERS, C_COMPILERS = ("c++", "g++", "clang++"), ("cc", "gcc", "clang")
C_FLAGS = ("-std=c99", "-O2", "-fPIC", "-shared", "-ffp-contract=off")
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


def find_native_folder() -> Path:
    """Where compiled libraries are kept; it need not exist."""
    return find_cache_folder().absolute() / "native"


def load_library(source: Path) -> ctypes.CDLL:
    """What `source`, a file of C++, is compiled to, from the cache or freshly made.

    Raises:
        UnavailableError: it cannot be had here.
    """
    flags = (*FLAGS, *_choose_vectors())
    compiler = _find_compiler()
    folder = find_native_folder()
    try:
        made_of = _describe(compiler, flags, source.read_bytes())
        path = folder / f"{source.parent.name}-{made_of}.so"
        require_own_folder(folder)
        if not _is_whole(path):
            _compile([*compiler, *flags], source, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{folder}: {error.strerror or error}") from None


def compile_c(source: Path) -> Path:
    """A shared library beside `source`, a file of C99.

    Raises:
        UnavailableError: no compiler is here, or it fails.
    """
    path = source.with_suffix(".so")
    compiler = _find_program("CC", C_COMPILERS, "C")
    words = [*compiler, *C_FLAGS, "-o", str(path), str(source), "-lm"]
    if (said := _run(words)) is not None:
        raise UnavailableError(f"{compiler[0]} failed: {said}")
    return path


def count_threads(elements: int) -> int:
    """How many threads share the work on that many elements."""
    import torch

    return min(torch.get_num_threads(), 1 + elements // SHARE)


def _choose_vectors() -> tuple[str, ...]:
    import torch

    machine, capability = platform.machine(), torch.backends.cpu.get_cpu_capability()
    if machine not in VECTORS:
        raise UnavailableError(f"none for {machine} processors")
    if machine == "x86_64" and not capability.startswith("AVX"):
        raise UnavailableError("torch runs without AVX2 here")
    return VECTORS[machine]


def describe_compiler() -> list[str]:
    """The words that call that of C++, and which file it is.

    Raises:
        UnavailableError: there is none.
        OSError: its file cannot be read.
    """
    compiler = _find_compiler()
    return [*compiler, *_describe_program(compiler[0])]


def _find_compiler() -> list[str]:
    """The words that call that of C++."""
    return _find_program("CXX", COMPILERS, "C++")


def _find_program(variable: str, names: Sequence[str], language: str) -> list[str]:
    """The words that call a compiler: those of an environment variable, else the first there is."""
    try:
        chosen = shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise UnavailableError(f"{variable}: {error}") from None
    for words in [chosen] if chosen else [[name] for name in names]:
        if found := shutil.which(words[0]):
            return [found, *words[1:]]
    raise UnavailableError(f"no {chosen[0]}" if chosen else f"no {language} compiler")


def _describe(compiler: list[str], flags: tuple[str, ...], source: bytes) -> str:
    """A hash of what is compiled, how, and by which file of a compiler."""
    words = [*compiler, *flags, platform.machine(), *_describe_program(compiler[0])]
    parts = [source, *map(os.fsencode, words)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _describe_program(name: str) -> list[str]:
    """Which file it is, and of when."""
    program = Path(name).resolve()
    known = program.stat()
    return [str(program), str(known.st_size), str(known.st_mtime_ns)]


def require_own_folder(folder: Path) -> None:
    """Make it; what others may write to is no place to run code from, nor to believe.

    Raises:
        UnavailableError: others may write to it.
        OSError: it cannot be made.
    """
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
