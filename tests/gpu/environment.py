"""What the other parts were measured with: `environment.py --out FILE`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from measuring import Lines, make_parser, read_flags

sys.path.append(str(Path(__file__).parents[1]))

from needed import alone, dependencies, extra, missing

import snnprune

PACKAGES = ("torch", "triton", "spikingjelly", "cupy", "cupy-cuda12x", "cupy-cuda13x")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one row: versions, the device, and what is not installed."""
    flags = read_flags(make_parser("Versions and the device."), arguments)
    Lines(flags.out).add(
        python=platform.python_version(),
        snnprune=snnprune.__version__,
        packages={name: found for name in PACKAGES if (found := version_of(name))},
        missing=missing(dependencies()),
        missing_for_tests=missing([*extra("test"), *alone()]),
        **describe(flags.device),
    )


def version_of(package: str) -> str | None:
    """The version that is installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe(device: torch.device) -> dict[str, Any]:
    """The device, in words and numbers."""
    if device.type != "cuda":
        return {"device": device.type}
    found = torch.cuda.get_device_properties(device)
    return {
        "device": found.name,
        "memory_gb": found.total_memory / 1e9,
        "capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    main()
