"""What is not as it was when a run began."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from snnprune.errors import InputError
from snnprune.recipe.schema import Recipe
from snnprune.runtime import collect_versions, device_name

SHOWN = 10  # differences that an error lists
ABSENT = object()


def require_same(recipe: Recipe, of_run: Recipe, folder: Path) -> None:
    """Refuse to go on with another recipe.

    Raises:
        InputError: a setting differs; each is listed with both values.
    """
    before, now = (_flatten(each.model_dump(mode="json")) for each in (of_run, recipe))
    found = list_differences(before, now)
    if found:
        more = [f"{len(found) - SHOWN} more"] * (len(found) > SHOWN)
        raise InputError(
            "; ".join([*found[:SHOWN], *more]),
            file=folder,
            hint="without --recipe and --set the run goes on as it began; --force starts another",
        )


def list_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each name whose values differ."""
    names = dict.fromkeys([*before, *now])
    pairs = ((name, before.get(name, ABSENT), now.get(name, ABSENT)) for name in names)
    return [
        f"{name}: {_format_value(then)} in the run, {_format_value(value)} now"
        for name, then, value in pairs
        if then != value
    ]


def collect_conditions(device: torch.device, processes: int = 1) -> dict[str, str]:
    """What the last bits of a result depend on beside the recipe."""
    known = collect_versions()
    return {
        "snnprune": known["snnprune"],
        "torch": known["torch"],
        "device": device_name(device),
        "processes": str(processes),
    }


def check_differences(
    before: Mapping[str, str], now: Mapping[str, str], allowed: Collection[str], folder: Path
) -> list[str]:
    """A warning for each difference of what a run was made with; `allowed` are names in it.

    The number of a CPU's threads makes it no other device.

    Raises:
        InputError: something differs that is not allowed; each is listed with both values.
    """
    refused = [
        name
        for name in dict.fromkeys([*before, *now])
        if name not in allowed
        and _strip_details(before.get(name, "")) != _strip_details(now.get(name, ""))
    ]
    if refused:
        flags = " ".join(f"--allow-change {name}" for name in refused)
        raise InputError(
            "; ".join(told for told in list_differences(before, now) if _get_name(told) in refused),
            file=folder,
            hint=f"{flags} goes on all the same",
        )
    return list(map(_format_warning, list_differences(before, now)))


def _strip_details(made: str) -> str:
    return made.partition(" (")[0]


def _get_name(difference: str) -> str:
    return difference.partition(":")[0]


def _format_warning(difference: str) -> str:
    return f"{difference}: the result may differ in its last bits from that of an undisturbed run"


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"training": {"epochs": 3}}` as `{"training.epochs": 3}`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _format_value(value: object) -> str:
    return "not set" if value is ABSENT else str(value)
