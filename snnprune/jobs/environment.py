"""`snnprune env`: what a bug report needs."""

import platform
import sys

import torch

from snnprune.data import DataOptions
from snnprune.device import choose_device, device_name, versions


def environment() -> dict[str, str]:
    """Versions, devices and paths."""
    return {
        **versions(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "device": device_name(choose_device()),
        "cuda": torch.version.cuda or "none",
        "data root": str(DataOptions().find_folder()),
    }
