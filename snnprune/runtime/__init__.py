"""What runs: version, process, memory, cache, device and libraries, progress, seeded randomness.

Randomness is by counting: every draw is seeded by what it is for; no generator state is saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol, TypeVar

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
