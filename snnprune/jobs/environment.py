"""`snnprune env`: what a bug report needs. torch is imported only where nobody else can tell."""

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path

from snnprune import models, runtime
from snnprune.data import DataOptions
from snnprune.errors import OutputError
from snnprune.files.writing import write_json
from snnprune.runtime import (
    LIF_VARIABLE,
    UnavailableError,
    collect_versions,
    describe_compiler,
    device_name,
    find_native_folder,
    require_own_folder,
)

DRIVERS = ("libcuda.so.1", "nvcuda.dll")
KERNEL_DRIVER = Path("/dev/kfd")  # of AMD's GPUs
KEPT = "environment.json"
SAID = ("device", "cuda", "lif")
VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "ATEN_", "TORCH", "PYTORCH", "LD_", "DYLD_")
"""By their first letters: what says how many threads torch takes, and how it computes."""
PROCESSOR = ("processor", "model name", "flags", "Features", "CPU part", "physical id", "core id")


def collect_environment() -> dict[str, str]:
    """Versions, devices and paths.

    Raises:
        UsageError: `$SNNPRUNE_LIF` asks for what is not there.
    """
    return {
        **collect_versions(),
        "platform": platform.platform(),
        "executable": sys.executable,
        **_find_what_torch_says(),
        "data root": str(DataOptions().find_folder()),
    }


def ask_torch() -> dict[str, str]:
    """`SAID`: the device, the CUDA that torch was built for, and how neurons are computed."""
    import torch

    from snnprune.distributed.ranks import choose_device
    from snnprune.models.lif.choice import describe_choice

    said = (device_name(choose_device()), torch.version.cuda or "none", describe_choice())
    return dict(zip(SAID, said, strict=True))


def may_have_gpu() -> bool:
    """Whether a driver is here, so that only torch can tell what the device is."""
    return KERNEL_DRIVER.exists() or any(map(_can_be_loaded, DRIVERS))


def _can_be_loaded(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _find_what_torch_says() -> dict[str, str]:
    """`ask_torch`, or what it said the last time, if all that its answer depends on is the same."""
    chosen = os.environ.get(LIF_VARIABLE, "").strip()
    if "torch" in sys.modules or chosen or os.name != "posix" or may_have_gpu():
        return ask_torch()
    kept = find_native_folder() / KEPT
    if (said := _recall(kept)) is not None:
        return said
    said = ask_torch()
    if said["lif"].startswith("native"):  # why else it is plain may be over the next time
        with contextlib.suppress(OSError, OutputError, UnavailableError):
            require_own_folder(kept.parent)
            write_json(kept, {"of": _hash_what_it_depends_on(), "said": said})
    return said


def _recall(kept: Path) -> dict[str, str] | None:
    """What torch said when all was as it is now; None if nobody knows."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, UnavailableError):
        require_own_folder(kept.parent)
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["of"] == _hash_what_it_depends_on():
            return {name: str(known["said"][name]) for name in SAID}
    return None


def _hash_what_it_depends_on() -> str:
    """Of torch, the compiler, what it has compiled, our code, the processor and the variables.

    Raises:
        OSError: a file of these cannot be read.
        UnavailableError: there is no compiler.
    """
    spec = find_spec("torch")
    folder = Path(spec.origin or "").parent if spec else Path()
    parts = [
        *((folder / name).read_bytes() for name in ("version.py", "__init__.py")),
        *(path.read_bytes() for path in _list_own_code()),
        *map(_describe_file, sorted((folder / "lib").glob("libtorch*"))),
        *map(_describe_file, sorted(find_native_folder().glob("lif-*"))),
        "\0".join([*describe_compiler(), *_describe_process()]).encode(errors="surrogateescape"),
    ]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _list_own_code() -> list[Path]:
    lif = Path(str(models.__file__)).parent / "lif"
    return [Path(str(runtime.__file__)), *sorted(p for p in lif.iterdir() if p.is_file())]


def _describe_file(path: Path) -> bytes:
    known = path.stat()
    return os.fsencode(f"{path}\0{known.st_size}\0{known.st_mtime_ns}")


def _describe_process() -> list[str]:
    """The processor, the cores that this process may use, and its variables."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = []
    with contextlib.suppress(OSError):  # another system than Linux
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = sorted({line for line in text.splitlines() if line.startswith(PROCESSOR)})
    variables = sorted(pair for pair in os.environ.items() if pair[0].startswith(VARIABLES))
    return [platform.platform(), platform.machine(), str(cores), *lines, str(variables)]
