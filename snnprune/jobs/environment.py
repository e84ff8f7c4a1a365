"""`snnprune env`: what a bug report needs."""

import platform
import sys

import torch

from snnprune.data import DataOptions
from snnprune.distributed.ranks import choose_device
from snnprune.models.lif.choice import describe_choice
from snnprune.runtime import collect_versions, device_name


def collect_environment() -> dict[str, str]:
    """Versions, devices and paths."""
    return {
        **collect_versions(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "device": device_name(choose_device()),
        "cuda": torch.version.cuda or "none",
        "lif": describe_choice(),
        "data root": str(DataOptions().find_folder()),
    }
