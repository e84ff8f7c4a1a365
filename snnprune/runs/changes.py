"""What is not as it was when a run began."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from snnprune.device import device_name, versions
from snnprune.errors import InputError
from snnprune.recipe import Recipe

SHOWN = 10  # differences that an error lists
ABSENT = object()


def require_same(recipe: Recipe, of_run: Recipe, folder: Path) -> None:
    """Refuse to go on with another recipe.

    Raises:
        InputError: a setting differs; each is listed with both values.
    """
    before, now = (_flat(each.model_dump(mode="json")) for each in (of_run, recipe))
    found = differences(before, now)
    if found:
        more = [f"{len(found) - SHOWN} more"] * (len(found) > SHOWN)
        raise InputError(
            "; ".join([*found[:SHOWN], *more]),
            file=folder,
            hint="without --recipe and --set the run goes on as it began; --force starts another",
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each name whose values differ."""
    return [
        f"{name}: {_told(before.get(name, ABSENT))} in the run, {_told(now.get(name, ABSENT))} now"
        for name in dict.fromkeys([*before, *now])
        if before.get(name, ABSENT) != now.get(name, ABSENT)
    ]


def made_with(device: torch.device) -> dict[str, str]:
    """What the last bits of a result depend on beside the recipe."""
    known = versions()
    return {
        "snnprune": known["snnprune"],
        "torch": known["torch"],
        "device": device_name(device),
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"training": {"epochs": 3}}` as `{"training.epochs": 3}`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _told(value: object) -> str:
    return "not set" if value is ABSENT else str(value)
