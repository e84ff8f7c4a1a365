"""Which device to work on."""

import torch

from snnprune.errors import UsageError

DEVICES = ("cpu", "cuda")


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


def _format_choices() -> str:
    """What can be asked for on this machine."""
    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ", ".join(["auto", *cards, "or cpu"]) if cards else "auto or cpu: there is no GPU"
