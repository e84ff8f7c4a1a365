"""Which device to work on, and what the work is done with."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from snnprune.errors import UsageError
from snnprune.version import __version__

DEVICES = ("cpu", "cuda")
LIBRARIES = ("torch", "torchvision", "numpy", "safetensors", "pydantic")


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first GPU, else the CPU.

    Raises:
        UsageError: there is no such device here, or it has no 64-bit floats to sum up in.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] == "mps":
        raise UsageError(
            "mps has no 64-bit floats, which statistics are summed in",
            field="--device",
            hint="choose cpu",
        )
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(device.type)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"no device {name!r} here", field="--device", hint=f"choose {_format_choices()}"
        ) from error
    return device


def device_name(device: torch.device) -> str:
    """The device as its maker calls it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type} ({torch.get_num_threads()} threads)"


def collect_versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "snnprune": __version__,
        "python": platform.python_version(),
        **{library: _read_version(library) for library in LIBRARIES},
    }


@cache
def _read_version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _format_choices() -> str:
    """What can be asked for on this machine."""
    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ", ".join(["auto", *cards, "or cpu"]) if cards else "auto or cpu: there is no GPU"
